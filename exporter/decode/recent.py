"""The last datagrams, to tell a datagram that came twice from one that only looks out of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.decode.devices import Stream
from exporter.decode.grouping import ByStream
from exporter.decode.records import Offsets

#: Octets of datagrams that are kept, and batches of them.
MAX_BYTES: Final = 32 << 20
MAX_BATCHES: Final = 64
#: Datagrams of a batch that are compared; more than these pass unchecked.
MAX_CHECKS: Final = 32
#: A sequence number is in order up to this far ahead of the one before, where it counts
#: datagrams, and where it counts records.
DATAGRAMS_AHEAD: Final = 1
RECORDS_AHEAD: Final = 4_096


class Numbered(NamedTuple):
    """Datagrams of one protocol: where they lie in ``buffer``, sequence numbers and streams.

    ``stream`` points into the streams, ``ahead`` is how far a number in order is ahead.
    """

    buffer: memoryview
    start: Offsets
    length: Offsets
    sequence: Offsets
    stream: NDArray[np.intp]
    ahead: int


class _Kept(NamedTuple):
    buffer: memoryview
    streams: NDArray[np.int64]
    sequence: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]


class RecentDatagrams:
    """Finds datagrams that are, octet by octet, repeated.

    Only a datagram whose sequence number is not just ahead of the one before is compared, so
    streams in order cost nothing.
    """

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._bytes = 0

    def repeated(
        self, datagrams: Numbered, streams: Sequence[Stream], groups: ByStream
    ) -> NDArray[np.bool_]:
        """Which of the datagrams came before; they are kept to compare later ones with.

        They are counted in ``duplicates`` of their streams.
        """
        buffer, start, length, sequence, stream, _ = datagrams
        ids = np.array([id(s) for s in streams], np.int64)[stream]
        self._keep(_Kept(buffer, ids, sequence, start, length))
        repeated = np.zeros(len(sequence), np.bool_)
        order = groups.order
        suspects = self._suspects(datagrams, groups, streams)
        checks = 0
        while suspects and checks < MAX_CHECKS:
            place = suspects.pop()
            row = int(order[place])
            if repeated[row]:
                continue
            checks += 1
            repeated[row] = self._known(row, ids[row])
            # What follows a repeated datagram may only look in order.
            if repeated[row] and place + 1 < len(order) and ids[order[place + 1]] == ids[row]:
                suspects.append(place + 1)
        if not repeated.any():
            self._remember(sequence, order[groups.last], groups.numbers, streams)
            return repeated
        fresh = order[~repeated[order]]
        last = fresh[np.flatnonzero(np.diff(stream[fresh], append=-1))]
        self._remember(sequence, last, stream[last].tolist(), streams)
        for number in stream[repeated].tolist():
            streams[number].duplicates += 1
        return repeated

    def _remember(
        self, sequence: Offsets, last: NDArray[np.intp], numbers: Sequence[int],
        streams: Sequence[Stream],
    ) -> None:  # fmt: skip
        """The sequence numbers of the last datagram of each stream."""
        for number, known in zip(numbers, sequence[last].tolist(), strict=True):
            streams[number].last_sequence = known

    def _suspects(
        self, datagrams: Numbered, groups: ByStream, streams: Sequence[Stream]
    ) -> list[int]:
        """Places in the order of ``groups`` that are not just ahead of the one before."""
        sequence = groups.sort(datagrams.sequence).astype(np.uint32)
        before = np.empty_like(sequence)
        before[1:] = sequence[:-1]
        known = np.array([streams[number].last_sequence for number in groups.numbers], np.int64)
        before[groups.first] = known.astype(np.uint32)
        ahead = sequence - before
        odd = ahead - np.uint32(1) >= datagrams.ahead  # so is 0, which wraps
        odd[groups.first[known < 0]] = False
        found = np.flatnonzero(odd)
        if len(found):
            # IPFIX templates share the sequence number of the records behind them. What differs in
            # length from the one datagram that it could repeat is no repeated one.
            length = groups.sort(datagrams.length)
            plain = (ahead[found] == 0) & ~odd[found - 1] & (length[found] != length[found - 1])
            found = found[~plain | np.isin(found, groups.first)]
        places: list[int] = found[::-1].tolist()
        return places

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._bytes += len(kept.buffer)
        while len(self._kept) > 1 and (self._bytes > MAX_BYTES or len(self._kept) > MAX_BATCHES):
            self._bytes -= len(self._kept.popleft().buffer)

    def _known(self, row: int, stream: int) -> bool:
        mine = self._kept[-1]
        start, length = int(mine.start[row]), int(mine.length[row])
        octets = mine.buffer[start : start + length]
        sequence = mine.sequence[row]
        for kept in reversed(self._kept):
            rows = np.flatnonzero(kept.sequence == sequence)
            if kept is mine:
                rows = rows[rows < row]
            if not len(rows):
                continue
            rows = rows[(kept.streams[rows] == stream) & (kept.length[rows] == length)]
            for at in kept.start[rows[-4:]].tolist():
                if kept.buffer[at : at + length] == octets:
                    return True
        return False
