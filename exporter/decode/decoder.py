"""The decoder of all protocols: datagrams in, flow batches out, nothing ever raised."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter import config
from exporter.batch import FlowBatch
from exporter.decode import accounting, state_file
from exporter.decode.datagrams import (
    Batch,
    Datagrams,
    Sets,
    header_size,
    is_data_set,
    is_template_set,
    read_headers,
    walk_sets,
)
from exporter.decode.elements import ElementTable
from exporter.decode.flows import DataSets, decode_flows
from exporter.decode.layout import MIN_RECORD, Layout
from exporter.decode.netflow5 import LAYOUT_FIELDS, RECORD_SIZE, header_rates, usable_counts
from exporter.decode.options import learn, option_records
from exporter.decode.recent import RecentDatagrams
from exporter.decode.records import TAIL, Offsets
from exporter.decode.sflow import SflowDecoder
from exporter.decode.state import Device, LimitError, State, Stream, WaitingSet
from exporter.decode.stats import DecodeStats
from exporter.decode.templates import (
    Definition,
    Template,
    TemplateError,
    ipfix_templates,
    netflow9_options_templates,
    netflow9_templates,
)
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import Source

_log = logging.getLogger(__name__)

_SFLOW: Final = -1
_VERSIONS: Final = {
    5: Source.NETFLOW5, 9: Source.NETFLOW9, 10: Source.IPFIX, _SFLOW: Source.SFLOW5,
}  # fmt: skip
_SFLOW5: Final = 5  # sFlow has its version in four octets, where NetFlow v5 has it in two

#: Rows of one call: more than a batch of real datagrams can hold.
MAX_ROWS: Final = 4_000_000
#: Identical errors of a device are logged once in this many seconds.
_LOG_INTERVAL: Final = 60.0

#: ``(reason, datagram, octet)``: place in the batch (below 0: a set that waited) and in there.
OnError = Callable[[str, int, int], None]


class Decoder:
    """Decodes NetFlow v5, v9, IPFIX and sFlow v5 of any number of devices.

    ``decode`` never raises, whatever the datagrams hold; what cannot be decoded is counted by
    reason in ``stats`` and reported to ``on_error``. Not safe for use by several threads.
    """

    def __init__(
        self, settings: config.Decode, devices: Sequence[config.Device],
        *, on_error: OnError | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._table = ElementTable(settings.elements)
        self.state = State(settings, devices, self._table)
        self.stats = DecodeStats(self.state)
        self._on_error = on_error
        self.sflow = SflowDecoder(settings, devices, self.state)
        self._recent = RecentDatagrams()
        self._netflow5 = self.state.layout(LAYOUT_FIELDS)
        self._salt = np.array([secrets.randbits(64) | 1 for _ in range(3)], np.uint64)
        self._logged: dict[tuple[str, str], float] = {}
        self._devices = self._devices_in_use = devices
        if settings.template_file:
            state_file.load(Path(settings.template_file), self.state)

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from the next batch on; from any thread."""
        self._devices = devices

    def save(self) -> None:
        """Write templates and sampling rates to the configured file, if there is one.

        Raises:
            OSError: the file cannot be written.
        """
        if self._settings.template_file:
            state_file.save(Path(self._settings.template_file), self.state)

    def decode(self, batch: DatagramBatch) -> list[FlowBatch]:
        """The flows of a batch of datagrams, in batches of one layout each."""
        devices = self._devices
        if devices is not self._devices_in_use:
            self.state.configure(devices)
            self._devices_in_use = devices
        if not len(batch):
            return []
        joined = Batch(batch)
        flows: list[FlowBatch] = []
        for source, index in self._sort_out(joined):
            try:
                if source is Source.SFLOW5:
                    flows.extend(self.sflow.decode(_part(batch, index)))
                else:
                    flows.extend(self._decode_source(joined, source, index))
            except Exception:
                # A fault of ours: it must not take the datagrams of other protocols along.
                _log.exception("decoding %s failed", source.name.lower())
                for number in index.tolist():
                    self._error("internal", None, number, 0)
        return flows

    def _sort_out(self, batch: Batch) -> Iterable[tuple[Source, Offsets]]:
        """Datagrams by protocol; others are counted as errors."""
        version = np.where(batch.opening == _SFLOW5, _SFLOW, batch.opening >> 16)
        first = int(version[0])
        found: list[tuple[Source, Offsets]]
        if first in _VERSIONS and (version == first).all():
            found = [(_VERSIONS[first], np.arange(len(version)))]
        else:
            found = [(s, np.flatnonzero(version == v)) for v, s in _VERSIONS.items()]
            unknown = ~np.isin(version, list(_VERSIONS))
            for number in np.flatnonzero(unknown).tolist():
                self._error("unknown_version", self._known(batch, number), number, 0)
        for source, index in found:
            if source is Source.SFLOW5:
                if len(index):
                    yield source, index
                continue
            short = batch.length[index] < header_size(source)
            if short.any():
                for number in index[short].tolist():
                    self._error("truncated_header", self._known(batch, number), number, 0)
                index = index[~short]
            if len(index):
                yield source, index

    def _decode_source(self, batch: Batch, source: Source, index: Offsets) -> list[FlowBatch]:
        datagrams = read_headers(batch, source, index)
        stream, streams, refused = self._streams(batch, datagrams)
        if refused is not None:
            datagrams, stream = datagrams.take(~refused), stream[~refused]
        if not len(datagrams):
            return []
        accounting.count_received(datagrams, stream, streams)
        repeated = self._recent.repeated(batch.buffer, datagrams, stream, streams)
        if repeated.any():
            for number in stream[repeated].tolist():
                streams[number].duplicates += 1
            datagrams, stream = datagrams.take(~repeated), stream[~repeated]
        if source is Source.NETFLOW5:
            return self._decode_netflow5(batch, datagrams, stream, streams)
        return self._decode_templated(batch, datagrams, stream, streams)

    def _streams(
        self, batch: Batch, datagrams: Datagrams
    ) -> tuple[NDArray[np.intp], list[Stream], NDArray[np.bool_] | None]:
        """Per datagram the place of its stream in a list, and which were refused by a bound."""
        senders = batch.senders[datagrams.index]
        words = senders.view(np.uint64)
        salt = self._salt
        mixed = (words[:, 0] ^ salt[0]) * salt[1]
        mixed ^= (words[:, 1] + mixed) * salt[2]
        mixed ^= datagrams.domain.astype(np.uint64) * salt[1]
        _, first, place = np.unique(mixed, return_index=True, return_inverse=True)
        same = (senders == senders[first][place]).all(axis=1)
        same &= datagrams.domain == datagrams.domain[first][place]
        if not same.all():  # two streams mixed to the same number: take the slow way
            keys = np.column_stack((senders, datagrams.domain.view(np.uint8).reshape(-1, 8)))
            _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        streams: list[Stream] = []
        numbers = np.full(len(first), -1, np.intp)
        for number, row in enumerate(first.tolist()):
            address = senders[row].tobytes()
            received = int(datagrams.received[row])
            try:
                found = self.state.stream(
                    address, datagrams.source, int(datagrams.domain[row]), received
                )
            except LimitError as limit:
                for datagram in datagrams.index[place == number].tolist():
                    self._error(str(limit), self.state.devices.get(address), datagram, 0)
                continue
            numbers[number] = len(streams)
            streams.append(found)
        stream = numbers[place]
        refused = stream < 0
        return stream, streams, refused if refused.any() else None

    def _decode_netflow5(
        self, batch: Batch, datagrams: Datagrams, stream: NDArray[np.intp],
        streams: list[Stream],
    ) -> list[FlowBatch]:  # fmt: skip
        counts, wrong = usable_counts(datagrams)
        for row in np.flatnonzero(wrong).tolist():
            self._error("wrong_count", streams[stream[row]].device, int(datagrams.index[row]), 2)
        sets = DataSets(
            batch.buffer, streams, np.zeros(len(datagrams), np.int64), datagrams.body,
            counts * RECORD_SIZE, stream, np.arange(len(datagrams)), datagrams.received,
            datagrams.exported, datagrams.uptime, header_rates(datagrams),
        )  # fmt: skip
        flows = decode_flows(self._netflow5, sets)
        accounting.check_sequences(datagrams, stream, streams, flows.records, ~wrong)
        return flows.batches

    def _decode_templated(
        self, batch: Batch, datagrams: Datagrams, stream: NDArray[np.intp],
        streams: list[Stream],
    ) -> list[FlowBatch]:  # fmt: skip
        end = datagrams.end
        if datagrams.source is Source.IPFIX:
            end = self._message_ends(datagrams, stream, streams)
        if datagrams.source is Source.NETFLOW9:
            for owner in accounting.restarted(datagrams, stream, streams):
                self.state.withdraw_all(owner)
        sets = walk_sets(batch.buffer, datagrams.body, end)
        for row, at in sets.malformed:
            self._set_error("malformed_set", datagrams, stream, streams, row, at)
        data = is_data_set(sets.number)
        bound = _Bound(sets, stream)
        if not data.all():
            self._define(batch, datagrams, sets, stream, streams, bound)
        table = DataSets(
            batch.buffer, streams, sets.number, sets.start, sets.length, stream[sets.datagram],
            sets.datagram, datagrams.received[sets.datagram], datagrams.exported[sets.datagram],
            datagrams.uptime[sets.datagram],
        )  # fmt: skip
        bound.bind_rest(data, streams)
        steps = np.zeros(len(datagrams), np.int64)
        complete = np.ones(len(datagrams), np.bool_)
        flows: list[FlowBatch] = []
        for template, rows in bound.groups():
            if template is None:
                complete[table.datagram[rows]] = False
                self._let_wait(table.take(rows))
                continue
            if template.options:
                self._learn(template.layout, table.take(rows), steps)
        if datagrams.source is Source.IPFIX:
            # Only now options have told when devices started.
            table = replace(table, uptime=_uptimes(datagrams, stream, streams)[sets.datagram])
        budget = MAX_ROWS
        for layout, rows in bound.layouts():
            chosen = table.take(rows)
            if layout.min_size < MIN_RECORD:
                for row, at in zip(chosen.datagram.tolist(), chosen.start.tolist(), strict=True):
                    complete[row] = False
                    self._set_error("record_too_short", datagrams, stream, streams, row, at)
                continue
            budget -= int(chosen.length.sum()) // layout.min_size
            if budget < 0:
                for datagram in chosen.datagram.tolist():
                    self._set_error("too_many_records", datagrams, stream, streams, datagram, 0)
                continue
            decoded = decode_flows(layout, chosen)
            np.add.at(steps, chosen.datagram, decoded.records)
            for number in decoded.malformed:
                row, at = int(chosen.datagram[number]), int(chosen.start[number])
                complete[row] = False
                self._set_error("malformed_record", datagrams, stream, streams, row, at)
            flows.extend(decoded.batches)
        flows.extend(self._decode_waiting(bound, budget))
        if datagrams.source is Source.NETFLOW9:
            steps[:], complete[:] = 1, True
        accounting.check_sequences(datagrams, stream, streams, steps, complete)
        return flows

    def _message_ends(
        self, datagrams: Datagrams, stream: NDArray[np.intp], streams: list[Stream]
    ) -> Offsets:
        """Ends by the length that IPFIX messages tell; octets after it are no part of them."""
        told = datagrams.start + datagrams.header["length"]
        cut = told > datagrams.end
        for row in np.flatnonzero(cut).tolist():
            self._set_error("truncated", datagrams, stream, streams, row, 2)
        ends: Offsets = np.minimum(told, datagrams.end)
        return ends

    def _define(
        self, batch: Batch, datagrams: Datagrams, sets: Sets, stream: NDArray[np.intp],
        streams: list[Stream], bound: _Bound,
    ) -> None:  # fmt: skip
        """Put the templates of template sets in force, in the order of their reception."""
        source = datagrams.source
        numbers = np.flatnonzero(~is_data_set(sets.number))
        for number in numbers[np.argsort(sets.start[numbers])].tolist():
            row, at = int(sets.datagram[number]), int(sets.start[number])
            owner = int(stream[row])
            if not is_template_set(source, int(sets.number[number])):
                self._set_error("reserved_set", datagrams, stream, streams, row, at)
                continue
            body = batch.buffer[at : at + int(sets.length[number])]
            now = int(datagrams.received[row])
            try:
                for definition in _definitions(source, int(sets.number[number]), body):
                    try:
                        self._apply(streams[owner], definition, now, bound, owner, at)
                    except LimitError as limit:
                        self._set_error(str(limit), datagrams, stream, streams, row, at)
            except TemplateError as error:
                self._set_error(str(error), datagrams, stream, streams, row, at)

    def _apply(
        self, stream: Stream, definition: Definition, now: int, bound: _Bound, owner: int, at: int
    ) -> None:
        """One template or withdrawal, told at ``at``: data before that keeps what was in force.

        Raises:
            LimitError: as :meth:`State.define`.
        """
        if not definition.fields and stream.source is Source.IPFIX:
            if definition.id < 256:
                bound.bind_before(stream, owner, None, at)
                self.state.withdraw_all(stream, options=definition.id == 3)
            else:
                bound.bind_before(stream, owner, definition.id, at)
                self.state.withdraw(stream, definition.id)
            return
        known = stream.templates.get(definition.id)
        if known is not None and known.layout.fields != definition.fields:
            bound.bind_before(stream, owner, definition.id, at)
        template = self.state.define(stream, definition, now)
        waiting = self.state.take_waiting(stream, definition.id)
        if waiting:
            bound.woken.append((stream, template, waiting))

    def _learn(self, layout: Layout, sets: DataSets, steps: Offsets | None) -> None:
        """Options records: counted, and kept what they tell."""
        for number in range(len(sets)):
            at = int(sets.start[number])
            stream = sets.streams[sets.stream[number]]
            count = 0
            for record in option_records(layout, sets.buffer[at : at + int(sets.length[number])]):
                learn(self.state, stream, record)
                count += 1
            stream.options += count
            if steps is not None:
                steps[sets.datagram[number]] += count

    def _let_wait(self, sets: DataSets) -> None:
        for number in range(len(sets)):
            at = int(sets.start[number])
            self.state.wait(
                sets.streams[sets.stream[number]],
                int(sets.number[number]),
                WaitingSet(
                    sets.buffer[at : at + int(sets.length[number])],
                    int(sets.received[number]),
                    int(sets.exported[number]),
                    int(sets.uptime[number]),
                ),
            )

    def _decode_waiting(self, bound: _Bound, budget: int) -> list[FlowBatch]:
        """Flows of sets that waited for a template that came now."""
        flows: list[FlowBatch] = []
        for stream, template, waiting in bound.woken:
            sets = _waiting_sets(stream, template.id, waiting)
            if template.options:
                self._learn(template.layout, sets, None)
                continue
            budget -= int(sets.length.sum()) // template.layout.min_size
            if budget < 0 or template.layout.min_size < MIN_RECORD:
                self._error("too_many_records", stream.device, -1, 0)
                continue
            decoded = decode_flows(template.layout, sets)
            for _ in decoded.malformed:
                self._error("malformed_record", stream.device, -1, 0)
            flows.extend(decoded.batches)
        return flows

    def _known(self, batch: Batch, number: int) -> Device | None:
        """The device of a datagram, if it is one already."""
        return self.state.devices.get(batch.senders[number].tobytes())

    def _set_error(
        self, reason: str, datagrams: Datagrams, stream: NDArray[np.intp],
        streams: Sequence[Stream], row: int, at: int,
    ) -> None:  # fmt: skip
        """An error at octet ``at`` of the buffer, in the datagram of a row."""
        octet = max(at - int(datagrams.start[row]), 0)
        self._error(reason, streams[stream[row]].device, int(datagrams.index[row]), octet)

    def _error(self, reason: str, device: Device | None, datagram: int, octet: int) -> None:
        """Count, report, and log once in a while."""
        label = "other" if device is None else device.label
        if device is None:
            self.state.errors_elsewhere[reason] += 1
        else:
            device.errors[reason] += 1
        if self._on_error is not None:
            self._on_error(reason, datagram, octet)
            return
        now = time.monotonic()
        key = (label, reason)
        if now - self._logged.get(key, -_LOG_INTERVAL) >= _LOG_INTERVAL:
            if len(self._logged) > self._settings.max_devices:
                self._logged.clear()
            self._logged[key] = now
            _log.warning("%s: %s at octet %d of a datagram", label, reason, octet)


