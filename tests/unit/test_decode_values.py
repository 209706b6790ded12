"""Whatever a template says of lengths and order, records come out as they were written."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import config
from exporter.decode import Decoder, values
from exporter.schema import Direction
from tests.support.netflow import FieldSpec, ipfix, netflow9, rows, set_of, template9, template10

#: Elements of numbers: the column that each fills, and the octets of that column's numbers.
NUMBERS = {
    1: ("bytes", 8), 2: ("packets", 8), 4: ("proto", 1), 5: ("tos", 1), 6: ("tcp_flags", 2),
    7: ("src_port", 2), 9: ("src_prefix_len", 1), 10: ("in_if", 4), 11: ("dst_port", 2),
    13: ("dst_prefix_len", 1), 14: ("out_if", 4), 16: ("src_as", 4), 17: ("dst_as", 4),
    31: ("flow_label", 4), 58: ("src_vlan", 2), 59: ("dst_vlan", 2), 89: ("forwarding_status", 1),
    133: ("drop_packets", 8), 192: ("ttl", 1), 228: ("nat_dst_port", 2),
}  # fmt: skip
ADDRESSES = {8: "src_addr", 12: "dst_addr", 15: "next_hop", 225: "nat_src_addr"}
ADDRESSES6 = {27: "src_addr", 28: "dst_addr", 62: "next_hop", 281: "nat_src_addr"}
MACS = {56: "src_mac", 80: "dst_mac"}
TEXTS = {96: "app", 460: "http_host"}
UNKNOWN = 9999  # enterprise

VARIABLE = 65535


@dataclass
class Sent:
    """A field of a template, the column that it fills if any, and its octets in each record."""

    spec: FieldSpec
    column: str
    octets: list[bytes]

    def told(self, record: int) -> Any:
        """What the column must show."""
        raw, element = self.octets[record], self.spec[-2]
        if element in NUMBERS:
            return int.from_bytes(raw[-8:], "big") % 256 ** NUMBERS[element][1]
        if self.column.endswith("_mac"):
            return raw.hex(":")
        if element in TEXTS:
            return raw.decode().rstrip("\0")
        return str(ip_address(raw))

    def written(self, record: int) -> bytes:
        raw = self.octets[record]
        if self.spec[-1] != VARIABLE:
            return raw
        # Both forms are right for short values (RFC 7011, section 7).
        short = len(raw) < 255 and record % 2 == 0
        return (bytes([len(raw)]) if short else b"\xff" + struct.pack("!H", len(raw))) + raw


def octets(length: int, count: int) -> st.SearchStrategy[list[bytes]]:
    raw = st.binary(min_size=length, max_size=length)
    return st.lists(raw, min_size=count, max_size=count)


@st.composite
def fields(draw: st.DrawFn, *, enterprises: bool) -> list[Sent]:
    count = draw(st.integers(1, 9))
    found = []
    for element in draw(st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, unique=True)):
        length = draw(st.sampled_from((1, 2, 3, 4, 5, 6, 7, 8, 12, 16)))
        raw = draw(octets(length, count))
        found.append(Sent((element, length), NUMBERS[element][0], raw))
    family, length = draw(st.sampled_from([(ADDRESSES, 4), (ADDRESSES6, 16)]))
    for element, column in family.items():
        # Addresses of 0 are those of no family, and what begins with 32 like this is no IPv4.
        raw = [b"\x20" + address[1:] for address in draw(octets(length, count))]
        found.append(Sent((element, length), column, raw))
    for element, column in MACS.items():
        found.append(Sent((element, 6), column, draw(octets(6, count))))
    for element, column in TEXTS.items():
        variable = enterprises and draw(st.booleans())
        size = draw(st.sampled_from((0, 1, 30, 254, 255, 300)))
        length = VARIABLE if variable else size
        text = st.text("abc.ä", max_size=size // 2).map(str.encode)
        raw = [draw(text) for _ in range(count)]
        if not variable:
            raw = [value.ljust(size, b"\0") for value in raw]
        found.append(Sent((element, length), column, raw))
    for element in range(1, draw(st.integers(1, 5))):
        length = draw(st.sampled_from((0, 1, 3, 255, *([VARIABLE] * enterprises))))
        sizes = [draw(st.integers(0, 300)) if length == VARIABLE else length for _ in range(count)]
        raw = [bytes([0xFF]) * size for size in sizes]
        spec = (UNKNOWN, element, length) if enterprises else (30000 + element, length)
        found.append(Sent(spec, "", raw))
    return draw(st.permutations(found))


def check(sent: list[Sent], split: int, padding: int, *, version: int) -> None:
    count = len(sent[0].octets)
    records = [b"".join(field.written(n) for field in sent) for n in range(count)]
    split = min(split, count)
    parts = [b"".join(records[:split]) + bytes(padding), b"".join(records[split:])]
    specs = [field.spec for field in sent]
    data = [set_of(256, part) for part in parts]
    if version == 9:
        datagram = netflow9(template9(256, specs), *data)
    else:
        datagram = ipfix(template10(256, specs), *data)
    decoder = Decoder(config.Decode(), [])
    found = rows(decoder, datagram)
    assert not decoder.stats.errors()
    assert len(found) == count
    for number, row in enumerate(found):
        columns = {field.column: field.told(number) for field in sent if field.column}
        assert {name: row.get(name, "") for name in columns} == columns


@settings(max_examples=40, deadline=None)
@given(fields(enterprises=False), st.integers(0, 9), st.integers(0, 3))
def test_records_of_netflow_9_come_out_as_written(
    sent: list[Sent], split: int, padding: int
) -> None:
    check(sent, split, padding, version=9)


@settings(max_examples=60, deadline=None)
@given(fields(enterprises=True), st.integers(0, 9), st.integers(0, 3))
def test_records_of_ipfix_come_out_as_written(sent: list[Sent], split: int, padding: int) -> None:
    check(sent, split, padding, version=10)


def test_of_256_directions_two_are_known() -> None:
    directions = values.directions(np.arange(256, dtype=np.uint8))

    assert directions.dtype == np.int8
    assert directions.tolist() == [Direction.INGRESS, Direction.EGRESS, *[Direction.UNKNOWN] * 254]
