"""Frames and capture files for tests, byte by byte as the RFCs draw them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address


def udp(payload: bytes, port: int = 5000, destination_port: int = 2055) -> bytes:
    return struct.pack("!HHHH", port, destination_port, 8 + len(payload), 0) + payload


def ipv4(
    data: bytes, source: str = "192.0.2.1", destination: str = "192.0.2.2",
    proto: int = 17, identification: int = 1, fragment: int = 0, options: bytes = b"",
    ttl: int = 64, tos: int = 0,
) -> bytes:  # fmt: skip
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45 + len(options) // 4, tos, 20 + len(options) + len(data),
        identification, fragment, ttl, proto, 0,
        IPv4Address(source).packed, IPv4Address(destination).packed,
    )  # fmt: skip
    return header + options + data


def ipv6(
    data: bytes, source: str = "2001:db8::1", destination: str = "2001:db8::2",
    following: int = 17, hop_limit: int = 64, traffic_class: int = 0, label: int = 0,
) -> bytes:  # fmt: skip
    first = 6 << 28 | traffic_class << 20 | label
    return (
        struct.pack("!IHBB", first, len(data), following, hop_limit)
        + IPv6Address(source).packed + IPv6Address(destination).packed + data
    )  # fmt: skip


def ip(data: bytes, source: str, destination: str) -> bytes:
    make = ipv4 if ip_address(source).version == 4 else ipv6
    return make(data, source, destination)


def ethernet(packet: bytes, tags: Sequence[tuple[int, int]] = (), ethertype: int = 0) -> bytes:
    """A frame; ``tags`` are (EtherType, TCI) of VLAN tags, the outer one first."""
    kind = ethertype or (0x86DD if packet[0] >> 4 == 6 else 0x0800)
    stack = b"".join(struct.pack("!HH", *tag) for tag in tags)
    macs = bytes.fromhex("020000000002") + bytes.fromhex("020000000001")
    return macs + stack + struct.pack("!H", kind) + packet


def pcap(
    frames: Sequence[bytes], link_type: int = 1, magic: int = 0xA1B2C3D4, order: str = "<",
    times: Sequence[float] | None = None, snap_length: int = 65535,
) -> bytes:  # fmt: skip
    """A pcap file; frames are one second apart unless told otherwise."""
    fractions = 10**9 if magic == 0xA1B23C4D else 10**6
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap_length, link_type)]
    for index, frame in enumerate(frames):
        time = times[index] if times else 1_700_000_000 + index
        kept = frame[:snap_length]
        head = (int(time), round(time % 1 * fractions), len(kept), len(frame))
        parts.append(struct.pack(order + "IIII", *head))
        if magic == 0xA1B2CD34:
            parts.append(bytes(8))
        parts.append(kept)
    return b"".join(parts)


def pcapng_block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def pcapng_section(order: str = "<") -> bytes:
    body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    return pcapng_block(0x0A0D0D0A, body, order)


def pcapng_interface(
    link_type: int = 1, order: str = "<", options: Sequence[tuple[int, bytes]] = ()
) -> bytes:
    body = struct.pack(order + "HHI", link_type, 0, 0)
    for code, value in options:
        body += struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)
    return pcapng_block(1, body, order)


def pcapng_packet(frame: bytes, ticks: int, interface: int = 0, order: str = "<") -> bytes:
    head = (interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return pcapng_block(6, struct.pack(order + "IIIII", *head) + frame, order)
