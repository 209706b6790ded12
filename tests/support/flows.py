"""Random but plausible flows whose totals a test knows."""

from __future__ import annotations

import numpy as np

from exporter.batch import DictColumn, FlowBatch
from exporter.schema import Direction

_APPS = ["", "ssl", "http", "dns-over-https", "postgresql", "x" * 300]
_VRFS = ["", "blue", "customer-0042"]


def random_flows(
    count: int, *, seed: int = 1, family: int = 4, now: int = 1_760_000_000_000, texts: bool = False
) -> FlowBatch:
    """``count`` unsampled flows of one family (or ``family=0``: every third one IPv6)."""
    rng = np.random.default_rng(seed)
    ipv6 = {4: np.zeros(count, bool), 6: np.ones(count, bool), 0: np.arange(count) % 3 == 0}[family]

    def addresses(network: int) -> np.ndarray:
        out = np.zeros((count, 16), np.uint8)
        out[:, 10:12] = 0xFF
        out[:, 12] = 10
        out[:, 13] = network
        out[:, 14:] = rng.integers(0, 256, (count, 2), np.uint8)
        out[ipv6, :14] = 0
        out[ipv6, :4] = (0x20, 0x01, 0x0D, 0xB8)
        out[ipv6, 5] = network
        return out

    proto = rng.choice(np.array([6, 6, 6, 17, 1], np.uint8), count)
    proto[(proto == 1) & ipv6] = 58
    ported = np.isin(proto, (6, 17))
    packets = rng.integers(1, 400, count).astype(np.uint64)
    end = now - rng.integers(0, 5_000, count)
    columns = {
        "time_flow_start": end - rng.integers(0, 60_000, count),
        "time_flow_end": end,
        "bytes": packets * rng.integers(64, 1400, count).astype(np.uint64),
        "packets": packets,
        "src_addr": addresses(1),
        "dst_addr": addresses(2),
        "next_hop": addresses(3),
        "etype": np.where(ipv6, 0x86DD, 0x0800).astype(np.uint16),
        "proto": proto,
        "src_port": np.where(ported, rng.integers(1024, 65536, count), 0).astype(np.uint16),
        "dst_port": np.where(ported, rng.choice([53, 443, 14999], count), 0).astype(np.uint16),
        "tcp_flags": np.where(proto == 6, rng.integers(1, 64, count), 0).astype(np.uint16),
        "tos": rng.choice([0, 0x28, 0xB8], count).astype(np.uint8),
        "icmp_type": np.where(ported, 0, rng.choice([3, 8, 128], count)).astype(np.uint8),
        "icmp_code": np.where(ported, 0, rng.integers(0, 4, count)).astype(np.uint8),
        "in_if": rng.choice([1, 2, 3, 49], count).astype(np.uint32),
        "out_if": rng.choice([1, 2, 3, 42], count).astype(np.uint32),
        "src_as": rng.choice([64512, 123456, 0], count).astype(np.uint32),
        "dst_as": rng.choice([64512, 4200000000, 0], count).astype(np.uint32),
        "src_prefix_len": rng.integers(8, 33, count).astype(np.uint8),
        "dst_prefix_len": rng.integers(8, 33, count).astype(np.uint8),
        "src_vlan": rng.integers(1, 4095, count).astype(np.uint16),
        "dst_vlan": rng.integers(1, 4095, count).astype(np.uint16),
        "src_mac": rng.integers(1, 1 << 48, count).astype(np.uint64),
        "dst_mac": rng.integers(1, 1 << 48, count).astype(np.uint64),
        "direction": rng.choice([Direction.INGRESS, Direction.EGRESS], count).astype(np.int8),
        "forwarding_status": rng.choice([64, 130], count).astype(np.uint8),
    }
    if texts:
        for name, values in (("app", _APPS), ("vrf", _VRFS)):
            codes = rng.integers(0, len(values), count).astype(np.uint32)
            columns[name] = DictColumn(codes, list(values))
        names = [f"host{i}.example.net" for i in range(1000)]
        columns["http_host"] = DictColumn(rng.integers(0, 1000, count).astype(np.uint32), names)
    return FlowBatch(count, columns)


def one_packet_flows(count: int, *, rate: int, seed: int = 1, family: int = 4) -> FlowBatch:
    """Flows of one sampled packet each, as sFlow has them."""
    batch = random_flows(count, seed=seed, family=family)
    lengths = np.random.default_rng(seed).integers(78, 1518, count).astype(np.uint64)
    batch.columns["packets"] = np.full(count, rate, np.uint64)
    batch.columns["bytes"] = lengths * np.uint64(rate)
    return batch


def scaled(batch: FlowBatch, rate: int) -> FlowBatch:
    """The same flows as estimates of a device that samples 1 in ``rate``."""
    columns = dict(batch.columns)
    for name in ("bytes", "packets"):
        columns[name] = batch.array(name) * np.uint64(rate)
    return FlowBatch(len(batch), columns)
