"""Datagrams from files: one raw UDP payload a file, pcap and pcapng captures, files of IPFIX."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from exporter.receive.captures import FileError, Report, is_capture, read_frames
from exporter.receive.datagrams import DatagramBatch
from exporter.receive.frames import FrameError, UdpReader, network_packet

log = logging.getLogger(__name__)

_MAX_PAYLOAD: Final = 65_535

#: Files of IPFIX messages (RFC 5655) are known by their name, as they begin like a datagram.
_MESSAGES: Final = ".ipfix"
_MESSAGE_HEADER: Final = 16
_IPFIX: Final = 10


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload from a file.

    ``sender`` is 16 bytes (IPv4 mapped), ``time_received`` milliseconds since the epoch, and
    ``offset`` where in the file the frame (or its last fragment) begins. A raw file knows neither
    sender nor ports, which are zero, and its time is the file's modification.
    """

    payload: bytes
    sender: bytes
    port: int
    destination_port: int
    time_received: int
    offset: int


def log_error(error: FileError) -> None:
    """The usual ``report``: one line in the log."""
    log.error("%s", error)


def read_datagrams(path: Path, report: Report = log_error) -> Iterator[Datagram]:
    """All UDP datagrams of a file in its order; pcap and pcapng are known by their first bytes.

    A message in a file of IPFIX (``*.ipfix``) counts as a datagram.

    What is damaged or not wholly captured is given to ``report`` and the rest is used: of a
    datagram that lost its end, what is there.

    Raises:
        FileError: the file cannot be read, or is neither a capture nor one datagram.
    """
    try:
        with path.open("rb") as file:
            if is_capture(file.peek(4)):
                yield from _captured(path, file, report)
                return
            changed = path.stat().st_mtime_ns // 1_000_000
            if path.suffix == _MESSAGES:
                yield from _messages(path, file, changed, report)
                return
            payload = file.read(_MAX_PAYLOAD + 1)
    except OSError as error:
        raise FileError(path, 0, error.strerror or str(error)) from error
    if not payload:
        raise FileError(path, 0, "file is empty")
    if len(payload) > _MAX_PAYLOAD:
        raise FileError(path, 0, "neither pcap nor pcapng, and too long for one datagram")
    yield Datagram(payload, bytes(16), 0, 0, changed, 0)


def _messages(path: Path, file: BinaryIO, changed: int, report: Report) -> Iterator[Datagram]:
    offset = 0
    while head := file.read(_MESSAGE_HEADER):
        length = int.from_bytes(head[2:4], "big")
        if len(head) < _MESSAGE_HEADER or head[:2] != bytes((0, _IPFIX)):
            report(FileError(path, offset, "no IPFIX message"))
            return
        if length < _MESSAGE_HEADER:
            report(FileError(path, offset + 2, "impossible length of an IPFIX message"))
            return
        message = head + file.read(length - _MESSAGE_HEADER)
        if len(message) < length:
            missing = length - len(message)
            report(FileError(path, offset, f"message lacks its last {missing} bytes"))
        yield Datagram(message, bytes(16), 0, 0, changed, offset)
        offset += length


def _captured(path: Path, file: BinaryIO, report: Report) -> Iterator[Datagram]:
    reader = UdpReader()
    unsupported: set[int] = set()
    for frame in read_frames(path, file, report):
        if frame.link_type in unsupported:
            continue
        try:
            packet = network_packet(frame.link_type, frame.data)
        except FrameError as error:
            unsupported.add(frame.link_type)
            report(FileError(path, frame.offset, str(error)))
            continue
        try:
            found = reader.read(frame.offset, frame.time, packet) if packet is not None else None
        except FrameError as error:
            report(FileError(path, frame.offset, str(error)))
            continue
        if found is not None:
            if found.missing:
                reason = f"datagram lacks its last {found.missing} bytes"
                report(FileError(path, frame.offset, reason))
            yield Datagram(
                found.payload, found.sender, found.port, found.destination_port,
                frame.time, frame.offset,
            )  # fmt: skip
        _report_incomplete(path, reader, report)
    reader.finish()
    _report_incomplete(path, reader, report)


def _report_incomplete(path: Path, reader: UdpReader, report: Report) -> None:
    for offset in reader.given_up:
        report(FileError(path, offset, "datagram lacks some of its fragments"))
    reader.given_up.clear()


def batches(datagrams: Iterable[Datagram], size: int = 512) -> Iterator[DatagramBatch]:
    """The same as batches of at most ``size``."""
    remaining = iter(datagrams)
    while group := list(islice(remaining, size)):
        senders = np.frombuffer(b"".join(d.sender for d in group), np.uint8).reshape(-1, 16)
        ports = np.array([d.port for d in group], np.uint16)
        times = np.array([d.time_received for d in group], np.int64)
        yield DatagramBatch.of([d.payload for d in group], senders, ports, times)
