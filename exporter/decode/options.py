"""Options records: what devices tell about themselves (sampling, names, their start)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from exporter.decode.devices import Stream
from exporter.decode.elements import V9, V9_SCOPE
from exporter.decode.layout import VARIABLE, Layout
from exporter.decode.sampling import MAX_SAMPLER, Scope
from exporter.decode.state import State
from exporter.decode.values import LAST_TIME, clean_text, floating_point

Record = dict[tuple[int, int], bytes]

_SCOPE_INTERFACE: Final = 2
_SCOPE_TEMPLATE: Final = 5

#: Elements by number (IANA), as they appear in options.
_INTERFACES: Final = (10, 14)
_VRFS: Final = (234, 235)
_TEMPLATE: Final = 145


class Told(NamedTuple):
    """What an options record tells: ``None``, 0 or empty where it does not."""

    rate: int
    scope: Scope
    interface: int | None
    interface_name: str
    vrf: int | None
    vrf_name: str
    application: bytes | None
    application_name: str
    system_init: int


def option_records(layout: Layout, body: bytes) -> Iterator[Record]:
    """The records of a data set as octets by (enterprise, element); v9 fields as IANA's.

    Scopes of NetFlow v9 are under :data:`V9_SCOPE`. Of an element that is there twice the last
    one counts.
    """
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
            if length:
                record[0 if enterprise == V9 else enterprise, element] = value
        yield record


def told(record: Record) -> Told:
    """What of a record is of use to us."""
    interface = _scoped(record, _SCOPE_INTERFACE, *_INTERFACES)
    sampler = _number(record, 48, 302)
    started = _number(record, 160) or 0
    return Told(
        _rate(record),
        Scope(
            None if sampler is None else min(sampler, MAX_SAMPLER),
            interface,
            _scoped(record, _SCOPE_TEMPLATE, _TEMPLATE),
        ),
        interface,
        _text(record, 82) or _text(record, 83),
        _number(record, *_VRFS),
        _text(record, 236),
        record.get((0, 95)),
        _text(record, 96),
        started if started <= LAST_TIME else 0,
    )


def differs(stream: Stream, told: Told) -> bool:
    """Whether something is told otherwise than it was before."""
    device = stream.device
    return any(
        before and now and before != now
        for before, now in (
            (stream.sampling.known(told.scope), told.rate),
            (device.system_init, told.system_init),
            (device.interfaces.get(told.interface or 0), told.interface_name),
            (device.vrfs.get(told.vrf or 0), told.vrf_name),
            (device.applications.get(told.application or b""), told.application_name),
        )
    )


def learn(state: State, stream: Stream, told: Told) -> None:
    """Keep what an options record tells."""
    device = stream.device
    if told.rate:
        stream.learn_rate(told.rate, told.scope)
    if told.system_init:
        device.system_init = told.system_init
    if told.interface is not None:
        state.learn_name(device, device.interfaces, told.interface, told.interface_name)
    if told.vrf is not None:
        state.learn_name(device, device.vrfs, told.vrf, told.vrf_name)
    if told.application is not None:
        state.learn_name(device, device.applications, told.application, told.application_name)


def _rate(record: Record) -> int:
    """1 in how many packets, 0 where the record does not tell."""
    selected, skipped = _number(record, 305), _number(record, 306)
    if selected and skipped is not None:
        return (selected + skipped) // selected
    size, population = _number(record, 309), _number(record, 310)
    if size and population:
        return population // size
    chance = floating_point(record.get((0, 311), b""))
    if chance is not None and 0 < chance <= 1:
        return int(1 / chance + 0.5)
    # Flows instead of packets. ipt_NETFLOW, which tells it, calls N the spacing of 1 in N.
    flows, spacing = _number(record, 396), _number(record, 397)
    if flows and spacing:
        return spacing // flows
    # 305 without 306 is what devices send that mean 1 in that many, and 1 beside other elements.
    return _number(record, 34) or _number(record, 50) or selected or 0


def _scoped(record: Record, scope: int, *elements: int) -> int | None:
    """A number that elements tell, or a scope of NetFlow v9."""
    number = _number(record, *elements)
    told = record.get((V9_SCOPE, scope))
    return int.from_bytes(told, "big") if number is None and told is not None else number


def _number(record: Record, *elements: int) -> int | None:
    """The first of the elements that the record has, as a number."""
    for element in elements:
        value = record.get((0, element))
        if value is not None:
            return int.from_bytes(value, "big")
    return None


def _text(record: Record, element: int) -> str:
    return clean_text(record.get((0, element), b""))[:256]
