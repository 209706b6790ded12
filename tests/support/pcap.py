"""Capture files of UDP datagrams, for programs that read packets from a file."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from pathlib import Path


def write_pcap(
    path: Path,
    payloads: Iterable[bytes],
    *,
    port: int,
    source: str = "127.0.0.1",
    start: int = 1_760_000_000_000,
) -> None:
    """Each payload as one Ethernet, IPv4 and UDP frame, a millisecond apart, from ``start`` on."""
    frames = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, payload in enumerate(payloads):
        udp = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), number & 0xFFFF, 0, 64, 17, 0,
            ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address("127.0.0.1").packed,
        )  # fmt: skip
        frame = bytes(12) + b"\x08\x00" + ip + udp
        seconds, milliseconds = divmod(start + number, 1000)
        frames.append(
            struct.pack("<IIII", seconds, milliseconds * 1000, len(frame), len(frame)) + frame
        )
    path.write_bytes(b"".join(frames))
