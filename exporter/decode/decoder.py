"""The decoder of all protocols: datagrams in, flow batches out, nothing ever raised."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter import config
from exporter.batch import FlowBatch
from exporter.decode import accounting, state_file
from exporter.decode.bound import Arrived
from exporter.decode.datagrams import (
    SFLOW,
    Batch,
    Datagrams,
    header_size,
    of_all,
    read_headers,
)
from exporter.decode.devices import OTHER, Device, Stream
from exporter.decode.elements import ElementTable
from exporter.decode.flows import DataSets, decode_flows
from exporter.decode.grouping import ByStream
from exporter.decode.netflow5 import LAYOUT_FIELDS, RECORD_SIZE, header_rates, usable_counts
from exporter.decode.recent import (
    DATAGRAMS_AHEAD,
    RECORDS_AHEAD,
    Numbered,
    RecentDatagrams,
)
from exporter.decode.records import Offsets
from exporter.decode.sflow import SflowDecoder
from exporter.decode.state import LimitError, State
from exporter.decode.stats import DecodeStats
from exporter.decode.templated import OnOptions, TemplatedDecoder
from exporter.logs import RareLog
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import Source

_log = logging.getLogger(__name__)

_VERSIONS: Final = {
    5: Source.NETFLOW5, 9: Source.NETFLOW9, 10: Source.IPFIX, SFLOW: Source.SFLOW5,
}  # fmt: skip
#: Identical errors of a device are logged once in this many seconds.
_LOG_INTERVAL: Final = 60.0
#: Different faults of devices logged in that time: senders' addresses can be forged without end.
_MOST_LOGGED: Final = 100

#: ``(reason, datagram, octet)``: place in the batch (below 0: a set that waited) and in there.
OnError = Callable[[str, int, int], None]


class Decoder:
    """Decodes NetFlow v5, v9, IPFIX and sFlow v5 of any number of devices.

    ``decode`` never raises, whatever the datagrams hold; what cannot be decoded is counted by
    reason in ``stats`` and reported to ``on_error``. ``on_options`` hears of options records. Not
    safe for use by several threads.
    """

    def __init__(
        self, settings: config.Decode, devices: Sequence[config.Device],
        *, on_error: OnError | None = None, on_options: OnOptions | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._table = ElementTable(settings.elements, inner_packets=settings.inner_packets)
        self.state = State(settings, devices, self._table)
        self.stats = DecodeStats(self.state)
        self._on_error = on_error
        self.sflow = SflowDecoder(settings, devices, self.state)
        self._recent = RecentDatagrams()
        self._templated = TemplatedDecoder(self.state, self._error, on_options)
        self._netflow5 = self.state.layout(LAYOUT_FIELDS)
        self._salt = np.array([secrets.randbits(64) | 1 for _ in range(3)], np.uint64)
        self._log = RareLog(_log)
        self._logged: set[tuple[str, str]] = set()
        self._logged_since = -_LOG_INTERVAL
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
                    chosen = batch if len(index) == len(batch) else batch.take(index)
                    flows.extend(self.sflow.decode(chosen))
                else:
                    flows.extend(self._decode_source(joined, source, index))
            except Exception:
                # A fault of ours: it must not take the datagrams of other protocols along.
                self._log.exception("internal", f"decoding {source.name.lower()} failed")
                for number in index.tolist():
                    self._error("internal", None, number, 0)
        return flows

    def _sort_out(self, batch: Batch) -> Iterable[tuple[Source, Offsets]]:
        """Datagrams by protocol; others are counted as errors."""
        version = batch.versions
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
            if batch.shortest < header_size(source):
                short = batch.length[index] < header_size(source)
                for number in index[short].tolist():
                    self._error("truncated_header", self._known(batch, number), number, 0)
                index = index[~short]
            if len(index):
                yield source, index

    def _decode_source(self, batch: Batch, source: Source, index: Offsets) -> list[FlowBatch]:
        datagrams = read_headers(batch, source, index)
        groups, stream, streams = self._streams(batch, datagrams)
        refused = stream < 0
        arrived = Arrived(batch.buffer, datagrams, stream, streams, groups)
        if refused.any():
            arrived = arrived.take(~refused)
            datagrams, stream, groups = arrived.datagrams, arrived.stream, arrived.groups
        if not len(datagrams):
            return []
        accounting.count_received(datagrams, groups, streams)
        numbered = Numbered(
            batch.buffer, datagrams.start, datagrams.end - datagrams.start, datagrams.sequence,
            stream, DATAGRAMS_AHEAD if source is Source.NETFLOW9 else RECORDS_AHEAD,
        )  # fmt: skip
        repeated = self._recent.repeated(numbered, streams, groups)
        if repeated.any():
            arrived = arrived.take(~repeated)
        if source is Source.NETFLOW5:
            return self._decode_netflow5(arrived)
        return self._templated.decode(arrived)

    def _streams(
        self, batch: Batch, datagrams: Datagrams
    ) -> tuple[ByStream, NDArray[np.intp], list[Stream]]:
        """Datagrams by stream, of each the place in a list of streams; below 0: over a bound."""
        senders = of_all(batch.senders, datagrams.index)
        groups, stream = self._group(senders, datagrams.domain)
        rows = groups.order[groups.first]
        domains, received = datagrams.domain[rows].tolist(), datagrams.received[rows].tolist()
        streams: list[Stream] = []
        places = np.full(len(rows), -1, np.intp)
        for number, row in enumerate(rows.tolist()):
            address = senders[row].tobytes()
            try:
                found = self.state.stream(
                    address, datagrams.source, domains[number], received[number]
                )
            except LimitError as limit:
                for datagram in datagrams.index[stream == number].tolist():
                    self._error(str(limit), self.state.devices.get(address), datagram, 0)
                continue
            places[number] = len(streams)
            streams.append(found)
        if len(streams) < len(rows):
            stream = places[stream]
        return groups, stream, streams

    def _group(
        self, senders: NDArray[np.uint8], domain: Offsets
    ) -> tuple[ByStream, NDArray[np.intp]]:
        """Datagrams by sender and observation domain, and the number of each one's stream."""
        words = senders.view(np.uint64)
        if (words == words[0]).all() and (domain == domain[0]).all():
            return ByStream.one(len(domain)), np.zeros(len(domain), np.intp)
        salt = self._salt
        mixed = (words[:, 0] ^ salt[0]) * salt[1]
        mixed ^= (words[:, 1] + mixed) * salt[2]
        mixed ^= domain.astype(np.uint64) * salt[1]
        groups, stream = ByStream.by_keys(mixed)
        like = groups.order[groups.first][stream]
        if (words == words[like]).all() and (domain == domain[like]).all():
            return groups, stream
        # Two streams mixed to the same number: take the slow way.
        keys = np.column_stack((senders, domain.view(np.uint8).reshape(-1, 8)))
        return ByStream.by_keys(np.unique(keys, axis=0, return_inverse=True)[1])

    def _decode_netflow5(self, arrived: Arrived) -> list[FlowBatch]:
        datagrams, stream, streams = arrived.datagrams, arrived.stream, arrived.streams
        counts, wrong = usable_counts(datagrams)
        for row in np.flatnonzero(wrong).tolist():
            self._error("wrong_count", streams[stream[row]].device, int(datagrams.index[row]), 2)
        sets = DataSets(
            arrived.buffer, streams, np.zeros(len(datagrams), np.int64), datagrams.body,
            counts * RECORD_SIZE, stream, np.arange(len(datagrams)), datagrams.received,
            datagrams.exported, datagrams.uptime, header_rates(datagrams),
        )  # fmt: skip
        flows = decode_flows(self._netflow5, sets)
        accounting.check_sequences(datagrams, arrived.groups, streams, flows.records, ~wrong)
        return flows.batches

    def _known(self, batch: Batch, number: int) -> Device | None:
        """The device of a datagram, if it is one already."""
        return self.state.devices.get(batch.senders[number].tobytes())

    def _error(self, reason: str, device: Device | None, datagram: int, octet: int) -> None:
        """Count, report, and log once in a while."""
        label = OTHER if device is None else device.name
        (device or self.state.elsewhere).errors[reason] += 1
        if self._on_error is not None:
            self._on_error(reason, datagram, octet)
            return
        now = time.monotonic()
        if now - self._logged_since >= _LOG_INTERVAL:
            self._logged_since = now
            self._logged.clear()
        if len(self._logged) < _MOST_LOGGED and (label, reason) not in self._logged:
            self._logged.add((label, reason))
            _log.warning("%s: %s at octet %d of a datagram", label, reason, octet)
