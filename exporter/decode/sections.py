"""Records that carry the beginning of a packet (RFC 7133, PSAMP) instead of its fields."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.decode import values
from exporter.decode.elements import Reading
from exporter.decode.framing import WIRELESS
from exporter.decode.gather import Index, rows_at
from exporter.decode.layout import VARIABLE, Step
from exporter.decode.packet import ETHERNET, IPV4, IPV6, MPLS, PADDING, dissect
from exporter.decode.records import Records
from exporter.decode.tunnels import dissect_inner

#: IANA's dataLinkFrameType (RFC 7133, section 4.4); 0 is what devices send that know none.
_FRAME_TYPES: Final = {0: ETHERNET, 1: ETHERNET, 2: WIRELESS}


def packet_sections(
    step: Step, records: Records, frame_type: Array | None, octets: Array | None, *, inner: bool
) -> dict[str, Any]:
    """The columns that the headers in a field of packet octets give; ``inner`` as in a layout.

    ``frame_type`` tells by row what frames are, ``octets`` how many octets are not padding (0: not
    told), where the records do. ``packets`` is 1: a record stands for a packet. ``bytes`` is the
    length that an IP packet tells of itself, of others what was exported of them.
    """
    if step.length == VARIABLE:
        data = np.frombuffer(records.buffer, np.uint8)
        starts, ends = records.starts[step.place], records.ends[step.place]
    else:
        field = np.ascontiguousarray(records.windows[step.place][step.name])
        data = np.frombuffer(field.tobytes() + bytes(PADDING), np.uint8)
        starts = np.arange(len(field)) * step.length
        ends = starts + step.length
    if octets is not None:
        padded = (octets > 0) & (octets < (ends - starts).astype(np.uint64))
        ends = np.where(padded, starts + octets.astype(np.int64), ends)
    size = ends - starts
    if step.reading is Reading.LABELLED:
        first = np.full(len(starts), MPLS, np.uint16)
    elif step.reading is Reading.PACKET:
        version = data[starts] >> 4
        first = np.select([version == 4, version == 6], [IPV4, IPV6], 0).astype(np.uint16)
        size = np.maximum(size, _told_size(data, starts, size, first))
    elif frame_type is None:
        first = np.full(len(starts), ETHERNET, np.uint16)
    else:
        known = list(_FRAME_TYPES)
        first = np.select([frame_type == kind for kind in known], list(_FRAME_TYPES.values()), 0)
        first = first.astype(np.uint16)
    first[ends <= starts] = 0
    read = dissect_inner if inner else dissect
    columns: dict[str, Any] = read(data, starts, ends, first)
    etype = columns["etype"]
    etype[etype == ETHERNET] = 0  # cut before its type
    columns["bytes"] = size.astype(np.uint64)
    columns["packets"] = np.ones(len(starts), np.uint64)
    return columns


def _told_size(
    data: NDArray[np.uint8], starts: Index, size: Index, first: NDArray[np.uint16]
) -> Index:
    """The lengths that IP packets tell in their headers; 0 where these are cut off or none."""
    word = np.dtype(">u2")
    v4 = np.where((first == IPV4) & (size >= 4), rows_at(data, starts + 2, word), np.int64(0))
    payload = rows_at(data, starts + 4, word).astype(np.int64)
    return v4 + np.where((first == IPV6) & (size >= 6), payload + 40, 0)


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