class _Bound:
    """Which template each data set is decoded with.

    Most are bound at the end, to the templates then in force; those before a template that
    changes are bound to what was in force before.
    """

    def __init__(self, sets: Sets, stream: NDArray[np.intp]) -> None:
        self._sets = sets
        self._stream = stream[sets.datagram]
        self._place = np.full(len(sets.number), -1, np.intp)
        self._templates: list[Template | None] = []
        self.woken: list[tuple[Stream, Template, list[WaitingSet]]] = []

    def bind_before(self, stream: Stream, owner: int, number: int | None, at: int) -> None:
        """Bind the sets before ``at`` that have a template (or any) of a stream."""
        rows = (self._stream == owner) & (self._sets.start < at) & (self._place < 0)
        rows &= is_data_set(self._sets.number)
        if number is not None:
            rows &= self._sets.number == number
        for used in np.unique(self._sets.number[rows]).tolist():
            template = stream.templates.get(used)
            if template is not None:
                self._place[rows & (self._sets.number == used)] = len(self._templates)
                self._templates.append(template)

    def bind_rest(self, data: NDArray[np.bool_], streams: Sequence[Stream]) -> None:
        """Bind all others to the templates in force."""
        rows = np.flatnonzero(data & (self._place < 0))
        keys = self._stream[rows] << 16 | self._sets.number[rows]
        found, place = np.unique(keys, return_inverse=True)
        self._place[rows] = place + len(self._templates)
        self._templates.extend(
            streams[key >> 16].templates.get(key & 0xFFFF) for key in found.tolist()
        )

    def groups(self) -> Iterable[tuple[Template | None, NDArray[np.intp]]]:
        """Sets that are no flows: those of options, and those whose template is unknown."""
        for place, template in enumerate(self._templates):
            if template is None or template.options:
                yield template, np.flatnonzero(self._place == place)

    def layouts(self) -> Iterable[tuple[Layout, NDArray[np.intp]]]:
        """Sets of flows by the layout of their records, whatever device and template."""
        index: dict[Layout, int] = {}
        layout_of = [
            -1 if template is None or template.options
            else index.setdefault(template.layout, len(index))
            for template in self._templates
        ]  # fmt: skip
        if not index:
            return
        of_set = np.array([*layout_of, -1], np.intp)[self._place]
        if len(index) == 1 and (of_set == 0).all():
            yield next(iter(index)), np.arange(len(of_set))
            return
        order = np.argsort(of_set, kind="stable")
        bounds = np.searchsorted(of_set[order], np.arange(len(index) + 1))
        for layout, number in index.items():
            yield layout, order[bounds[number] : bounds[number + 1]]


def _part(batch: DatagramBatch, index: Offsets) -> DatagramBatch:
    if len(index) == len(batch):
        return batch
    return DatagramBatch(
        [batch.payloads[number] for number in index.tolist()], batch.senders[index],
        batch.ports[index], batch.time_received[index],
    )  # fmt: skip


def _definitions(source: Source, number: int, body: bytes) -> Iterable[Definition]:
    if source is Source.NETFLOW9:
        return netflow9_options_templates(body) if number else netflow9_templates(body)
    return ipfix_templates(body, options=number == 3)


def _uptimes(datagrams: Datagrams, stream: NDArray[np.intp], streams: Sequence[Stream]) -> Offsets:
    """The device's uptime at the export of IPFIX, if options told when it started."""
    started = np.array([s.device.system_init for s in streams], np.int64)[stream]
    return np.where(started > 0, (datagrams.exported - started) & 0xFFFFFFFF, -1)


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
