"""Records that carry the beginning of a packet (RFC 7133, PSAMP) instead of its fields."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.decode import values
from exporter.decode.elements import Reading
from exporter.decode.layout import VARIABLE, Step
from exporter.decode.packet import ETHERNET, IPV4, IPV6, PADDING, dissect
from exporter.decode.records import Records
from exporter.decode.tunnels import dissect_inner


def packet_sections(step: Step, records: Records, *, inner: bool) -> dict[str, Any]:
    """The columns that the headers in a field of packet octets give; ``inner`` as in a layout.

    ``bytes`` is what was exported of the packet, ``packets`` 1: a record stands for a packet.
    """
    if step.length == VARIABLE:
        data = np.frombuffer(records.buffer, np.uint8)
        starts, ends = records.starts[step.segment], records.ends[step.segment]
    else:
        field = np.ascontiguousarray(records.segments[step.segment][step.name])
        data = np.frombuffer(field.tobytes() + bytes(PADDING), np.uint8)
        starts = np.arange(len(field)) * step.length
        ends = starts + step.length
    if step.reading is Reading.FRAME:
        first = np.full(len(starts), ETHERNET, np.uint16)
    else:
        version = data[starts] >> 4
        first = np.select([version == 4, version == 6], [IPV4, IPV6], 0).astype(np.uint16)
    first[ends <= starts] = 0
    read = dissect_inner if inner else dissect
    columns: dict[str, Any] = read(data, starts, ends, first)
    etype = columns["etype"]
    etype[etype == ETHERNET] = 0  # cut before its type
    columns["bytes"] = (ends - starts).astype(np.uint64)
    columns["packets"] = np.ones(len(starts), np.uint64)
    return columns


def merge_section(columns: dict[str, Any]) -> None:
    """Use what the headers tell where the record itself does not."""
    section = columns.pop("packet_section", None)
    size = columns.pop("frame_size", None)
    if section is None:
        return
    if size is not None:
        section["bytes"] = values.fill(size, section["bytes"])
    for name, column in section.items():
        known = columns.get(name)
        columns[name] = column if known is None else values.fill(known, column)
