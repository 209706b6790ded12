"""From data sets of one layout to a flow batch: read the columns, then derive what is implied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn, FlowBatch
from exporter.decode import derived, values
from exporter.decode.biflow import reverse_flows
from exporter.decode.connections import count_once
from exporter.decode.devices import Device, Stream
from exporter.decode.elements import SECTION_READINGS, Fill, Reading
from exporter.decode.layout import VARIABLE, Layout, Step
from exporter.decode.rates import apply_rates
from exporter.decode.records import Offsets, Records, locate
from exporter.decode.sections import merge_section, packet_sections
from exporter.decode.slices import sliced_bytes
from exporter.decode.stations import stations
from exporter.decode.times import Uptimes, flow_times


@dataclass(frozen=True, slots=True)
class DataSets:
    """Data sets in ``buffer``, as columns: one value per set, times in milliseconds.

    ``stream`` points into ``streams``; ``uptime`` is the device's at export, below 0 where the
    protocol does not tell; ``rate`` the sampling rate of the datagram's header, 0 where none.
    ``datagram`` is the set's place in what was received, -1 for sets that had to wait.
    """

    buffer: bytes | memoryview
    streams: Sequence[Stream]
    number: Offsets
    start: Offsets
    length: Offsets
    stream: NDArray[np.intp]
    datagram: Offsets
    received: Offsets
    exported: Offsets
    uptime: Offsets
    rate: Offsets | None = None

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: NDArray[Any]) -> DataSets:
        """The sets that an index or a boolean mask selects."""
        return replace(
            self,
            number=self.number[rows],
            start=self.start[rows],
            length=self.length[rows],
            stream=self.stream[rows],
            datagram=self.datagram[rows],
            received=self.received[rows],
            exported=self.exported[rows],
            uptime=self.uptime[rows],
            rate=None if self.rate is None else self.rate[rows],
        )


@dataclass(slots=True)
class Flows:
    """What came of data sets: batches, records per set, and sets whose rest is malformed."""

    batches: list[FlowBatch]
    records: Offsets
    malformed: list[int]


def decode_flows(layout: Layout, sets: DataSets) -> Flows:
    """The flows of data sets that all have ``layout`` (and one protocol)."""
    records = locate(layout, sets.buffer, sets.start, sets.length)
    counts = records.counts
    if not len(records):
        return Flows([], counts, records.malformed)
    reader = _Reader(records, sets, inner_packets=layout.inner_packets)
    columns = reader.read(layout.forward)
    reverse = reader.read(layout.reverse) if layout.reverse else {}
    batches = _batches(layout, columns, reverse, records, sets, counts)
    return Flows(batches, counts, records.malformed)


def _batches(
    layout: Layout, columns: dict[str, Any], reverse: dict[str, Any], records: Records,
    sets: DataSets, counts: Offsets,
) -> list[FlowBatch]:  # fmt: skip
    count = len(records)
    streams = sets.streams
    received = records.spread(sets.received)
    per_stream = np.bincount(sets.stream, counts, len(streams)).astype(np.int64).tolist()
    merge_section(columns)
    stations(columns)
    derived.inner_packets(columns, wanted=layout.inner_packets)
    only_ipv6 = derived.ether_type(columns, count, layout)
    if not layout.ipv4 and not only_ipv6:
        derived.prefix_lengths(columns)
    derived.icmp(columns)
    derived.dns(columns)
    derived.mpls(columns)
    derived.round_trip(columns)
    derived.subscriber(columns, count)
    count_once(columns, records, sets)
    derived.firewall(columns)
    start, end, source, odd = flow_times(columns, received)
    if odd:
        _count_odd_times(source, records, sets)
    columns["time_received"] = received
    columns["time_flow_start"] = start
    columns["time_flow_end"] = end
    columns["time_source"] = source
    addresses = np.frombuffer(b"".join([s.device.address for s in streams]), np.uint8)
    columns["device_addr"] = _per_stream(addresses.reshape(-1, 16), records, sets)
    domains = np.array([stream.domain for stream in streams], np.uint32)
    columns["observation_domain"] = _per_stream(domains, records, sets)
    columns["source"] = np.broadcast_to(np.int8(streams[0].source), count)
    for name in ("bytes", "packets"):
        if name not in columns:
            columns[name] = np.zeros(count, np.uint64)
    apply_rates(columns, records, sets, per_stream)
    for stream, rows in zip(streams, per_stream, strict=True):
        stream.records += rows
    _interface_names(columns, records, sets)
    batches = reverse_flows(columns, reverse, received)
    return [FlowBatch(count, columns), *batches]


def _per_stream(told: Array, records: Records, sets: DataSets) -> Array:
    """One value per row from one per stream; of one stream without the memory of a column."""
    if len(told) == 1:
        return np.broadcast_to(told, (len(records), *told.shape[1:]))
    return records.spread(told[sets.stream])


class _Reader:
    """Reads steps of a layout over all its records."""

    def __init__(self, records: Records, sets: DataSets, *, inner_packets: bool) -> None:
        self._inner_packets = inner_packets
        self._records = records
        self._sets = sets
        self._exported: Offsets | None = None
        self._at_export: Uptimes | None = None
        self._started: Array | None = None
        self._frame_type: Array | None = None
        self._section_octets: Array | None = None
        self._slices: dict[int, tuple[NDArray[np.uint32], list[bytes]]] = {}

    def read(self, steps: Sequence[Step]) -> dict[str, Any]:
        """A column per name that ``steps`` fill."""
        columns: dict[str, Any] = {}
        self._slices = self._sliced(steps)
        for step in steps:
            column = self._column(step)
            if step.column == "system_init":  # goes before all uptimes in the table
                self._started = column
                continue
            if step.column == "frame_type":  # goes before all sections
                self._frame_type = column
                continue
            if step.column == "section_octets":
                self._section_octets = column
                continue
            before = columns.get(step.column)
            if before is None:
                columns[step.column] = column
            elif step.fill is Fill.BITS:
                columns[step.column] = before | column
            else:
                columns[step.column] = values.fill(before, column)
        return columns

    def _column(self, step: Step) -> Any:
        reading = step.reading
        if reading is Reading.UNSIGNED or reading is Reading.MAC:
            return values.unsigned(self._field(step), step.dtype)
        if reading is Reading.ADDRESS:
            return values.addresses(self._field(step))
        if reading in values.TEXT_READINGS:
            return self._octets(step)
        if reading in SECTION_READINGS:
            return packet_sections(
                step, self._records, self._frame_type, self._section_octets,
                inner=self._inner_packets,
            )  # fmt: skip
        field = self._field(step)
        if reading in values.NUMBER_READINGS:
            return self._number_text(reading, values.unsigned(field, np.uint32))
        if reading is Reading.LABEL:
            octets = np.zeros((len(field), 4), np.uint8)
            octets[:, 1:] = field
            return octets.view(">u4")[:, 0].astype(np.uint32)
        if reading is Reading.DSCP:
            return values.unsigned(field, np.uint8) << np.uint8(2)
        if reading is Reading.PRECEDENCE:
            return values.unsigned(field, np.uint8) << np.uint8(5)
        if reading is Reading.DIRECTION:
            return values.directions(values.unsigned(field, np.uint8))
        if reading in values.STATUS_READINGS:
            return values.STATUS_READINGS[reading](values.unsigned(field, np.uint16))
        if reading is Reading.DURATION_US:
            return values.unsigned(field, np.uint64) // np.uint64(1000)
        if reading is Reading.LATENCY_MS:
            return (values.unsigned(field, np.float32) / 1e3).astype(np.float32)
        if reading is Reading.LATENCY_US:
            return values.latency(values.unsigned(field, np.uint64))
        if reading is Reading.ICMP:
            return values.unsigned(field, np.uint16)
        return self._time(reading, field)

    def _field(self, step: Step) -> Array:
        """A fixed-length field of all records, where it lies in them."""
        field: Array = self._records.windows[step.place][step.name]
        return field

    def _time(self, reading: Reading, field: Array) -> Array:
        if reading is Reading.MILLISECONDS:
            return values.milliseconds(field, 1)
        if reading is Reading.SECONDS:
            return values.milliseconds(field, 1000)
        if reading is Reading.UPTIME:
            if self._at_export is None:
                self._at_export = Uptimes(self._uptime_at_export())
            return self._at_export.times(values.unsigned(field, np.uint32), self.exported)
        if reading is Reading.NTP_MICROSECONDS:
            return values.ntp_milliseconds(field, self.exported, 1_000)
        if reading is Reading.NTP_NANOSECONDS:
            return values.ntp_milliseconds(field, self.exported, 1_000_000)
        assert reading is Reading.BEFORE_EXPORT
        before: Array = values.unsigned(field, np.int64) // 1000
        times: Array = self.exported - before
        return times

    def _uptime_at_export(self) -> Offsets:
        """By the record, if it tells when the device started, else by datagram or options."""
        known = self._records.spread(self._sets.uptime)
        if self._started is None:
            return known
        started = np.minimum(self._started, np.uint64(values.LAST_TIME)).astype(np.int64)
        return np.where(started > 0, (self.exported - started) & 0xFFFFFFFF, known)

    @property
    def exported(self) -> Offsets:
        """Export times, per row."""
        if self._exported is None:
            self._exported = self._records.spread(self._sets.exported)
        return self._exported

    def _sliced(self, steps: Sequence[Step]) -> dict[int, tuple[NDArray[np.uint32], list[bytes]]]:
        """Codes and different values of variable-length fields that ``steps`` read as texts."""
        records = self._records
        places = [
            step.place
            for step in steps
            if step.length == VARIABLE and step.reading in values.TEXT_READINGS
        ]
        if not places:
            return {}
        fields = [(records.starts[place], records.ends[place]) for place in places]
        return dict(zip(places, sliced_bytes(records.buffer, fields), strict=True))

    def _octets(self, step: Step) -> DictColumn:
        records = self._records
        if step.length == VARIABLE:
            codes, found = self._slices[step.place]
        else:
            codes, found = values.fixed_bytes(records.windows[step.place][step.name])
        if step.reading is Reading.TEXT:
            return values.texts(codes, values.clean_texts(found))
        show = values.TEXT_READINGS[step.reading]
        if step.reading is Reading.APPLICATION:
            return self._named(codes, found, show, lambda device: device.applications)
        return values.texts(codes, list(map(show, found)))

    def _number_text(self, reading: Reading, numbers: NDArray[np.uint32]) -> DictColumn:
        found, places = values.distinct(numbers)
        codes = places.astype(np.uint32)
        show = values.NUMBER_READINGS[reading]
        if reading is Reading.VRF:
            return self._named(codes, found.tolist(), show, lambda device: device.vrfs)
        return values.texts(codes, list(map(show, found.tolist())))

    def _named(
        self, codes: NDArray[np.uint32], found: Sequence[Any], show: Callable[[Any], str],
        names: Callable[[Device], dict[Any, str]],
    ) -> DictColumn:  # fmt: skip
        """``found`` by the names that each row's device told for them, else as ``show`` has it."""
        streams = self._sets.streams
        if not any(names(stream.device) for stream in streams):
            return values.texts(codes, list(map(show, found)))
        of_row = self._records.spread(self._sets.stream)
        pairs, places = values.distinct_pairs(of_row, codes)
        told = [(names(streams[stream].device), found[code]) for stream, code in pairs]
        shown = [known.get(value) or show(value) for known, value in told]
        return values.texts(places.astype(np.uint32), shown)


def _interface_names(columns: dict[str, Any], records: Records, sets: DataSets) -> None:
    """``in_if_name`` and ``out_if_name`` where the device told names of its interfaces."""
    streams = sets.streams
    if not any(stream.device.interfaces for stream in streams):
        return
    of_row = records.spread(sets.stream)
    for name in ("in_if", "out_if"):
        numbers = columns.get(name)
        if numbers is None:
            continue
        pairs, places = values.distinct_pairs(of_row, numbers)
        told = [streams[stream].device.interfaces.get(number, "") for stream, number in pairs]
        columns[f"{name}_name"] = values.texts(places.astype(np.uint32), told)


def _count_odd_times(source: NDArray[np.int8], records: Records, sets: DataSets) -> None:
    per_set = np.bincount(records.set_of, source, len(sets))
    per_stream = np.bincount(sets.stream, per_set, len(sets.streams))
    for stream, rows in zip(sets.streams, per_stream.tolist(), strict=True):
        stream.device.times_replaced += int(rows)
