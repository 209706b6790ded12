"""NetFlow v5, v9 and IPFIX datagrams for tests, field by field as the RFCs draw them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import numpy as np

from exporter.decode import Decoder
from exporter.receive.datagrams import DatagramBatch

#: When the devices of tests export, in seconds since the epoch, and their uptime in milliseconds.
NOW = 1_700_000_000
UPTIME = 1_000_000

DEVICE = "192.0.2.1"

#: (element, octets) or (enterprise, element, octets) of IPFIX.
FieldSpec = tuple[int, int] | tuple[int, int, int]

#: A usual flow: addresses, ports, protocol, counters.
FLOW: list[FieldSpec] = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (2, 4), (1, 4)]


def ip(text: str) -> bytes:
    return ip_address(text).packed


def flow(
    source: str = "10.0.0.1", destination: str = "10.0.0.2", *, src_port: int = 1234,
    dst_port: int = 80, proto: int = 6, packets: int = 3, octets: int = 300,
) -> bytes:  # fmt: skip
    """A record of :data:`FLOW`."""
    ports = struct.pack("!HHB", src_port, dst_port, proto)
    return ip(source) + ip(destination) + ports + struct.pack("!II", packets, octets)


def set_of(number: int, body: bytes) -> bytes:
    return struct.pack("!HH", number, len(body) + 4) + body


def _fields(fields: Sequence[FieldSpec]) -> bytes:
    out = b""
    for field in fields:
        if len(field) == 2:
            out += struct.pack("!HH", *field)
        else:
            enterprise, element, length = field
            out += struct.pack("!HHI", element | 0x8000, length, enterprise)
    return out


def template9(number: int, fields: Sequence[FieldSpec]) -> bytes:
    """A NetFlow v9 template set of one template."""
    return set_of(0, struct.pack("!HH", number, len(fields)) + _fields(fields))


def options_template9(
    number: int, scopes: Sequence[FieldSpec], fields: Sequence[FieldSpec]
) -> bytes:
    head = struct.pack("!HHH", number, 4 * len(scopes), 4 * len(fields))
    return set_of(1, head + _fields(scopes) + _fields(fields))


def template10(number: int, fields: Sequence[FieldSpec]) -> bytes:
    """An IPFIX template set of one template; without fields a withdrawal."""
    return set_of(2, struct.pack("!HH", number, len(fields)) + _fields(fields))


def options_template10(number: int, scopes: int, fields: Sequence[FieldSpec]) -> bytes:
    return set_of(3, struct.pack("!HHH", number, len(fields), scopes) + _fields(fields))


def netflow9(
    *sets: bytes, sequence: int = 0, domain: int = 0, uptime: int = UPTIME, seconds: int = NOW,
    count: int = 1,
) -> bytes:  # fmt: skip
    head = struct.pack("!HHIIII", 9, count, uptime, seconds, sequence, domain)
    return head + b"".join(sets)


def ipfix(*sets: bytes, sequence: int = 0, domain: int = 0, seconds: int = NOW) -> bytes:
    body = b"".join(sets)
    return struct.pack("!HHIII", 10, 16 + len(body), seconds, sequence, domain) + body


def record5(**values: Any) -> bytes:
    """A NetFlow v5 record; addresses as text, all else numbers."""
    known = {
        "source": "10.0.0.1", "destination": "10.0.0.2", "next_hop": "0.0.0.0", "in_if": 1,
        "out_if": 2, "packets": 3, "octets": 300, "first": UPTIME - 2000, "last": UPTIME - 1000,
        "src_port": 1234, "dst_port": 80, "flags": 0x1B, "proto": 6, "tos": 0, "src_as": 0,
        "dst_as": 0, "src_len": 24, "dst_len": 16,
    } | values  # fmt: skip
    return (
        ip(known["source"]) + ip(known["destination"]) + ip(known["next_hop"])
        + struct.pack("!HHIIII", *(known[n] for n in
                                   ("in_if", "out_if", "packets", "octets", "first", "last")))
        + struct.pack("!HHBBBB", known["src_port"], known["dst_port"], 0, known["flags"],
                      known["proto"], known["tos"])
        + struct.pack("!HHBBH", known["src_as"], known["dst_as"], known["src_len"],
                      known["dst_len"], 0)
    )  # fmt: skip


def netflow5(
    *records: bytes, sequence: int = 0, sampling: int = 0, count: int | None = None,
    uptime: int = UPTIME, seconds: int = NOW, engine: int = 0,
) -> bytes:  # fmt: skip
    number = len(records) if count is None else count
    head = struct.pack("!HHIIIIHH", 5, number, uptime, seconds, 0, sequence, engine, sampling)
    return head + b"".join(records)


def batch(
    *datagrams: bytes, device: str | Sequence[str] = DEVICE, received: int = NOW * 1000
) -> DatagramBatch:
    """Datagrams as a receiver hands them over, all of one device or of one each."""
    devices = [device] * len(datagrams) if isinstance(device, str) else device
    senders = b"".join(b"\0" * 10 + b"\xff\xff" + ip(name) for name in devices)
    return DatagramBatch.of(
        list(datagrams),
        np.frombuffer(senders, np.uint8).reshape(-1, 16).copy(),
        np.full(len(datagrams), 2055, np.uint16),
        np.full(len(datagrams), received, np.int64),
    )


def rows(
    decoder: Decoder, *datagrams: bytes, device: str = DEVICE, received: int = NOW * 1000
) -> list[dict[str, Any]]:
    """The flows of datagrams that arrive together."""
    found = decoder.decode(batch(*datagrams, device=device, received=received))
    return [row for flows in found for row in flows.rows()]
