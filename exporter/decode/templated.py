"""NetFlow v9 and IPFIX: sets whose records look as templates told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import FlowBatch
from exporter.decode import accounting
from exporter.decode.binding import Binding
from exporter.decode.datagrams import Datagrams, Sets, is_data_set, is_template_set, walk_sets
from exporter.decode.flows import DataSets, decode_flows
from exporter.decode.grouping import ByStream
from exporter.decode.layout import MIN_RECORD, Layout
from exporter.decode.options import learn, option_records
from exporter.decode.records import TAIL, Offsets
from exporter.decode.state import Device, LimitError, State, Stream, WaitingSet
from exporter.decode.templates import (
    FIRST_TEMPLATE,
    Definition,
    TemplateError,
    ipfix_templates,
    netflow9_options_templates,
    netflow9_templates,
)
from exporter.schema import Source

_log = logging.getLogger(__name__)

#: Rows of one call: more than a batch of real datagrams can hold.
MAX_ROWS: Final = 4_000_000

#: Template sets remembered as parsed, and octets of one of them at most.
_PARSED_SETS: Final = 256
_PARSED_OCTETS: Final = 2_048

#: Counts an error: reason, device, datagram in the batch (below 0: none), octet in it.
Fault = Callable[[str, Device | None, int, int], None]


@dataclass(frozen=True, slots=True)
class Arrived:
    """Datagrams of one protocol in ``buffer``.

    ``stream`` points into ``streams``, per datagram, which ``groups`` has sorted by it.
    """

    buffer: memoryview
    datagrams: Datagrams
    stream: NDArray[np.intp]
    streams: list[Stream]
    groups: ByStream

    def take(self, rows: NDArray[Any]) -> Arrived:
        """The datagrams that an index or a mask selects."""
        stream = self.stream[rows]
        return replace(
            self, datagrams=self.datagrams.take(rows), stream=stream,
            groups=ByStream.group(stream),
        )  # fmt: skip


class TemplatedDecoder:
    """Decodes sets by templates, which it learns on the way."""

    def __init__(self, state: State, fault: Fault) -> None:
        self._state = state
        self._fault = fault
        self._parsed: dict[tuple[Source, int, bytes], tuple[Definition, ...]] = {}

    def decode(self, arrived: Arrived) -> list[FlowBatch]:
        """The flows of datagrams, all of NetFlow v9 or all of IPFIX."""
        datagrams = arrived.datagrams
        source = datagrams.source
        end = datagrams.end
        if source is Source.IPFIX:
            end = self._message_ends(arrived)
        else:
            for owner in accounting.restarted(datagrams, arrived.groups, arrived.streams):
                self._state.withdraw_all(owner)
        sets = walk_sets(arrived.buffer, datagrams.body, end)
        for row, at in sets.malformed:
            self._fault_at("malformed_set", arrived, row, at)
        data = is_data_set(sets.number)
        binding = Binding(sets, arrived.stream)
        if not data.all():
            self._define(arrived, sets, binding)
        binding.bind_rest(data, arrived.streams)
        # Records per datagram, and whether all were: IPFIX counts them in its sequence numbers.
        steps = np.zeros(len(datagrams), np.int64)
        complete = np.ones(len(datagrams), np.bool_)
        table = _data_sets(arrived, sets)
        for template, rows in binding.groups():
            if template is None:
                complete[table.datagram[rows]] = False
                self._let_wait(table.take(rows))
            else:
                self._learn(template.layout, table.take(rows), steps)
        if source is Source.IPFIX:
            # Only now options have told when devices started.
            table = replace(table, uptime=_uptimes(arrived)[sets.datagram])
        flows = self._decode_waiting(binding)
        flows.extend(self._decode_bound(arrived, binding, table, steps, complete))
        if source is Source.NETFLOW9:
            steps[:], complete[:] = 1, True
        accounting.check_sequences(datagrams, arrived.groups, arrived.streams, steps, complete)
        return flows

    def _decode_bound(
        self, arrived: Arrived, binding: Binding, table: DataSets, steps: Offsets,
        complete: NDArray[np.bool_],
    ) -> list[FlowBatch]:  # fmt: skip
        """The flows of all sets whose template is known, layout by layout."""
        flows: list[FlowBatch] = []
        budget = MAX_ROWS
        for layout, rows in binding.layouts():
            sets = table if len(rows) == len(table) else table.take(rows)
            most = int(sets.length.sum()) // layout.min_size
            reason = ""
            if layout.min_size < MIN_RECORD:
                reason = "record_too_short"
            elif most > budget:
                reason = "too_many_records"
            else:
                budget -= most
                try:
                    decoded = decode_flows(layout, sets)
                except Exception:
                    # A fault of ours: other layouts must not suffer from it.
                    _log.exception("decoding records of %s failed", layout.fields)
                    reason = "internal"
            if reason:
                complete[sets.datagram] = False
                for row, at in zip(sets.datagram.tolist(), sets.start.tolist(), strict=True):
                    self._fault_at(reason, arrived, row, at)
                continue
            np.add.at(steps, sets.datagram, decoded.records)
            for number in decoded.malformed:
                row, at = int(sets.datagram[number]), int(sets.start[number])
                complete[row] = False
                self._fault_at("malformed_record", arrived, row, at)
            flows.extend(decoded.batches)
        return flows

    def _message_ends(self, arrived: Arrived) -> Offsets:
        """Ends by the length that IPFIX messages tell; octets after it are no part of them."""
        datagrams = arrived.datagrams
        told = datagrams.start + datagrams.header["length"]
        wrong = (told > datagrams.end) | (told < datagrams.body)
        for row in np.flatnonzero(wrong).tolist():
            self._fault_at("wrong_length", arrived, row, int(datagrams.start[row]) + 2)
        ends: Offsets = np.minimum(told, datagrams.end)
        return ends

    def _define(self, arrived: Arrived, sets: Sets, binding: Binding) -> None:
        """Put the templates of template sets in force, in the order of their reception."""
        datagrams = arrived.datagrams
        source = datagrams.source
        numbers = np.flatnonzero(~is_data_set(sets.number))
        for number in numbers[np.argsort(sets.start[numbers])].tolist():
            row, at = int(sets.datagram[number]), int(sets.start[number])
            kind = int(sets.number[number])
            if not is_template_set(source, kind):
                self._fault_at("reserved_set", arrived, row, at)
                continue
            body = bytes(arrived.buffer[at : at + int(sets.length[number])])
            now = int(datagrams.received[row])
            try:
                for definition in self._definitions(source, kind, body):
                    try:
                        self._apply(arrived, int(arrived.stream[row]), definition, now, binding, at)
                    except LimitError as limit:
                        self._fault_at(str(limit), arrived, row, at)
            except TemplateError as error:
                self._fault_at(str(error), arrived, row, at)

    def _definitions(self, source: Source, kind: int, body: bytes) -> Iterator[Definition]:
        """Templates in a template set.

        Devices repeat these octet by octet, some of them after every 20 datagrams: what was
        parsed not long ago is not parsed again.

        Raises:
            TemplateError: after what could be parsed.
        """
        key = (source, kind, body)
        known = self._parsed.get(key)
        if known is not None:
            yield from known
            return
        found = []
        for definition in _definitions(source, kind, body):
            found.append(definition)
            yield definition
        if len(body) <= _PARSED_OCTETS:
            if len(self._parsed) >= _PARSED_SETS:
                self._parsed.clear()
            self._parsed[key] = tuple(found)

    def _apply(
        self, arrived: Arrived, owner: int, definition: Definition, now: int, binding: Binding,
        at: int,
    ) -> None:  # fmt: skip
        """One template or withdrawal, told at ``at``: data before that keeps what was in force.

        Raises:
            LimitError: as :meth:`State.define`.
        """
        stream = arrived.streams[owner]
        if not definition.fields and stream.source is Source.IPFIX:
            if definition.id < FIRST_TEMPLATE:
                binding.bind_before(stream, owner, None, at)
                self._state.withdraw_all(stream, options=definition.id == 3)
            else:
                binding.bind_before(stream, owner, definition.id, at)
                self._state.withdraw(stream, definition.id)
            return
        known = stream.templates.get(definition.id)
        if known is not None and known.layout.fields != definition.fields:
            binding.bind_before(stream, owner, definition.id, at)
        template = self._state.define(stream, definition, now)
        waiting = self._state.take_waiting(stream, definition.id)
        if waiting:
            binding.woken.append((stream, template, waiting))

    def _learn(self, layout: Layout, sets: DataSets, steps: Offsets | None) -> None:
        """Options records: counted, and kept what they tell."""
        for number in range(len(sets)):
            at = int(sets.start[number])
            stream = sets.streams[sets.stream[number]]
            count = 0
            body = bytes(sets.buffer[at : at + int(sets.length[number])])
            for record in option_records(layout, body):
                learn(self._state, stream, record)
                count += 1
            stream.options += count
            if steps is not None:
                steps[sets.datagram[number]] += count

    def _let_wait(self, sets: DataSets) -> None:
        for number in range(len(sets)):
            at = int(sets.start[number])
            self._state.wait(
                sets.streams[sets.stream[number]],
                int(sets.number[number]),
                WaitingSet(
                    bytes(sets.buffer[at : at + int(sets.length[number])]),
                    int(sets.received[number]),
                    int(sets.exported[number]),
                    int(sets.uptime[number]),
                ),
            )

    def _decode_waiting(self, binding: Binding) -> list[FlowBatch]:
        """Flows of sets that waited for a template that came now."""
        flows: list[FlowBatch] = []
        for stream, template, waiting in binding.woken:
            sets = _waiting_sets(stream, template.id, waiting)
            if template.options:
                self._learn(template.layout, sets, None)
                continue
            if template.layout.min_size < MIN_RECORD:
                self._fault("record_too_short", stream.device, -1, 0)
                continue
            decoded = decode_flows(template.layout, sets)
            for _ in decoded.malformed:
                self._fault("malformed_record", stream.device, -1, 0)
            flows.extend(decoded.batches)
        return flows

    def _fault_at(self, reason: str, arrived: Arrived, row: int, at: int) -> None:
        """An error at octet ``at`` of the buffer, in the datagram of a row."""
        datagrams = arrived.datagrams
        octet = max(at - int(datagrams.start[row]), 0)
        device = arrived.streams[arrived.stream[row]].device
        self._fault(reason, device, int(datagrams.index[row]), octet)


def _data_sets(arrived: Arrived, sets: Sets) -> DataSets:
    """All sets, with what their datagrams tell."""
    datagrams, of = arrived.datagrams, sets.datagram
    return DataSets(
        arrived.buffer, arrived.streams, sets.number, sets.start, sets.length,
        arrived.stream[of], of, datagrams.received[of], datagrams.exported[of],
        datagrams.uptime[of],
    )  # fmt: skip


def _uptimes(arrived: Arrived) -> Offsets:
    """The device's uptime at the export of IPFIX, if options told when it started."""
    started = np.array([s.device.system_init for s in arrived.streams], np.int64)[arrived.stream]
    return np.where(started > 0, (arrived.datagrams.exported - started) & 0xFFFFFFFF, -1)


def _definitions(source: Source, number: int, body: bytes) -> Iterable[Definition]:
    if source is Source.NETFLOW9:
        return netflow9_options_templates(body) if number else netflow9_templates(body)
    return ipfix_templates(body, options=number == 3)


def _waiting_sets(stream: Stream, number: int, waiting: Sequence[WaitingSet]) -> DataSets:
    length = np.array([len(w.body) for w in waiting], np.int64)
    count = len(waiting)

    def column(values: Iterable[Any]) -> Offsets:
        return np.fromiter(values, np.int64, count)

    return DataSets(
        b"".join([*(w.body for w in waiting), bytes(TAIL)]), [stream],
        np.full(count, number), np.cumsum(length) - length, length, np.zeros(count, np.intp),
        np.full(count, -1), column(w.received for w in waiting),
        column(w.exported for w in waiting), column(w.uptime for w in waiting),
    )  # fmt: skip
