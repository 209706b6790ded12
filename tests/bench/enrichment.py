"""CPU cost of enrichment with everything known at once: names, networks, services, AS, countries.

Of 100,000 addresses, a fifth of IPv6: 5,000 prefixes of networks, an MMDB file of a million
networks with AS and country, hosts from all sources (1,000 of them containers), services by port,
by network and by host, 50 devices with interfaces.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.address import mapped
from exporter.batch import DictColumn, FlowBatch, format_address
from exporter.config import Config
from exporter.enrich import NameSources
from exporter.enrich.host_names import HostFacts, Source
from exporter.enrich.learned import Lesson
from exporter.enrich.learned_interfaces import LearnedInterface
from exporter.memory import keep_freed_memory
from tests.support.mmdb import write_many

ADDRESSES: Final = 100_000
PREFIXES: Final = 5_000
MMDB_NETWORKS: Final = 1 << 20
#: As many as there are pairs of AS and country in the world.
MMDB_RECORDS: Final = 100_000
CONTAINERS: Final = 1_000
DEVICES: Final = 50
INTERFACES: Final = 48
DATAGRAM_FLOWS: Final = 24
#: The collector enriches at once what half a second brings: 62,500 at 125,000 flows per second.
BATCH_FLOWS: Final = (250_000, 62_500, 32_768, 10_000)
_IPV6_SHARE: Final = 0.2
_ROUNDS: Final = 12
_REPEATS: Final = 3
_STRANGE_ADDRESSES: Final = 1_000_000

Addresses = NDArray[np.uint8]


@dataclass(frozen=True)
class Enrichment:
    """CPU seconds per million flows: of known addresses, and where each address is a new one.

    ``first`` is that of the first batch of new addresses after a start, for which most records of
    the MMDB file are read. Memory is that of what is kept of addresses, and of the MMDB file.
    """

    batch_flows: int
    cpu_per_million: float
    new: float
    first: float
    cache_bytes: int
    mmdb_bytes: int


def enrichment_cost(batch_flows: int) -> Enrichment:
    """What it costs once the addresses are known, and while none is."""
    keep_freed_memory()  # as the collector does
    with tempfile.TemporaryDirectory(prefix="flow-bench-") as folder:
        mmdb = Path(folder) / "as-and-country.mmdb"
        write_many(mmdb, depth=(MMDB_NETWORKS // 2).bit_length() - 1, records=MMDB_RECORDS)
        pool = _pool(ADDRESSES, seed=1)
        sources = _sources(str(mmdb), pool)
    first, *new = [
        _seconds(sources, _batch(_pool(2 * batch_flows, 100 + n), batch_flows, n, each_once=True))
        for n in range(3 + _STRANGE_ADDRESSES // (2 * batch_flows))
    ]
    sources.configure(sources.config)  # what is kept of addresses begins anew
    _seconds(sources, _batch(pool, ADDRESSES // 2, 0, each_once=True))
    batches = [_batch(pool, batch_flows, seed) for seed in range(_ROUNDS)]
    known = min(_seconds(sources, batch) for _ in range(_REPEATS) for batch in batches)
    million = 1e6 / batch_flows
    return Enrichment(
        batch_flows,
        known * million,
        min(new) * million,
        first * million,
        int(_metric(sources, "enrich_cache_bytes")),
        int(_metric(sources, "geo_file_memory_bytes")),
    )


def _sources(mmdb: str, pool: Addresses) -> NameSources:
    """Everything that there is to know; hosts in all layers, of which containers come first."""
    sources = NameSources(_config(mmdb, pool))
    interfaces = {n: LearnedInterface(f"xe-0/0/{n}", speed=10**10) for n in range(INTERFACES)}
    for device in _devices()[::2]:
        sources.interfaces.put(device.tobytes(), interfaces)
    rows = [address.tobytes() for address in pool]
    layers: tuple[tuple[Source, str, list[bytes]], ...] = (
        ("docker", "container{}", rows[:CONTAINERS]),
        ("targets", "node{}", rows[2_000:7_000]),
        ("reverse_dns", "host{}.example.net", rows[7_000:17_000]),
    )
    for layer, name, known in layers:
        sources.hosts.layer(layer).update(
            {address: HostFacts(name.format(n)) for n, address in enumerate(known)}
        )
    assert sources.dns.learned is not None
    now = time.time()
    # Of 9,000 addresses, each ninth has two names.
    sources.dns.learned.learn(
        (
            Lesson(f"www{n}.example.com", rows[n % 500], (rows[20_000 + n % 9_000],), 300.0, now)
            for n in range(10_000)
        ),
        now,
    )
    return sources


def _config(mmdb: str, pool: Addresses) -> Config:
    """Half of the prefixes hold addresses of ``pool``; a fifth of them are of IPv6."""
    networks: dict[str, list[str]] = {}
    strangers = _pool(PREFIXES // 2, seed=3)
    for number, address in enumerate(np.concatenate([pool[: PREFIXES // 2], strangers])):
        text = format_address(address.tobytes())
        prefix = ip_network(f"{text}/{32 if ':' in text else 16}", strict=False)
        networks.setdefault(f"network{number % 500}", []).append(str(prefix))
    texts = [format_address(address.tobytes()) for address in pool[30_000:35_000]]
    devices = [format_address(device.tobytes()) for device in _devices()]
    return Config.model_validate(
        {
            "devices": [
                {
                    "address": address,
                    "name": f"edge{n}",
                    "site": f"site{n % 5}",
                    "role": "router",
                    "owner": "network",
                    "interfaces": {i: f"et-0/0/{i}" for i in range(INTERFACES)},
                }
                for n, address in enumerate(devices)
            ],
            "networks": [{"name": name, "prefixes": found} for name, found in networks.items()],
            "hosts": [{"address": a, "name": f"static{n}"} for n, a in enumerate(texts)],
            "services": [
                {"port": 14999, "name": "aggregation"},
                {"port": 9000, "name": "lab", "networks": ["network1", "network2"]},
                {"port": 5432, "name": "billing", "addresses": texts[:50]},
            ],
            "geo": {"files": [mmdb]},
            "dns": {"reverse": {"enabled": True, "servers": ["192.0.2.53"]}},
        }
    )


def _devices() -> Addresses:
    return mapped(np.arange(0xC0000201, 0xC0000201 + DEVICES, dtype=np.uint32))


def _pool(count: int, seed: int) -> Addresses:
    """Distinct addresses, or nearly so, of networks that are in the MMDB file."""
    rng = np.random.default_rng(seed)
    addresses = mapped(rng.integers(0, 2**32, count, np.uint32))
    ipv6 = rng.random(count) < _IPV6_SHARE
    addresses[ipv6] = rng.integers(0, 256, (int(ipv6.sum()), 16), np.uint8)
    addresses[ipv6, :2] = 0x2A, 0x00
    return addresses


def _batch(pool: Addresses, flows: int, seed: int, *, each_once: bool = False) -> FlowBatch:
    rng = np.random.default_rng(seed)
    if each_once:
        source, destination = pool[:flows], pool[flows:]
    else:
        source, destination = (pool[rng.integers(0, len(pool), flows)] for _ in range(2))
    ports = np.array([443, 80, 53, 14999, 5432, 9000], np.uint16)
    none = DictColumn.constant("", flows)
    return FlowBatch(
        flows,
        {
            "device_addr": np.repeat(
                _devices()[rng.integers(0, DEVICES, flows // DATAGRAM_FLOWS + 1)],
                DATAGRAM_FLOWS,
                axis=0,
            )[:flows],
            "time_flow_end": np.full(flows, int(time.time() * 1000)),
            "src_addr": source,
            "dst_addr": destination,
            "src_as": np.zeros(flows, np.uint32),
            "dst_as": np.zeros(flows, np.uint32),
            "proto": np.full(flows, 6, np.uint8),
            "src_port": rng.integers(32768, 61000, flows).astype(np.uint16),
            "dst_port": ports[rng.integers(0, len(ports), flows)],
            "tcp_flags": np.full(flows, 0x1B, np.uint16),
            "in_if": rng.integers(0, INTERFACES, flows).astype(np.uint32),
            "out_if": rng.integers(0, INTERFACES, flows).astype(np.uint32),
            "in_if_name": none,
            "out_if_name": none,
        },
    )


def _seconds(sources: NameSources, batch: FlowBatch) -> float:
    plain = FlowBatch(len(batch), dict(batch.columns))
    begin = time.thread_time()
    sources.enricher.enrich(plain)
    return time.thread_time() - begin


def _metric(sources: NameSources, name: str) -> float:
    return sum(
        sample.value
        for family in sources.collect()
        if family.name == f"flow_exporter_{name}"
        for sample in family.samples
    )
