"""Frames of pcap and pcapng files.

Own readers, because the maintained ones that we could use (dpkt 1.9) take one interface and one
byte order per pcapng file, allocate whatever length a damaged record claims, pass over cut
records in silence and tell no offsets.

Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types: the registry in
draft-ietf-opsawg-pcaplinktype.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

PCAPNG_MAGIC: Final = b"\n\r\r\n"

#: First bytes of a pcap file: byte order, fractions of a second, bytes of a record's header.
_PCAP_MAGICS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 10**6, 16),
    b"\xd4\xc3\xb2\xa1": ("<", 10**6, 16),
    b"\xa1\xb2\x3c\x4d": (">", 10**9, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 10**9, 16),
    # "Kuznetzov's" patched libpcap: eight more bytes in each record's header.
    b"\xa1\xb2\xcd\x34": (">", 10**6, 24),
    b"\x34\xcd\xb2\xa1": ("<", 10**6, 24),
}

#: Longest frame that is believed; libpcap's own limit.
_MAX_FRAME_BYTES: Final = 262_144

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_OBSOLETE_PACKET: Final = 2
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14


class FileError(Exception):
    """A file, or a part of it, that cannot be used."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path}: offset {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


Report = Callable[[FileError], None]


@dataclass(frozen=True, slots=True)
class Frame:
    """A captured frame: where it stands in the file, when it was seen (ms), its link type."""

    offset: int
    time: int
    link_type: int
    data: bytes


def is_capture(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (four bytes or more) is a pcap or pcapng file."""
    return head[:4] == PCAPNG_MAGIC or head[:4] in _PCAP_MAGICS


def read_frames(path: Path, file: BinaryIO, report: Report) -> Iterator[Frame]:
    """All frames of a pcap or pcapng file that is open at its beginning.

    Damage that ends the file is given to ``report``; what stands before it is used.
    """
    head = file.read(4)
    file.seek(0)
    if head == PCAPNG_MAGIC:
        return _Pcapng(path, file, report).frames()
    return _pcap_frames(path, file, report)


def _pcap_frames(path: Path, file: BinaryIO, report: Report) -> Iterator[Frame]:
    header = file.read(24)
    order, fractions, record_bytes = _PCAP_MAGICS[header[:4]]
    if len(header) < 24:
        report(FileError(path, 0, "file ends within its header"))
        return
    # The upper bits of the link type tell about frame check sequences.
    link_type = struct.unpack_from(order + "I", header, 20)[0] & 0xFFFF
    record = struct.Struct(order + "IIII")
    offset = 24
    while head := file.read(record_bytes):
        if len(head) < record_bytes:
            report(FileError(path, offset, "file ends within a record's header"))
            return
        seconds, fraction, length, _ = record.unpack_from(head)
        if length > _MAX_FRAME_BYTES:
            report(FileError(path, offset, f"record of {length} bytes: the file is damaged"))
            return
        data = file.read(length)
        if len(data) < length:
            report(FileError(path, offset, "file ends within a record"))
            return
        yield Frame(offset, seconds * 1000 + fraction * 1000 // fractions, link_type, data)
        offset += record_bytes + length


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_length: int
    ticks_per_second: int
    seconds_offset: int


class _DamageError(Exception):
    """The block at hand makes no sense, so neither do those after it."""


class _Pcapng:
    """One pass over a pcapng file: its sections, interfaces and packet blocks."""

    def __init__(self, path: Path, file: BinaryIO, report: Report) -> None:
        self._path = path
        self._file = file
        self._report = report
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._time = 0

    def frames(self) -> Iterator[Frame]:
        offset = 0
        while head := self._file.read(8):
            try:
                kind, body = self._block(head)
                frame = self._interpret(offset, kind, body)
            except (_DamageError, struct.error) as error:
                self._report(FileError(self._path, offset, f"damaged pcapng block: {error}"))
                return
            if frame is not None:
                yield frame
            offset = self._file.tell()

    def _block(self, head: bytes) -> tuple[int, bytes]:
        """The type and the body of the next block; an empty body where it is of no use."""
        body = b""
        if head[:4] == PCAPNG_MAGIC:
            body = self._read(4)
            self._order = ">" if body == b"\x1a\x2b\x3c\x4d" else "<"
            self._interfaces = []
        if len(head) < 8:
            raise _DamageError("the file ends within it")
        kind, length = struct.unpack(self._order + "II", head)
        if length < 12 + len(body) or length % 4:
            raise _DamageError(f"length {length}")
        rest = length - 12 - len(body)
        if kind in (_INTERFACE, _OBSOLETE_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET):
            if length > 2 * _MAX_FRAME_BYTES:
                raise _DamageError(f"length {length}")
            body += self._read(rest)
        else:
            self._file.seek(rest, 1)
        if self._unpack("I", self._read(4)) != (length,):
            raise _DamageError("its two lengths differ")
        return kind, body

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise _DamageError("the file ends within it")
        return data

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, data)

    def _interpret(self, offset: int, kind: int, body: bytes) -> Frame | None:
        if kind == _INTERFACE:
            self._interfaces.append(self._interface(body))
            return None
        if kind == _SIMPLE_PACKET:
            (original,) = self._unpack("I", body)
            interface = self._known(0)
            length = min(original, interface.snap_length or original, len(body) - 4)
            # It has no time of its own: it gets that of the packet before it.
            return Frame(offset, self._time, interface.link_type, body[4 : 4 + length])
        if kind == _ENHANCED_PACKET:
            index, high, low, length, _ = self._unpack("IIIII", body)
        elif kind == _OBSOLETE_PACKET:
            index, _, high, low, length, _ = self._unpack("HHIIII", body)
        else:
            return None
        if length > len(body) - 20:
            raise _DamageError(f"packet of {length} bytes in a body of {len(body)}")
        interface = self._known(index)
        ticks = high << 32 | low
        self._time = (
            1000 * (interface.seconds_offset + ticks // interface.ticks_per_second)
            + 1000 * (ticks % interface.ticks_per_second) // interface.ticks_per_second
        )
        return Frame(offset, self._time, interface.link_type, body[20 : 20 + length])

    def _known(self, index: int) -> _Interface:
        if index >= len(self._interfaces):
            raise _DamageError(f"interface {index} is not described")
        return self._interfaces[index]

    def _interface(self, body: bytes) -> _Interface:
        link_type, _, snap_length = self._unpack("HHI", body)
        ticks, seconds = 10**6, 0
        position = 8
        while position + 4 <= len(body):
            code, length = self._unpack("HH", body[position : position + 4])
            value = body[position + 4 : position + 4 + length]
            if code == _OPTION_TSRESOL and value:
                exponent = value[0] & 0x7F
                ticks = 2**exponent if value[0] & 0x80 else 10**exponent
            elif code == _OPTION_TSOFFSET and len(value) == 8:
                (seconds,) = self._unpack("q", value)
            elif code == 0:
                break
            position += 4 + length + -length % 4
        return _Interface(link_type, snap_length, ticks, seconds)
