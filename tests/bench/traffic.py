"""Made-up flows that repeat themselves as real ones do: for the store, whose cost follows that.

A few hosts, services and AS carry most of the traffic, and many carry little (Zipf's law): 4,000
internal hosts, 100,000 external ones in 3,000 AS, 24 services on well-known ports, 12 routers of
16 interfaces. Each conversation is reported in both directions; client ports are ephemeral.
Filled are the columns that a NetFlow v9 record of 24 fields and a configured network give.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from exporter.batch import Array, DictColumn, FlowBatch
from exporter.schema import Direction, SamplingSource, Source

INTERNAL: Final = 4_000
EXTERNAL: Final = 100_000
_ASES: Final = 3_000
_DEVICES: Final = 12
_INTERFACES: Final = 16
#: Port, protocol, share of the conversations.
_SERVICES: Final = (
    ("https", 443, 6, 40), ("dns", 53, 17, 16), ("quic", 443, 17, 10), ("http", 80, 6, 6),
    ("ingest", 20012, 6, 6), ("aggregation", 14999, 6, 4), ("ssh", 22, 6, 2), ("ntp", 123, 17, 2),
    ("smtp", 25, 6, 2), ("imaps", 993, 6, 2), ("postgresql", 5432, 6, 2), ("redis", 6379, 6, 1),
    ("proxy", 3128, 6, 1), ("ldap", 389, 6, 1), ("kafka", 9092, 6, 1), ("syslog", 514, 17, 1),
    ("snmp", 161, 17, 1), ("rdp", 3389, 6, 1), ("vpn", 1194, 17, 1), ("wireguard", 51820, 17, 1),
    ("mysql", 3306, 6, 1), ("elasticsearch", 9200, 6, 1), ("statsd", 8125, 17, 1),
    ("nfs", 2049, 6, 1),
)  # fmt: skip
#: Networks of the internal hosts, as shares of them.
_NETWORKS: Final = ("production", "production", "production", "vms", "office", "wifi")
_COUNTRIES: Final = ("DE", "US", "NL", "FR", "GB", "PL", "JP", "IN", "BR", "CN", "SE", "IT")
_TCP_FLAGS: Final = (0x1B, 0x1F, 0x02, 0x12, 0x18, 0x10, 0x14)


class Traffic:
    """Flows of one site; the same ``seed`` gives the same site and the same flows."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random = np.random.default_rng(seed)
        self._internal_chosen = _heavy_tail(INTERNAL, 0.8)
        self._external_chosen = _heavy_tail(EXTERNAL, 0.9)
        self._service_chosen = np.cumsum([share for *_, share in _SERVICES]).astype(np.float64)
        self._service_chosen /= self._service_chosen[-1]
        hosts = INTERNAL + EXTERNAL
        self._addresses = np.zeros((hosts, 16), np.uint8)
        self._addresses[:, 10:12] = 0xFF
        numbers = np.concatenate([
            (10 << 24) + random.choice(1 << 20, INTERNAL, replace=False),
            (20 << 24) + random.choice(1 << 27, EXTERNAL, replace=False),
        ])  # fmt: skip
        self._addresses[:, 12:] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
        ases = np.searchsorted(_heavy_tail(_ASES, 0.9), random.random(EXTERNAL))
        inside = np.zeros(INTERNAL, np.int64)
        self._as = np.concatenate([inside + 64500, 65536 + ases]).astype(np.uint32)
        self._prefix_len = np.concatenate([inside + 24, 12 + ases % 13]).astype(np.uint8)
        self._country = np.concatenate([inside, 1 + ases % len(_COUNTRIES)]).astype(np.uint32)
        self._network = np.concatenate(
            [1 + np.arange(INTERNAL) % len(_NETWORKS), np.zeros(EXTERNAL, np.int64)]
        )
        self._host = np.concatenate([1 + np.arange(INTERNAL), np.zeros(EXTERNAL, np.int64)])
        #: Where a host is: external ones behind the transit that leads to their AS.
        self._device = np.concatenate([inside, ases % _DEVICES])
        self._interface = np.concatenate(
            [4 + np.arange(INTERNAL) % (_INTERFACES - 4), 1 + ases % 3]
        ).astype(np.uint32)
        self._device_addresses = self._addresses[:_DEVICES].copy()
        self._device_addresses[:, 12:] = [[10, 255, 0, n + 1] for n in range(_DEVICES)]
        self._names = ["", *(f"host{n:04d}.example.net" for n in range(INTERNAL))]

    def flows(self, count: int, *, begin: int, milliseconds: int) -> FlowBatch:
        """``count`` flows received evenly from ``begin`` (ms since the epoch) on, in order."""
        random = self._random
        pairs = count // 2 + 1
        server = _draw(random, self._internal_chosen, pairs)
        outward = random.random(pairs) < 0.75
        client = np.where(
            outward,
            INTERNAL + _draw(random, self._external_chosen, pairs),
            _draw(random, self._internal_chosen, pairs),
        )
        kind = _draw(random, self._service_chosen, pairs)
        port = np.array([s[1] for s in _SERVICES], np.uint16)[kind]
        proto = np.array([s[2] for s in _SERVICES], np.uint8)[kind]
        ephemeral = random.integers(32768, 61000, pairs).astype(np.uint16)
        packets = 1 + random.lognormal(1.5, 1.5, pairs).astype(np.uint64)
        size = 40 + random.gamma(1.2, 300, pairs).astype(np.uint64) % np.uint64(1460)
        duration = np.where(packets == 1, 0, random.exponential(12_000, pairs)).astype(np.int64)
        np.minimum(duration, 60_000, out=duration)
        idle = np.where(duration >= 60_000, 0, random.integers(0, 15_000, pairs))

        def both(there: Array, back: Array) -> Array:
            """Requests and replies in turns."""
            return np.stack([there, back], 1).reshape(2 * pairs, *there.shape[1:])[:count]

        source, destination = both(client, server), both(server, client)
        device = both(*[np.where(outward, self._device[client], server % _DEVICES)] * 2)
        received = begin + np.arange(count) * milliseconds // count
        # Twenty records share a datagram.
        received = received[np.arange(count) // 20 * 20]
        end = received - both(idle, idle)
        proto = both(proto, proto)
        reply_packets = np.maximum(packets // np.uint64(2), np.uint64(1))
        flags = np.array(_TCP_FLAGS, np.uint16)[
            np.minimum(random.geometric(0.5, count) - 1, len(_TCP_FLAGS) - 1)
        ]
        reply = np.arange(count) % 2 == 1
        service = both(kind, kind) + 1
        in_if, out_if = self._interface[source], self._interface[destination]
        columns: dict[str, Array | DictColumn] = {
            "time_received": received,
            "time_flow_start": end - both(duration, duration),
            "time_flow_end": end,
            "device_addr": self._device_addresses[device],
            "observation_domain": np.ones(count, np.uint32),
            "source": np.full(count, Source.NETFLOW9, np.int8),
            "sampling_rate": np.ones(count, np.uint32),
            "sampling_source": np.full(count, SamplingSource.UNKNOWN, np.int8),
            "packets": both(packets, reply_packets),
            "bytes": both(packets * size, reply_packets * np.uint64(60) + size),
            "src_addr": self._addresses[source],
            "dst_addr": self._addresses[destination],
            "next_hop": self._device_addresses[(device + out_if) % _DEVICES],
            "etype": np.full(count, 0x0800, np.uint16),
            "proto": proto,
            "src_port": both(ephemeral, port),
            "dst_port": both(port, ephemeral),
            "tcp_flags": np.where(proto == 6, flags, 0).astype(np.uint16),
            "tos": np.where(service % 7 == 0, 0xB8, 0).astype(np.uint8),
            "in_if": in_if,
            "out_if": out_if,
            "src_as": self._as[source],
            "dst_as": self._as[destination],
            "src_prefix_len": self._prefix_len[source],
            "dst_prefix_len": self._prefix_len[destination],
            "src_vlan": (100 + in_if).astype(np.uint16),
            "dst_vlan": (100 + out_if).astype(np.uint16),
            "src_mac": (0x020000000000 + 256 * device + in_if).astype(np.uint64),
            "dst_mac": (0x020000000000 + 256 * device + out_if).astype(np.uint64),
            "direction": np.full(count, Direction.INGRESS, np.int8),
            "forwarding_status": np.full(count, 64, np.uint8),
            "device": _texts(device, [f"edge{n:02d}" for n in range(_DEVICES)]),
            "site": _texts(device % 3, ["fra1", "ams1", "nyc1"]),
            "role": DictColumn.constant("router", count),
            "in_if_name": _texts(in_if, [f"xe-0/0/{n}" for n in range(_INTERFACES)]),
            "out_if_name": _texts(out_if, [f"xe-0/0/{n}" for n in range(_INTERFACES)]),
            "src_host": _texts(self._host[source], self._names),
            "dst_host": _texts(self._host[destination], self._names),
            "src_network": self._networks(source),
            "dst_network": self._networks(destination),
            "src_country": _texts(self._country[source], ["", *_COUNTRIES]),
            "dst_country": _texts(self._country[destination], ["", *_COUNTRIES]),
            "service": _texts(service, _SERVICE_NAMES),
            "src_service": _texts(np.where(reply, service, 0), _SERVICE_NAMES),
            "dst_service": _texts(np.where(reply, 0, service), _SERVICE_NAMES),
        }
        return FlowBatch(count, columns)

    def _networks(self, hosts: Array) -> DictColumn:
        names = ["", *dict.fromkeys(_NETWORKS)]
        codes = np.array([0, *(names.index(name) for name in _NETWORKS)])
        return _texts(codes[self._network[hosts]], names)


_SERVICE_NAMES: Final = ["", *(name for name, *_ in _SERVICES)]


def _heavy_tail(size: int, exponent: float) -> Array:
    """Cumulated shares of ``size`` things, the first by far the largest."""
    shares: Array = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)
    shares /= shares[-1]
    return shares


def _draw(random: np.random.Generator, shares: Array, count: int) -> Array:
    return np.searchsorted(shares, random.random(count))


def _texts(codes: Array, values: list[str]) -> DictColumn:
    return DictColumn(codes.astype(np.uint32), values)
