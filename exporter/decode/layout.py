"""Layouts: what a record looks like, shared by all templates that describe the same fields.

A :class:`Layout` is compiled once into :class:`Segment`\\ s, runs of fixed-length fields that are
read as one numpy structured array, and :class:`Step`\\ s, one per stored element. Records of the
same layout are decoded together whatever device they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from exporter.decode.elements import REVERSE, V9, V9_SCOPE, ElementTable, Fill, Reading

#: Field length that stands for "told in the record" (RFC 7011, section 7).
VARIABLE: Final = 65535
#: Shorter records hold no flow; not decoding them bounds the rows that a datagram can ask for.
MIN_RECORD: Final = 4


class Field(NamedTuple):
    """A field of a template; ``length`` in octets, :data:`VARIABLE` where the record tells it."""

    enterprise: int
    element: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """Read a field into a column. ``segment`` and ``name`` say where the field is.

    ``length`` is its octets, :data:`VARIABLE` where they vary (then ``segment`` is the number of
    the variable-length field instead).
    """

    column: str
    reading: Reading
    segment: int
    name: str
    length: int
    fill: Fill


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of fixed-length fields: its length, and the fields in it that are used."""

    size: int
    dtype: np.dtype[Any]


class Layout:
    """Fields in order and how to read them.

    A record is ``segments[0]``, variable field 0, ``segments[1]``, variable field 1, …; a layout
    without variable fields has one segment.
    """

    __slots__ = ("__weakref__", "columns", "fields", "forward", "min_size", "reverse", "segments")

    def __init__(self, fields: tuple[Field, ...], table: ElementTable) -> None:
        self.fields = fields
        self.segments: list[Segment] = []
        names: dict[int, dict[str, tuple[str, int]]] = {0: {}}
        ranked: list[tuple[int, bool, Step]] = []
        offset = 0
        sizes = []
        variable = 0
        for number, field in enumerate(fields):
            found, reverse = _lookup(table, field)
            if field.length == VARIABLE:
                if found is not None:
                    rank, element = found
                    if element.reading in _OCTETS:
                        step = Step(
                            element.column, element.reading, variable, "", VARIABLE, element.fill
                        )
                        ranked.append((rank, reverse, step))
                sizes.append(offset)
                offset = 0
                variable += 1
                names[variable] = {}
                continue
            if found is not None and field.length:
                rank, element = found
                read = _format(element.reading, field.length)
                if read is not None:
                    name = f"f{number}"
                    form, skip, length = read
                    names[variable][name] = (form, offset + skip)
                    step = Step(
                        element.column, element.reading, variable, name, length, element.fill
                    )
                    ranked.append((rank, reverse, step))
            offset += field.length
        sizes.append(offset)
        self.min_size = sum(sizes) + variable
        for index, size in enumerate(sizes):
            used = names[index]
            dtype = np.dtype(
                {
                    "names": list(used),
                    "formats": [form for form, _ in used.values()],
                    "offsets": [at for _, at in used.values()],
                    "itemsize": max(size, 1),
                }
            )
            self.segments.append(Segment(size, dtype))
        ranked.sort(key=lambda entry: entry[0])
        self.forward = _without_shadowed([s for _, reverse, s in ranked if not reverse])
        self.reverse = _without_shadowed([s for _, reverse, s in ranked if reverse])
        self.columns = frozenset(step.column for step in self.forward)

    @property
    def variable_fields(self) -> int:
        """How many fields have a length that each record tells."""
        return len(self.segments) - 1


#: Readings whose value may have any length at all.
_OCTETS: Final = frozenset({Reading.TEXT, Reading.APPLICATION, Reading.FRAME, Reading.PACKET})

#: Elements whose reverse (RFC 5103) would contradict the flow key, which is simply swapped.
_NO_REVERSE: Final = frozenset(
    {
        "src_addr", "dst_addr", "src_port", "dst_port", "proto", "etype", "ip_version",
        "nat_src_addr", "nat_dst_addr", "nat_src_port", "nat_dst_port", "in_if", "out_if",
        "reverse_bytes", "reverse_packets", "packet_section", "frame_size", "sampler",
        "system_init",
    }
)  # fmt: skip


def _lookup(table: ElementTable, field: Field) -> tuple[Any, bool]:
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
    return table.find(enterprise, number), False


def _format(reading: Reading, length: int) -> tuple[str, int, int] | None:
    """numpy format, octets to skip and octets to read; nothing for a length that makes no sense."""
    if reading in _OCTETS:
        return f"V{length}", 0, length
    if reading is Reading.ADDRESS:
        return {4: ("u4", 0, 4), 16: ("V16", 0, 16)}.get(length)
    if reading in (Reading.NTP_MICROSECONDS, Reading.NTP_NANOSECONDS) and length != 8:
        return None
    if reading is Reading.LABEL:
        # Three octets of label, class and stack bit; with a fourth, the time to live follows.
        return ("(3,)u1", 0, 3) if length in (3, 4) else None
    # Unsigned numbers: of more than eight octets the low ones count.
    skip = max(length - 8, 0)
    length = min(length, 8)
    return (f">u{length}" if length in (1, 2, 4, 8) else f"({length},)u1"), skip, length


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
