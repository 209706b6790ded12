"""Datagrams of a batch as columns: headers and sets found for all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.records import Offsets
from exporter.decode.templates import FIRST_TEMPLATE
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import Source

#: Datagram headers (Cisco, NetFlow v5 export format; RFC 3954 section 5.1; RFC 7011 section 3.1).
_HEADERS: Final[dict[Source, np.dtype[Any]]] = {
    Source.NETFLOW5: np.dtype(
        [("version", ">u2"), ("count", ">u2"), ("uptime", ">u4"), ("seconds", ">u4"),
         ("nanoseconds", ">u4"), ("sequence", ">u4"), ("engine", ">u2"), ("sampling", ">u2")]
    ),
    Source.NETFLOW9: np.dtype(
        [("version", ">u2"), ("count", ">u2"), ("uptime", ">u4"), ("seconds", ">u4"),
         ("sequence", ">u4"), ("domain", ">u4")]
    ),
    Source.IPFIX: np.dtype(
        [("version", ">u2"), ("length", ">u2"), ("seconds", ">u4"), ("sequence", ">u4"),
         ("domain", ">u4")]
    ),
}  # fmt: skip

#: Below this many datagrams at a time, walking their sets one by one is cheaper.
_LOCKSTEP: Final = 4


class Batch:
    """Payloads in one buffer, with what is told about each."""

    def __init__(self, batch: DatagramBatch) -> None:
        self.buffer = batch.buffer.data
        self.length = batch.lengths
        self.start = batch.starts
        self.received = batch.time_received
        self.senders = np.ascontiguousarray(batch.senders)
        words = np.ndarray((len(self.buffer) - 3,), ">u4", self.buffer, 0, (1,))
        #: The first four octets; of shorter datagrams nothing.
        self.opening = np.where(self.length >= 4, words[self.start].astype(np.int64), 0)


@dataclass(slots=True)
class Datagrams:
    """Datagrams of one protocol: ``index`` in the batch, where they lie, and their headers.

    ``uptime`` is below 0 in IPFIX, ``body`` is where sets (or records) begin.
    """

    source: Source
    index: Offsets
    start: Offsets
    end: Offsets
    body: Offsets
    header: NDArray[Any]
    received: Offsets
    exported: Offsets
    uptime: Offsets
    sequence: Offsets
    domain: Offsets

    def __len__(self) -> int:
        return len(self.index)

    def take(self, rows: NDArray[Any]) -> Datagrams:
        """The datagrams that an index or a mask selects."""
        return Datagrams(
            self.source,
            *(
                getattr(self, name)[rows]
                for name in (
                    "index", "start", "end", "body", "header", "received", "exported", "uptime",
                    "sequence", "domain",
                )
            ),
        )  # fmt: skip


def header_size(source: Source) -> int:
    """Octets of a datagram's header."""
    return _HEADERS[source].itemsize


def read_headers(batch: Batch, source: Source, index: Offsets) -> Datagrams:
    """The headers of the datagrams at ``index``, all long enough to have one."""
    dtype = _HEADERS[source]
    start = batch.start[index]
    size = dtype.itemsize
    pieces = np.ndarray((len(batch.buffer) - size + 1,), f"V{size}", batch.buffer, 0, (1,))
    header = pieces[start].view(dtype)
    exported = header["seconds"].astype(np.int64) * 1000
    uptime = np.full(len(index), -1, np.int64)
    if source is Source.NETFLOW5:
        exported += np.minimum(header["nanoseconds"].astype(np.int64) // 1_000_000, 999)
        domain = header["engine"]
    else:
        domain = header["domain"]
    if source is not Source.IPFIX:
        uptime = header["uptime"].astype(np.int64)
    return Datagrams(
        source, index, start, start + batch.length[index], start + size, header,
        batch.received[index], exported, uptime, header["sequence"].astype(np.int64),
        domain.astype(np.int64),
    )  # fmt: skip


@dataclass(slots=True)
class Sets:
    """Sets of datagrams: number, body, and the datagram (a row of :class:`Datagrams`).

    ``malformed`` are rows of datagrams whose rest could not be walked, and where that begins.
    """

    number: Offsets
    start: Offsets
    length: Offsets
    datagram: Offsets
    malformed: list[tuple[int, int]]


def walk_sets(buffer: memoryview, body: Offsets, end: Offsets, limit: Offsets) -> Sets:
    """All sets of all datagrams, of which each begins before ``end`` and ends before ``limit``.

    Zeros after the last set are filling, which some devices send.
    """
    walker = _Walker(buffer)
    walker.run(body, end, limit)
    if walker.parts:
        columns = [np.concatenate(column) for column in zip(*walker.parts, strict=True)]
    else:
        columns = [np.zeros(0, np.int64)] * 4
    number, start, length, datagram = columns
    return Sets(number, start, length, datagram, walker.malformed)


class _Walker:
    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._pairs = np.ndarray((len(buffer) - 1,), ">u2", buffer, 0, (1,))
        self.parts: list[list[Offsets]] = []
        self.malformed: list[tuple[int, int]] = []

    def run(self, body: Offsets, end: Offsets, limit: Offsets) -> None:
        at = body.copy()
        active = np.flatnonzero(end - at >= 4)
        while len(active) > _LOCKSTEP:
            active = self._step(active, at, end, limit)
        for datagram in active.tolist():
            self._scalar(datagram, int(at[datagram]), int(end[datagram]), int(limit[datagram]))

    def _step(
        self, active: NDArray[np.intp], at: Offsets, end: Offsets, limit: Offsets
    ) -> NDArray[np.intp]:
        """One set of each active datagram; gives the datagrams that may have more."""
        here = at[active]
        number = self._pairs[here].astype(np.int64)
        length = self._pairs[here + 2].astype(np.int64)
        good = (length >= 4) & (here + length <= limit[active])
        if not good.all():
            bad = ~good & ((number != 0) | (length != 0))
            self.malformed.extend(zip(active[bad].tolist(), here[bad].tolist(), strict=True))
            active, here, number, length = active[good], here[good], number[good], length[good]
        self.parts.append([number, here + 4, length - 4, active])
        at[active] = here + length
        return active[end[active] - at[active] >= 4]

    def _scalar(self, datagram: int, at: int, end: int, limit: int) -> None:
        """All sets of one datagram."""
        buffer = self._buffer
        rows = []
        while end - at >= 4:
            number = buffer[at] << 8 | buffer[at + 1]
            length = buffer[at + 2] << 8 | buffer[at + 3]
            if length < 4 or at + length > limit:
                if number or length:
                    self.malformed.append((datagram, at))
                break
            rows.append((number, at + 4, length - 4, datagram))
            at += length
        if rows:
            self.parts.append(list(np.array(rows, np.int64).T))


def is_template_set(source: Source, number: int) -> bool:
    """Whether sets of this number define templates."""
    return number in ((0, 1) if source is Source.NETFLOW9 else (2, 3))


def is_data_set(number: Offsets) -> NDArray[np.bool_]:
    """Which sets hold records."""
    data: NDArray[np.bool_] = number >= FIRST_TEMPLATE
    return data
