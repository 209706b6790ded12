"""Layouts: what a record looks like, shared by all templates that describe the same fields.

A :class:`Layout` is compiled once: fixed-length fields are read as parts of numpy structured
arrays, and a :class:`Step` says how each stored element becomes a column. Records of the same
layout are decoded together whatever device they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from exporter.batch import DTYPES
from exporter.decode.elements import (
    CERT,
    REVERSE,
    SECTION_READINGS,
    V9,
    V9_SCOPE,
    Element,
    ElementTable,
    Fill,
    Reading,
)
from exporter.decode.values import TEXT_READINGS
from exporter.schema import BY_NAME

#: Field length that stands for "told in the record" (RFC 7011, section 7).
VARIABLE: Final = 65535
#: Shorter records hold no flow; not decoding them bounds the rows that a datagram can ask for.
MIN_RECORD: Final = 4


#: Octets that numpy copies at once, and from how many fields on copying them together pays.
_WIDTHS: Final = (4, 8, 16)
_WIDEST: Final = _WIDTHS[-1]
_WORTH_COPYING: Final = 3


class Field(NamedTuple):
    """A field of a template; ``length`` in octets, :data:`VARIABLE` where the record tells it."""

    enterprise: int
    element: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """Read a field into a column.

    ``place`` and ``name`` say where the field is, ``length`` is its octets. ``place`` is the number
    of a window of the layout; for :data:`VARIABLE`, that of the variable-length field. ``dtype`` is
    that of the column's numbers.
    """

    column: str
    reading: Reading
    place: int
    name: str
    length: int
    fill: Fill
    dtype: np.dtype[Any]


class Window(NamedTuple):
    """Octets of a segment from ``start`` on: the fields that ``dtype`` names.

    They are copied from all records before they are read: a field alone, or several in few octets,
    so that reading one after the other stays in the cache.
    """

    segment: int
    start: int
    dtype: np.dtype[Any]


class Layout:
    """Fields in order and how to read them.

    A record is segment 0, variable field 0, segment 1, variable field 1, …; a layout without
    variable fields has one segment. Segments are runs of fixed-length fields, ``sizes`` their
    octets; those in use are read by ``windows``.
    ``forward`` are the steps that fill columns, in order; ``reverse`` those for the other direction
    (RFC 5103). ``ipv4`` tells that sources and destinations can only be IPv4, ``inner_packets``
    that of packets in tunnels the inner ones are meant.
    """

    __slots__ = (
        "__weakref__", "fields", "forward", "inner_packets", "ipv4", "min_size", "reverse",
        "sizes", "windows",
    )  # fmt: skip

    def __init__(self, fields: tuple[Field, ...], table: ElementTable) -> None:
        self.fields = fields
        self.inner_packets = table.inner_packets
        self.sizes = [0]
        used: list[dict[str, tuple[str, int]]] = [{}]
        ranked: list[tuple[tuple[int, bool], bool, Step]] = []
        inner = _inner_fields(fields)
        lonely = _lonely_responders(fields)
        for number, field in enumerate(fields):
            found, reverse = _lookup(table, field)
            if number in lonely and found is not None and found[1].column in _RESPONDER:
                found = None
            segment, name, length = len(self.sizes) - 1, f"f{number}", field.length
            readable = False
            if found is not None and length == VARIABLE:
                readable = found[1].reading in _OCTETS
            elif found is not None and length:
                form = _format(found[1].reading, length)
                if form is not None:
                    readable = True
                    used[segment][name] = (form[0], self.sizes[segment] + form[1])
            if found is not None and readable:
                rank, element = found
                step = _step(element, segment, name, length)
                ranked.append(((rank, number not in inner), reverse, step))
            if length == VARIABLE:
                self.sizes.append(0)
                used.append({})
            else:
                self.sizes[segment] += length
        self.min_size = sum(self.sizes) + self.variable_fields
        self.windows = [
            window
            for number, (size, named) in enumerate(zip(self.sizes, used, strict=True))
            for window in _windows(number, size, named)
        ]
        place = {
            name: number
            for number, window in enumerate(self.windows)
            for name in window.dtype.names or ()
        }
        ranked = [(r, back, replace(s, place=place.get(s.name, s.place))) for r, back, s in ranked]
        ranked.sort(key=lambda entry: entry[0])
        self.forward = _without_shadowed([s for _, reverse, s in ranked if not reverse])
        self.reverse = _without_shadowed([s for _, reverse, s in ranked if reverse])
        self.ipv4 = _only_ipv4(self.forward)

    @property
    def variable_fields(self) -> int:
        """How many fields have a length that each record tells."""
        return len(self.sizes) - 1


#: From here on elements of CERT are the reverse of those before.
_CERT_REVERSE: Final = 1 << 14

_SOURCE_IPV4: Final = 8
_SOURCE_IPV6: Final = 27

#: Octets and packets of the responder, and those of the initiator.
_INITIATORS: Final = {232: 231, 299: 298}
_RESPONDER: Final = ("reverse_bytes", "reverse_packets")

#: What tells the family of a flow.
_ADDRESSES: Final = ("src_addr", "dst_addr", "station_addr", "inner_src_addr", "inner_dst_addr")

#: Readings whose value may have any length at all.
_OCTETS: Final = frozenset({*TEXT_READINGS, *SECTION_READINGS})

#: Elements whose reverse (RFC 5103) would contradict the flow key, which is simply swapped.
_NO_REVERSE: Final = frozenset(
    {
        "src_addr", "dst_addr", "src_port", "dst_port", "proto", "etype", "ip_version",
        "nat_src_addr", "nat_dst_addr", "nat_src_port", "nat_dst_port", "in_if", "out_if",
        "reverse_bytes", "reverse_packets", "packet_section", "frame_size", "frame_type",
        "section_octets", "sampler", "system_init", "firewall_event", "flow_id", "inner_src_addr",
        "inner_dst_addr", "inner_proto", "inner_src_port", "inner_dst_port", "incoming_bytes",
        "incoming_packets", "outgoing_bytes", "outgoing_packets", "behavior",
        "station_addr", "station_mac",
    }
)  # fmt: skip


def _step(element: Element, place: int, name: str, length: int) -> Step:
    known = BY_NAME.get(element.column)
    dtype = np.dtype(np.uint64) if known is None else DTYPES.get(known.kind, np.dtype(np.uint32))
    return Step(element.column, element.reading, place, name, length, element.fill, dtype)


def _dtype(size: int, used: dict[str, tuple[str, int]]) -> np.dtype[Any]:
    """The structured type of a window, with the formats and offsets of its fields."""
    return np.dtype(
        {
            "names": list(used),
            "formats": [form for form, _ in used.values()],
            "offsets": [at for _, at in used.values()],
            "itemsize": size,
        }
    )


def _windows(segment: int, size: int, used: dict[str, tuple[str, int]]) -> list[Window]:
    """Windows of a segment of ``size`` octets that show each of the fields in use."""
    fields = sorted(
        (at, at + np.dtype(form).itemsize, form, name) for name, (form, at) in used.items()
    )
    windows = []
    while fields:
        first = fields[0][0]
        inside = [field for field in fields if field[1] <= first + _WIDEST]
        width = next((w for w in _WIDTHS if inside and w >= inside[-1][1] - first), size)
        if len(inside) < _WORTH_COPYING or width >= size:
            inside = fields[:1]
            width = inside[0][1] - first
        fields = fields[len(inside) :]
        start = min(first, size - width)
        shown = {name: (form, at - start) for at, _, form, name in inside}
        windows.append(Window(segment, start, _dtype(width, shown)))
    return windows


def _lookup(table: ElementTable, field: Field) -> tuple[tuple[int, Element] | None, bool]:
    """Rank and row of a field's element, and whether it tells of the other direction."""
    enterprise, number, _ = field
    if enterprise == V9_SCOPE:
        return None, False
    if enterprise == V9:
        return table.find(V9, number) or table.find(0, number), False
    if enterprise == REVERSE:
        found = table.find(0, number)
        if found is None or found[1].column in _NO_REVERSE:
            return None, False
        return found, True
    if enterprise == CERT and number >= _CERT_REVERSE:
        return table.find(CERT, number - _CERT_REVERSE), True
    return table.find(enterprise, number), False


