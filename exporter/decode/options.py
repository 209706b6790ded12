"""Options records: what devices tell about themselves (sampling, names, their start)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Final

from exporter.decode.elements import V9, V9_SCOPE
from exporter.decode.layout import VARIABLE, Layout
from exporter.decode.sampling import MAX_SAMPLER
from exporter.decode.state import State, Stream
from exporter.decode.values import LAST_TIME, clean_text

Record = dict[tuple[int, int], bytes]

_SCOPE_INTERFACE: Final = 2
_DOUBLE: Final = struct.Struct(">d")

#: Elements by number (IANA), as they appear in options.
_INTERFACES: Final = (10, 14)
_VRFS: Final = (234, 235)


def option_records(layout: Layout, body: bytes) -> Iterator[Record]:
    """The records of a data set as octets by (enterprise, element); v9 fields as IANA's."""
    at, end = 0, len(body)
    while end - at >= layout.min_size:
        record: Record = {}
        for enterprise, element, length in layout.fields:
            if length == VARIABLE:
                if at >= end:
                    return
                length = body[at]
                at += 1
                if length == 255:
                    length = int.from_bytes(body[at : at + 2], "big")
                    at += 2
            value = body[at : at + length]
            at += length
            if at > end:
                return
            if enterprise == V9_SCOPE:
                if element == _SCOPE_INTERFACE and length:
                    record[0, _INTERFACES[0]] = value
            elif length:
                record[0 if enterprise == V9 else enterprise, element] = value
        yield record


def learn(state: State, stream: Stream, record: Record) -> None:
    """Keep what an options record tells."""
    rate = _rate(record)
    if rate:
        sampler = _number(record, 48, 302)
        stream.sampling.learn(
            rate,
            sampler=None if sampler is None else min(sampler, MAX_SAMPLER),
            interface=_number(record, *_INTERFACES),
        )
    started = _number(record, 160)
    if started and started <= LAST_TIME:
        stream.device.system_init = started
    device = stream.device
    interface = _number(record, *_INTERFACES)
    if interface is not None:
        name = _text(record, 82) or _text(record, 83)
        state.learn_name(device, device.interfaces, interface, name)
    vrf = _number(record, *_VRFS)
    if vrf is not None:
        state.learn_name(device, device.vrfs, vrf, _text(record, 236))
    application = record.get((0, 95))
    if application is not None:
        state.learn_name(device, device.applications, application, _text(record, 96))


def _rate(record: Record) -> int:
    """1 in how many packets, 0 where the record does not tell."""
    selected, skipped = _number(record, 305), _number(record, 306)
    if selected and skipped is not None:
        return (selected + skipped) // selected
    size, population = _number(record, 309), _number(record, 310)
    if size and population:
        return population // size
    probability = record.get((0, 311), b"")
    if len(probability) == 8:
        chance: float = _DOUBLE.unpack(probability)[0]
        if math.isfinite(chance) and 0 < chance <= 1:
            return int(1 / chance + 0.5)
    # 305 without 306 is what devices send that mean 1 in that many, and 1 beside other elements.
    return _number(record, 34, 50) or selected or 0


def _number(record: Record, *elements: int) -> int | None:
    """The first of the elements that the record has, as a number."""
    for element in elements:
        value = record.get((0, element))
        if value is not None:
            return int.from_bytes(value, "big")
    return None


def _text(record: Record, element: int) -> str:
    return clean_text(record.get((0, element), b""))[:256]
