"""NetFlow v9 and IPFIX: sets whose records look as templates told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import FlowBatch
from exporter.decode import accounting
from exporter.decode.binding import Binding
from exporter.decode.bound import Arrived, Bound, data_sets, uptimes, waiting_sets
from exporter.decode.datagrams import Sets, is_data_set, is_template_set, walk_sets
from exporter.decode.devices import Device, Stream, WaitingSet
from exporter.decode.flows import DataSets, decode_flows
from exporter.decode.layout import MIN_RECORD
from exporter.decode.options import Record, Told, differs, learn, option_records, told
from exporter.decode.records import Offsets
from exporter.decode.state import LimitError, State
from exporter.decode.templates import (
    FIRST_TEMPLATE,
    Definition,
    Template,
    TemplateError,
    ipfix_templates,
    netflow9_options_templates,
    netflow9_templates,
)
from exporter.logs import RareLog
from exporter.schema import Source

_log = logging.getLogger(__name__)

#: Template sets remembered as parsed, and octets of one of them at most.
_PARSED_SETS: Final = 256
_PARSED_OCTETS: Final = 2_048

#: How often in a batch flows are decoded before options tell something otherwise than before.
MAX_CUTS: Final = 64

#: Hears of an options record: stream, template, time of reception in milliseconds, fields.
OnOptions = Callable[[Stream, int, int, Record], None]

#: Counts an error: reason, device, datagram in the batch (below 0: none), octet in it.
Fault = Callable[[str, Device | None, int, int], None]


class TemplatedDecoder:
    """Decodes sets by templates, which it learns on the way."""

    def __init__(self, state: State, fault: Fault, on_options: OnOptions | None = None) -> None:
        self._state = state
        self._fault = fault
        self._on_options = on_options
        self._parsed: dict[tuple[Source, int, bytes], tuple[Definition, ...]] = {}
        self._log = RareLog(_log)

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
                owner.forget_connections()
        sets = walk_sets(arrived.buffer, datagrams, end)
        for row, at in sets.malformed:
            self._fault_at("malformed_set", arrived, row, at)
        if source is Source.IPFIX:
            for number in np.flatnonzero(sets.start + sets.length > sets.spread(end)).tolist():
                row = int(sets.datagram[number])
                self._fault_at("wrong_length", arrived, row, int(datagrams.start[row]) + 2)
        data = is_data_set(sets.number)
        binding = Binding(sets, arrived.stream)
        if not data.all():
            self._define(arrived, sets, binding)
        binding.bind_rest(data, arrived.streams)
        # Records per datagram, and whether all were: IPFIX counts them in its sequence numbers.
        steps = np.zeros(len(datagrams), np.int64)
        complete = np.ones(len(datagrams), np.bool_)
        bound = Bound(arrived, binding, data_sets(arrived, sets), steps, complete)
        options: list[tuple[int, int, Template]] = []
        for template, rows in binding.groups():
            if template is None:
                complete[sets.datagram[rows]] = False
                self._let_wait(bound.table.take(rows))
            else:
                options.extend((int(sets.start[row]), int(row), template) for row in rows)
        flows = self._learn_in_order(bound, sorted(options, key=itemgetter(0)))
        flows.extend(self._decode_waiting(binding))
        flows.extend(self._decode_bound(bound))
        if source is Source.NETFLOW9:
            steps[:], complete[:] = 1, True
        accounting.check_sequences(datagrams, arrived.groups, arrived.streams, steps, complete)
        return flows

    def _learn_in_order(
        self, bound: Bound, options: Sequence[tuple[int, int, Template]]
    ) -> list[FlowBatch]:
        """Keep what options sets tell, given as (start, row, template) in their order.

        Flows between what was told before and what is told otherwise now are decoded in between,
        and given back. All others are decoded when everything was told.
        """
        table = bound.table
        flows: list[FlowBatch] = []
        cuts = 0
        for start, row, template in options:
            stream = table.streams[table.stream[row]]
            received, count = int(table.received[row]), 0
            body = bytes(table.buffer[start : start + int(table.length[row])])
            for record in option_records(template.layout, body):
                now = told(record)
                if cuts < MAX_CUTS and differs(stream, now):
                    flows.extend(self._decode_bound(bound, before=start))
                    cuts += 1
                self._keep(stream, template, received, record, now)
                count += 1
            stream.options += count
            bound.steps[table.datagram[row]] += count
        return flows

    def _keep(
        self, stream: Stream, template: Template, received: int, record: Record, now: Told
    ) -> None:
        learn(self._state, stream, now)
        if self._on_options is not None:
            self._on_options(stream, template.id, received, record)

    def _decode_bound(self, bound: Bound, before: int | None = None) -> list[FlowBatch]:
        """The flows of sets whose template is known, layout by layout.

        With ``before`` only those of sets before that octet; later calls go on from there.
        """
        arrived, binding, table = bound.arrived, bound.binding, bound.table
        if arrived.datagrams.source is Source.IPFIX:
            # Options have told when devices started.
            table = replace(table, uptime=uptimes(arrived)[table.datagram])
        chosen: NDArray[np.bool_] | None = None
        if before is not None or bound.decoded:
            chosen = table.start >= bound.decoded
            if before is not None:
                chosen &= table.start < before
                bound.decoded = before
        flows: list[FlowBatch] = []
        for layout, rows in binding.layouts():
            if chosen is not None:
                rows = rows[chosen[rows]]
                if not len(rows):
                    continue
            sets = table if len(rows) == len(table) else table.take(rows)
            most = int(sets.length.sum()) // layout.min_size
            reason = ""
            if layout.min_size < MIN_RECORD:
                reason = "record_too_short"
            elif most > bound.budget:
                reason = "too_many_records"
            else:
                bound.budget -= most
                try:
                    decoded = decode_flows(layout, sets)
                except Exception:
                    # A fault of ours: other layouts must not suffer from it.
                    self._log.exception("internal", f"decoding records of {layout.fields} failed")
                    reason = "internal"
            if reason:
                bound.complete[sets.datagram] = False
                for row, at in zip(sets.datagram.tolist(), sets.start.tolist(), strict=True):
                    self._fault_at(reason, arrived, row, at)
                continue
            np.add.at(bound.steps, sets.datagram, decoded.records)
            for number in decoded.malformed:
                row, at = int(sets.datagram[number]), int(sets.start[number])
                bound.complete[row] = False
                self._fault_at("malformed_record", arrived, row, at)
            flows.extend(decoded.batches)
        return flows

    def _message_ends(self, arrived: Arrived) -> Offsets:
        """Ends by the length that IPFIX messages tell; no set begins in the octets after it.

        Devices that count wrongly end within their last set, or tell less than the header has;
        what UDP delivered is whole nevertheless.
        """
        datagrams = arrived.datagrams
        told = datagrams.start + datagrams.header["length"]
        wrong = (told > datagrams.end) | (told < datagrams.body)
        for row in np.flatnonzero(wrong).tolist():
            self._fault_at("wrong_length", arrived, row, int(datagrams.start[row]) + 2)
        ends: Offsets = np.where(wrong, datagrams.end, told)
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
        if stream.device.reverse_counters and not definition.options:
            definition = definition.with_reverse_counters()
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
        waiting = self._state.waiting.take(stream, definition.id)
        if waiting:
            binding.woken.append((stream, template, waiting))

    def _let_wait(self, sets: DataSets) -> None:
        for number in np.flatnonzero(sets.length).tolist():  # an empty one has nothing to keep
            at = int(sets.start[number])
            self._state.waiting.add(
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
            if template.options:
                for waited in waiting:
                    for record in option_records(template.layout, waited.body):
                        self._keep(stream, template, waited.received, record, told(record))
                        stream.options += 1
                continue
            if template.layout.min_size < MIN_RECORD:
                self._fault("record_too_short", stream.device, -1, 0)
                continue
            sets = waiting_sets(stream, template.id, waiting)
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


def _definitions(source: Source, number: int, body: bytes) -> Iterable[Definition]:
    if source is Source.NETFLOW9:
        return netflow9_options_templates(body) if number else netflow9_templates(body)
    return ipfix_templates(body, options=number == 3)
