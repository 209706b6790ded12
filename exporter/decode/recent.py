"""The last datagrams, to tell a datagram that came twice from one that only looks out of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporter.decode.datagrams import Datagrams
from exporter.decode.grouping import ByStream
from exporter.decode.state import Stream
from exporter.schema import Source

#: Octets of datagrams that are kept, and batches of them.
MAX_BYTES: Final = 16 << 20
MAX_BATCHES: Final = 64
#: Datagrams of a batch that are compared; more than these pass unchecked.
MAX_CHECKS: Final = 32
#: A sequence number that counts records is in order up to this far ahead of the one before.
_RECORDS_AHEAD: Final = 4_096


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
        self, buffer: memoryview, datagrams: Datagrams, stream: NDArray[np.intp],
        streams: Sequence[Stream], groups: ByStream,
    ) -> NDArray[np.bool_]:  # fmt: skip
        """Which of the datagrams came before; they are kept to compare later ones with."""
        ids = np.array([id(s) for s in streams], np.int64)[stream]
        length = datagrams.end - datagrams.start
        self._keep(_Kept(buffer, ids, datagrams.sequence, datagrams.start, length))
        repeated = np.zeros(len(datagrams), np.bool_)
        order = groups.order
        suspects = self._suspects(datagrams, groups, streams)
        if not suspects:
            self._remember(datagrams, order[groups.last], groups.numbers, streams)
            return repeated
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
        fresh = order[~repeated[order]]
        last = fresh[np.flatnonzero(np.diff(stream[fresh], append=-1))]
        self._remember(datagrams, last, stream[last].tolist(), streams)
        return repeated

    def _remember(
        self, datagrams: Datagrams, last: NDArray[np.intp], numbers: Sequence[int],
        streams: Sequence[Stream],
    ) -> None:  # fmt: skip
        """The sequence numbers of the last datagram of each stream."""
        for number, sequence in zip(numbers, datagrams.sequence[last].tolist(), strict=True):
            streams[number].last_sequence = sequence

    def _suspects(
        self, datagrams: Datagrams, groups: ByStream, streams: Sequence[Stream]
    ) -> list[int]:
        """Places in the order of ``groups`` that are not just ahead of the one before."""
        sequence = datagrams.sequence[groups.order]
        before = np.empty_like(sequence)
        before[1:] = sequence[:-1]
        before[groups.first] = [streams[number].last_sequence for number in groups.numbers]
        ahead = (sequence - before) & 0xFFFFFFFF
        most = 1 if datagrams.source is Source.NETFLOW9 else _RECORDS_AHEAD
        odd = ((ahead == 0) | (ahead > most)) & (before >= 0)
        found: list[int] = np.flatnonzero(odd)[::-1].tolist()
        return found

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
