"""Datagrams of a batch as columns: headers and sets found for all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.gather import rows_at
from exporter.decode.records import Offsets
from exporter.decode.templates import FIRST_TEMPLATE
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import Source

_SET: Final = [("set_number", ">u2"), ("set_length", ">u2")]
#: What datagrams begin with: headers (Cisco, NetFlow v5 export format; RFC 3954 section 5.1;
#: RFC 7011 section 3.1) and, of protocols that have sets, that of the first one.
_HEADS: Final[dict[Source, np.dtype[Any]]] = {
    Source.NETFLOW5: np.dtype(
        [("version", ">u2"), ("count", ">u2"), ("uptime", ">u4"), ("seconds", ">u4"),
         ("nanoseconds", ">u4"), ("sequence", ">u4"), ("engine", ">u2"), ("sampling", ">u2")]
    ),
    Source.NETFLOW9: np.dtype(
        [("version", ">u2"), ("count", ">u2"), ("uptime", ">u4"), ("seconds", ">u4"),
         ("sequence", ">u4"), ("domain", ">u4"), *_SET]
    ),
    Source.IPFIX: np.dtype(
        [("version", ">u2"), ("length", ">u2"), ("seconds", ">u4"), ("sequence", ">u4"),
         ("domain", ">u4"), *_SET, ("rest", "V4")]
    ),
}  # fmt: skip
_HEADER_SIZES: Final = {Source.NETFLOW5: 24, Source.NETFLOW9: 20, Source.IPFIX: 16}
_OPENING: Final = np.dtype([("opening", ">u4"), ("rest", "V20")])

_SFLOW5: Final = 5  # sFlow has its version in four octets, where NetFlow v5 has it in two
#: Stands for sFlow's version.
SFLOW: Final = -1

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
        self.shortest = int(self.length.min())
        # One look at each datagram for all that its head tells: the first one waits for memory.
        self.heads = rows_at(batch.buffer, self.start, np.dtype("V24"))

    @property
    def versions(self) -> Offsets:
        """Versions of the datagrams' protocols; :data:`SFLOW` for sFlow v5, 0 without any."""
        opening = self.heads.view(_OPENING)["opening"].astype(np.int64)
        versions = opening >> 16
        if self.shortest >= 4 and versions.all():
            return versions
        opening[self.length < 4] = 0
        return np.where(opening == _SFLOW5, SFLOW, opening >> 16)


@dataclass(slots=True)
class Datagrams:
    """Datagrams of one protocol: ``index`` in the batch, where they lie, and what they begin with.

    ``uptime`` is below 0 in IPFIX, ``body`` is where sets (or records) begin.
    """

    source: Source
    index: Offsets
    start: Offsets
    end: Offsets
    body: Offsets
    heads: NDArray[Any]
    received: Offsets
    exported: Offsets
    uptime: Offsets
    sequence: Offsets
    domain: Offsets

    def __len__(self) -> int:
        return len(self.index)

    @property
    def header(self) -> NDArray[Any]:
        """What datagrams begin with, by the names of the fields.

        ``set_number`` and ``set_length`` are of the first set, where a datagram has room for one.
        """
        return self.heads.view(_HEADS[self.source])

    def take(self, rows: NDArray[Any]) -> Datagrams:
        """The datagrams that an index or a mask selects."""
        return Datagrams(
            self.source,
            *(
                getattr(self, name)[rows]
                for name in (
                    "index", "start", "end", "body", "heads", "received", "exported", "uptime",
                    "sequence", "domain",
                )
            ),
        )  # fmt: skip


def header_size(source: Source) -> int:
    """Octets of a datagram's header."""
    return _HEADER_SIZES[source]


def read_headers(batch: Batch, source: Source, index: Offsets) -> Datagrams:
    """The headers of the datagrams at ``index``, all long enough to have one."""
    start, length, heads, received = (
        of_all(column, index) for column in (batch.start, batch.length, batch.heads, batch.received)
    )
    header = heads.view(_HEADS[source])
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
        source, index, start, start + length, start + header_size(source), heads,
        received, exported, uptime, header["sequence"].astype(np.int64), domain.astype(np.int64),
    )  # fmt: skip


def of_all(column: NDArray[Any], index: Offsets) -> NDArray[Any]:
    """A column of a batch at ``index``, which ascends: without a copy where that is all of it."""
    return column if len(index) == len(column) else column[index]


@dataclass(slots=True)
class Sets:
    """Sets of datagrams: number, body, and the datagram (a row of :class:`Datagrams`).

    ``malformed`` are rows of datagrams whose rest could not be walked, and where that begins.
    ``single``: each datagram has one set.
    """

    number: Offsets
    start: Offsets
    length: Offsets
    datagram: Offsets
    malformed: list[tuple[int, int]]
    single: bool

    def spread(self, per_datagram: NDArray[Any]) -> NDArray[Any]:
        """One value per set from one per datagram."""
        return per_datagram if self.single else per_datagram[self.datagram]


def walk_sets(buffer: memoryview, datagrams: Datagrams, end: Offsets) -> Sets:
    """All sets of all datagrams; each begins before ``end`` and ends with its datagram or before.

    Zeros after the last set are filling, which some devices send.
    """
    body, limit = datagrams.body, datagrams.end
    length = datagrams.header["set_length"].astype(np.int64)
    behind = body + length
    walker = _Walker(buffer)
    whole = (length >= 4) & (behind <= limit) & (end - body >= 4)
    if len(body) > _LOCKSTEP and whole.all():
        number = datagrams.header["set_number"].astype(np.int64)
        walker.parts.append([number, body + 4, length - 4, np.arange(len(body))])
        walker.run(behind, end, limit)
        single = len(walker.parts) == 1
    else:
        walker.run(body.copy(), end, limit)
        single = False
    number, start, length, datagram = walker.parts[0] if single else walker.columns()
    return Sets(number, start, length, datagram, walker.malformed, single)


class _Walker:
    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._pairs = np.ndarray((len(buffer) - 1,), ">u2", buffer, 0, (1,))
        self.parts: list[list[Offsets]] = []
        self.malformed: list[tuple[int, int]] = []

    def columns(self) -> list[Offsets]:
        """Number, start and length of the body, and datagram of all sets."""
        if not self.parts:
            return [np.zeros(0, np.int64)] * 4
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]

    def run(self, at: Offsets, end: Offsets, limit: Offsets) -> None:
        """Walk from ``at`` on, which moves along."""
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
