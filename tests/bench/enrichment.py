"""CPU cost of enrichment: many addresses, prefixes, hosts and services known, batch by batch."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from exporter.batch import DictColumn, FlowBatch
from exporter.config import Config
from exporter.distinct import mapped
from exporter.enrich import NameSources
from exporter.enrich.host_names import HostFacts

ADDRESSES = 100_000
PREFIXES = 5_000
CONTAINERS = 1_000
BATCH_FLOWS = (250_000, 32_768, 10_000)
_ROUNDS = 12


@dataclass(frozen=True)
class Enrichment:
    """CPU seconds per million flows; ``new`` where every address of a batch is a new one."""

    batch_flows: int
    cpu_per_million: float
    new: float
    cache_bytes: int


def enrichment_cost(batch_flows: int) -> Enrichment:
    """What it costs once the addresses are known, and while none is."""
    sources = NameSources(_config())
    containers = _pool(CONTAINERS, seed=9)
    facts = {row.tobytes(): HostFacts(f"container{n}") for n, row in enumerate(containers)}
    sources.hosts.layer("docker").update(facts)
    pool = np.concatenate([containers, _pool(ADDRESSES - CONTAINERS, seed=1)])
    batches = [_batch(pool, batch_flows, seed) for seed in range(_ROUNDS)]
    for batch in batches:  # until all addresses have been seen
        sources.enricher.enrich(FlowBatch(len(batch), dict(batch.columns)))
    cost = min(_seconds(sources, batch) for batch in batches) / batch_flows * 1e6
    strangers = [
        _batch(_pool(2 * batch_flows, seed=100 + n), batch_flows, n, each_once=True)
        for n in range(3)
    ]
    new = min(_seconds(sources, batch) for batch in strangers) / batch_flows * 1e6
    (size,) = (
        family.samples[0].value
        for family in sources.enricher.collect()
        if family.name == "flow_exporter_enrich_cache_bytes"
    )
    return Enrichment(batch_flows, cost, new, int(size))


def _config() -> Config:
    prefixes = np.random.default_rng(3).choice(1 << 20, PREFIXES, replace=False) << 12
    networks: dict[str, list[str]] = {}
    for number, prefix in enumerate(prefixes.tolist()):
        text = f"{prefix >> 24}.{prefix >> 16 & 255}.{prefix >> 8 & 255}.0/20"
        networks.setdefault(f"network{number % 500}", []).append(text)
    return Config.model_validate(
        {
            "devices": [{"address": "192.0.2.1", "name": "edge1", "site": "fra"}],
            "networks": [{"name": name, "prefixes": found} for name, found in networks.items()],
            "services": [
                {"port": 14999, "name": "aggregation"},
                {"port": 9000, "name": "lab", "networks": ["network1"]},
            ],
        }
    )


def _pool(count: int, seed: int) -> np.ndarray:
    return mapped(np.random.default_rng(seed).integers(0, 2**32, count, np.uint32))


def _batch(pool: np.ndarray, flows: int, seed: int, *, each_once: bool = False) -> FlowBatch:
    rng = np.random.default_rng(seed)
    if each_once:
        source, destination = pool[:flows], pool[flows:]
    else:
        source, destination = (pool[rng.integers(0, len(pool), flows)] for _ in range(2))
    ports = np.array([443, 80, 53, 14999, 5432, 9000], np.uint16)
    return FlowBatch(
        flows,
        {
            "device_addr": np.broadcast_to(mapped(np.array([0xC0000201], np.uint32)), (flows, 16)),
            "src_addr": source,
            "dst_addr": destination,
            "src_as": np.zeros(flows, np.uint32),
            "dst_as": np.zeros(flows, np.uint32),
            "proto": np.full(flows, 6, np.uint8),
            "src_port": rng.integers(32768, 61000, flows).astype(np.uint16),
            "dst_port": ports[rng.integers(0, len(ports), flows)],
            "tcp_flags": np.full(flows, 0x1B, np.uint16),
            "in_if": rng.integers(1, 10, flows).astype(np.uint32),
            "in_if_name": DictColumn.constant("", flows),
        },
    )


def _seconds(sources: NameSources, batch: FlowBatch) -> float:
    plain = FlowBatch(len(batch), dict(batch.columns))
    begin = time.thread_time()
    sources.enricher.enrich(plain)
    return time.thread_time() - begin
