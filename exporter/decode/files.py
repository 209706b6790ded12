"""Files of datagrams through the decoders, faults told by file and offset."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from exporter import config
from exporter.batch import FlowBatch
from exporter.decode.decoder import Decoder
from exporter.decode.devices import Stream
from exporter.decode.options import Record
from exporter.decode.templated import OnOptions
from exporter.receive.captures import FileError, is_capture
from exporter.receive.files import Datagram, batches, read_datagrams

#: Datagrams decoded at a time.
_BATCH: Final = 512

#: Where NetFlow and IPFIX headers have the export time, in seconds, by version.
_EXPORT_TIME: Final = {5: 8, 9: 8, 10: 4}
_NANOSECONDS: Final = {5: 12}


class FileDecoder:
    """Decodes files as one stream; ``report`` gets a line per fault, ``faults`` counts them.

    ``on_options`` hears of options records, of some datagrams at a time, and before their flows.
    """

    def __init__(
        self, settings: config.Decode, devices: Sequence[config.Device],
        report: Callable[[str], None], on_options: OnOptions | None = None,
    ) -> None:  # fmt: skip
        self._report = report
        self._on_options = on_options
        self._options: list[tuple[Stream, int, int, Record]] = []
        self.decoder = Decoder(
            settings, devices, on_error=self._error,
            on_options=None if on_options is None else self._heard,
        )  # fmt: skip
        self._places: list[tuple[Path, Datagram, bool]] = []
        self.faults = 0
        self._reported: Counter[str] = Counter()
        self._found: list[tuple[int, int, str]] = []

    def decode(self, files: Sequence[Path]) -> Iterator[FlowBatch]:
        """The flows of all files, in batches."""
        for path in files:
            try:
                yield from self._read(path)
            except FileError as error:
                self._file_error(error)
        yield from self._flush()

    def finish(self) -> None:
        """Report what only the end shows: records whose template never came, and the like."""
        for device in self.decoder.state.devices.values():
            for (stream, number), sets in device.waiting.items():
                octets = sum(len(waiting.body) for waiting in sets)
                self._fault(
                    f"device {device.name}, domain {stream.domain}: template {number} "
                    f"never came; sets of records not decoded: {len(sets)} ({octets} octets)"
                )
        for stream in self.decoder.state.streams():
            if stream.waiting_dropped:
                self._fault(
                    f"device {stream.device.name}, domain {stream.domain}: too many sets of "
                    f"records waited for their template; dropped: {stream.waiting_dropped}"
                )
        for (label, reason), number in sorted(self.decoder.stats.errors().items()):
            beyond = number - self._reported[reason]
            if beyond > 0:
                # All is decoded where templates change to and fro, rightly or not nobody knows.
                tell = self._report if reason == "template_clash" else self._fault
                tell(f"device {label}: {reason}: {beyond} times")

    def _read(self, path: Path) -> Iterator[FlowBatch]:
        raw = not _is_capture(path)
        for datagram in read_datagrams(path, self._file_error):
            self._places.append((path, datagram, raw))
            if len(self._places) == _BATCH:
                yield from self._flush()

    def _flush(self) -> Iterator[FlowBatch]:
        if not self._places:
            return
        datagrams = [
            replace(datagram, time_received=_export_time(datagram.payload, datagram.time_received))
            if raw
            else datagram
            for _, datagram, raw in self._places
        ]
        for batch in batches(datagrams, _BATCH):
            flows = self.decoder.decode(batch)
            if self._on_options is not None:
                for record in self._options:
                    self._on_options(*record)
                self._options.clear()
            yield from flows
        for number, octet, reason in sorted(self._found):
            self._tell(reason, number, octet)
        self._found.clear()
        self._places.clear()

    def _heard(self, stream: Stream, template: int, received: int, record: Record) -> None:
        # Told on later: the decoder would take what goes wrong there for a fault of its own.
        self._options.append((stream, template, received, record))

    def _error(self, reason: str, number: int, octet: int) -> None:
        self._reported[reason] += 1
        self._found.append((number, octet, reason))

    def _tell(self, reason: str, number: int, octet: int) -> None:
        if number < 0:
            self._fault(f"a set that waited for its template: {reason}")
            return
        path, datagram, raw = self._places[number]
        if raw:
            self._fault(f"{path}: offset {datagram.offset + octet}: {reason}")
        else:
            self._fault(
                f"{path}: offset {datagram.offset}: {reason} at octet {octet} of the datagram"
            )

    def _file_error(self, error: FileError) -> None:
        self._fault(str(error))

    def _fault(self, text: str) -> None:
        self.faults += 1
        self._report(text)


def _is_capture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_capture(file.read(4))
    except OSError:
        return False


def _export_time(payload: bytes, otherwise: int) -> int:
    """When a NetFlow or IPFIX datagram was exported, in milliseconds since the epoch."""
    if len(payload) < 16:
        return otherwise
    version = payload[0] << 8 | payload[1]
    at = _EXPORT_TIME.get(version)
    if at is None:
        return otherwise
    (seconds,) = struct.unpack_from(">I", payload, at)
    milliseconds = 0
    if version in _NANOSECONDS:
        (nanoseconds,) = struct.unpack_from(">I", payload, _NANOSECONDS[version])
        milliseconds = min(nanoseconds // 1_000_000, 999)
    return int(seconds * 1000 + milliseconds)
