"""sFlow version 5 datagrams for tests, word by word as the specification draws them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address


def opaque(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data + bytes(-len(data) % 4)


def address(text: str) -> bytes:
    parsed = ip_address(text)
    return struct.pack("!I", 1 if parsed.version == 4 else 2) + parsed.packed


def part(kind: int, body: bytes) -> bytes:
    """A sample or a record."""
    return struct.pack("!II", kind, len(body)) + body


def raw_header(header: bytes, length: int = 0, protocol: int = 1, stripped: int = 4) -> bytes:
    head = struct.pack("!III", protocol, length or len(header) + stripped, stripped)
    return part(1, head + opaque(header))


def switch(src_vlan: int, dst_vlan: int) -> bytes:
    return part(1001, struct.pack("!IIII", src_vlan, 0, dst_vlan, 0))


def router(next_hop: str, src_len: int, dst_len: int) -> bytes:
    return part(1002, address(next_hop) + struct.pack("!II", src_len, dst_len))


def gateway(next_hop: str, src_as: int, path: Sequence[Sequence[int]]) -> bytes:
    body = address(next_hop) + struct.pack("!IIII", 64500, src_as, 64501, len(path))
    for segment in path:
        body += struct.pack(f"!II{len(segment)}I", 2, len(segment), *segment)
    return part(1003, body + struct.pack("!III", 1, 0xFFFF0001, 100))


def mpls(next_hop: str, came: Sequence[int], leaves: Sequence[int]) -> bytes:
    """Label stack entries (RFC 3032) that a packet came with, and those that it leaves with."""
    stacks = (struct.pack(f"!I{len(stack)}I", len(stack), *stack) for stack in (came, leaves))
    return part(1006, address(next_hop) + b"".join(stacks))


def flow_sample(
    records: Sequence[bytes], *, rate: int = 100, source: int = 3, pool: int = 1000,
    drops: int = 0, in_if: int = 3, out_if: int = 4, count: int | None = None,
) -> bytes:  # fmt: skip
    number = len(records) if count is None else count
    head = (1, source, rate, pool, drops, in_if, out_if, number)
    return part(1, struct.pack("!8I", *head) + b"".join(records))


def expanded_flow_sample(
    records: Sequence[bytes], *, rate: int = 100, source: tuple[int, int] = (0, 3),
    in_if: tuple[int, int] = (0, 3), out_if: tuple[int, int] = (0, 4),
) -> bytes:  # fmt: skip
    head = (1, *source, rate, 1000, 0, *in_if, *out_if, len(records))
    return part(3, struct.pack("!11I", *head) + b"".join(records))


def discarded_packet(records: Sequence[bytes], *, reason: int) -> bytes:
    return part(5, struct.pack("!8I", 1, 0, 3, 0, 3, 4, reason, len(records)) + b"".join(records))


def interface_counters(index: int, *, in_bytes: int = 0, out_bytes: int = 0) -> bytes:
    body = struct.pack("!IIQII", index, 6, 10**10, 1, 3)
    body += struct.pack("!QIIIIII", in_bytes, 10, 20, 30, 4, 5, 6)
    body += struct.pack("!QIIIIII", out_bytes, 11, 0xFFFFFFFF, 0xFFFFFFFF, 7, 8, 0)
    return part(1, body)


def counters_sample(records: Sequence[bytes], *, expanded: bool = False) -> bytes:
    head = (1, 0, 3, len(records)) if expanded else (1, 3, len(records))
    body = struct.pack(f"!{len(head)}I", *head) + b"".join(records)
    return part(4 if expanded else 2, body)


def datagram(
    samples: Sequence[bytes], *, agent: str = "192.0.2.9", sub_agent: int = 7, sequence: int = 1,
    uptime: int = 60_000, count: int | None = None,
) -> bytes:  # fmt: skip
    number = len(samples) if count is None else count
    rest = struct.pack("!IIII", sub_agent, sequence, uptime, number)
    return struct.pack("!I", 5) + address(agent) + rest + b"".join(samples)