def _format(reading: Reading, length: int) -> tuple[str, int] | None:
    """numpy format and octets to skip; nothing for a length that makes no sense."""
    if reading in _OCTETS:
        return f"V{length}", 0
    if reading is Reading.ADDRESS:
        return {4: ("u4", 0), 16: ("V16", 0)}.get(length)
    if reading in (Reading.NTP_MICROSECONDS, Reading.NTP_NANOSECONDS):
        return {8: (">u8", 0), 16: ("(2,)>u8", 0)}.get(length)
    if reading is Reading.JUNIPER_PROPERTIES and length != 2:
        return None
    if reading is Reading.LABEL:
        # Three octets of label, class and stack bit; with a fourth, the time to live follows.
        return ("(3,)u1", 0) if length in (3, 4) else None
    # Unsigned numbers: of more than eight octets the low ones count.
    skip = max(length - 8, 0)
    length = min(length, 8)
    return (f">u{length}" if length in (1, 2, 4, 8) else f"({length},)u1"), skip


def _inner_fields(fields: tuple[Field, ...]) -> range:
    """Fields that go before others of the same element: those of the packet inside of a tunnel.

    Some devices tell of a packet in a tunnel twice, from the outside in (RFC 7011, section 8):
    addresses and protocol of the tunnel, then those inside. Where the outer addresses are IPv6 and
    the inner ones IPv4, these fill the columns first anyway, and protocol and ports must be of the
    same header. IPv6 addresses after IPv4 ones are no packet inside: records of these templates
    have addresses of one family, and zeros.
    """
    sources = [
        (number, field.element)
        for number, field in enumerate(fields)
        if field.enterprise in (0, V9) and field.element in (_SOURCE_IPV4, _SOURCE_IPV6)
    ]
    if len(sources) < 2 or [element for _, element in sources] == [_SOURCE_IPV4, _SOURCE_IPV6]:
        return range(0)
    return range(sources[-1][0], len(fields))


def _lonely_responders(fields: tuple[Field, ...]) -> set[int]:
    """Fields of responders without what the initiator sent, which is none of such a connection.

    Huawei's NetStream has a number of its own, of two octets, as element 232 of NetFlow v9.
    """
    told = {field.element for field in fields if field.enterprise in (0, V9)}
    return {
        number
        for number, field in enumerate(fields)
        if field.enterprise in (0, V9) and _INITIATORS.get(field.element, field.element) not in told
    }


def _only_ipv4(steps: list[Step]) -> bool:
    """Whether source and destination, as far as there are any, can be nothing but IPv4."""
    told = [step.length for step in steps if step.column in _ADDRESSES]
    sections = any(step.reading in SECTION_READINGS for step in steps)
    return bool(told) and set(told) == {4} and not sections


def _without_shadowed(steps: list[Step]) -> list[Step]:
    """Drop steps that may fill a column only where no earlier element does, and one does."""
    filled: set[str] = set()
    kept = []
    for step in steps:
        if step.fill is Fill.ABSENT and step.column in filled:
            continue
        filled.add(step.column)
        kept.append(step)
    return kept
