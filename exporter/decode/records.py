"""Where the records of data sets lie in a buffer, for fixed- and variable-length layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.layout import Layout, Window
from exporter.decode.packet import PADDING

Offsets = NDArray[np.int64]

#: Zero octets that follow the payloads in a buffer, so that reading a header never overruns it.
TAIL: Final = PADDING

#: Octets of segments that are gathered at a time, which a processor's second-level cache holds, and
#: segments (or sets of them) at least.
_CACHED_OCTETS: Final = 256 << 10
_FEWEST: Final = 128

#: Below this many sets at a time, parsing them one by one is cheaper than in lockstep.
_LOCKSTEP: Final = 6


@dataclass(slots=True)
class Records:
    """All records of one layout in some sets, row by row.

    Rows lie set by set, ``counts`` has how many each set has. ``windows`` holds one structured
    array per window of the layout; ``starts`` and ``ends`` bound each variable-length field in
    ``buffer``. ``malformed`` lists sets whose rest could not be parsed.
    """

    buffer: bytes | memoryview
    length: int
    windows: list[NDArray[Any]]
    counts: Offsets
    starts: list[Offsets] = field(default_factory=list)
    ends: list[Offsets] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.length

    @property
    def set_of(self) -> NDArray[np.intp]:
        """The set of each row."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def spread(self, per_set: NDArray[Any]) -> NDArray[Any]:
        """One value per row from one per set."""
        return per_set.repeat(self.counts, axis=0)


def locate(layout: Layout, buffer: bytes | memoryview, start: Offsets, length: Offsets) -> Records:
    """The records of sets of ``layout`` (at ``start``, of ``length`` octets) in ``buffer``.

    ``buffer`` ends in :data:`TAIL` octets that belong to no set. What remains of a set when less
    than a record is left is padding (RFC 3954 section 5.3, RFC 7011 section 3.3.1).
    """
    if layout.variable_fields:
        return _locate_variable(layout, buffer, start, start + length)
    size = layout.min_size
    counts = length // size
    total = int(counts.sum())
    if not total:
        return Records(buffer, 0, [], counts)
    parts = _whole_sets(buffer, start, counts, size)
    return Records(buffer, total, _shown(parts, total, size, layout.windows), counts)


def _shown(
    parts: Iterable[NDArray[Any]], count: int, size: int, windows: Sequence[Window]
) -> list[NDArray[Any]]:
    """What ``windows`` show of ``count`` segments of ``size`` octets, gathered part by part."""
    shown = [np.empty(count, f"V{window.dtype.itemsize}") for window in windows]
    at = 0
    for gathered in parts:
        few = len(gathered)
        for window, octets in zip(windows, shown, strict=True):
            octets[at : at + few] = np.ndarray(
                (few,), octets.dtype, gathered, window.start, (size,)
            )
        at += few
    return [octets.view(window.dtype) for window, octets in zip(windows, shown, strict=True)]


def _segments(buffer: bytes | memoryview, offsets: Offsets, size: int) -> Iterator[NDArray[Any]]:
    """Segments of ``size`` octets at any offsets, so many at a time as stay in the cache."""
    segments = np.ndarray((len(buffer) - size + 1,), f"V{size}", buffer, 0, (1,))
    step = max(_CACHED_OCTETS // size, _FEWEST)
    for at in range(0, len(offsets), step):
        yield segments[offsets[at : at + step]]


def _whole_sets(
    buffer: bytes | memoryview, start: Offsets, counts: Offsets, size: int
) -> Iterator[NDArray[Any]]:
    """The records of sets, ``counts`` of ``size`` octets in each, as :func:`_segments` has them.

    Neighbours of equally many records, as those of a busy device are, are copied set by set.
    """
    step = max(_CACHED_OCTETS // (size * int(counts.max())), _FEWEST)
    for at in range(0, len(start), step):
        begin, few = start[at : at + step], counts[at : at + step]
        most = int(few.max())
        if most and most == few.min():
            for sets in _segments(buffer, begin, most * size):
                yield sets.view(f"V{size}")
        else:
            behind = np.cumsum(few)
            offsets = np.repeat(begin - (behind - few) * size, few)
            offsets += np.arange(len(offsets)) * size
            yield from _segments(buffer, offsets, size)


def _locate_variable(
    layout: Layout, buffer: bytes | memoryview, start: Offsets, end: Offsets
) -> Records:
    parser = _VariableParser(buffer, layout.sizes, layout.min_size)
    parser.run(start, end)
    counts, columns = parser.columns(len(start))
    total = len(columns[0])
    if not total:
        return Records(buffer, 0, [], counts, malformed=parser.malformed)
    windows: list[NDArray[Any]] = []
    for segment, group in groupby(layout.windows, attrgetter("segment")):
        size = layout.sizes[segment]
        parts = _segments(buffer, columns[2 * segment], size)
        windows += _shown(parts, total, size, list(group))
    return Records(buffer, total, windows, counts, columns[1::2], columns[2::2], parser.malformed)


class _VariableParser:
    """Walks the records of many sets at once, since where one ends only the one before tells.

    A record's row is: start of segment 0, start of variable field 0, its end, where segment 1
    starts, start of variable field 1, and so on.
    """

    def __init__(self, buffer: bytes | memoryview, sizes: Sequence[int], min_size: int) -> None:
        self._buffer = buffer
        self._octets = np.frombuffer(buffer, np.uint8)
        self._sizes = sizes
        self._min_size = min_size
        # The sets of rows, and the rows: of each step one of each set, and of sets that were walked
        # alone after these steps all rest.
        self._owners: list[NDArray[np.intp]] = []
        self._rows: list[Sequence[Offsets]] = []
        self.malformed: list[int] = []

    def run(self, start: Offsets, end: Offsets) -> None:
        # The last octet at which a record may begin.
        last = end - self._min_size
        owner = np.flatnonzero(start <= last)
        position, end, last = start[owner], end[owner], last[owner]
        while len(owner) > _LOCKSTEP:
            row = self._record(position)
            position = row.pop()
            good = position <= end
            if np.count_nonzero(good) < len(good):
                self.malformed.extend(owner[~good].tolist())
                row = [column[good] for column in row]
            self._owners.append(owner if len(row[0]) == len(owner) else owner[good])
            self._rows.append(row)
            more = position <= last  # none where the record was malformed
            if np.count_nonzero(more) < len(more):
                owner, position, end, last = owner[more], position[more], end[more], last[more]
        for number, begin, stop in zip(
            owner.tolist(), position.tolist(), end.tolist(), strict=True
        ):
            self._scalar(number, begin, stop)

    def columns(self, sets: int) -> tuple[Offsets, list[Offsets]]:
        """How many records each of the sets has, and the rows set by set, one array per value.

        What lies together in the buffer is read together then, which caches reward.
        """
        if not self._rows:
            return np.zeros(sets, np.int64), [np.zeros(0, np.int64)] * (2 * len(self._sizes) - 1)
        owner = np.concatenate(self._owners)
        # Small numbers are sorted without comparing them.
        order = owner.astype(np.min_scalar_type(sets)).argsort(kind="stable")
        columns = [np.concatenate(values).take(order) for values in zip(*self._rows, strict=True)]
        return np.bincount(owner, minlength=sets), columns

    def _record(self, position: Offsets) -> list[Offsets]:
        """A row for the record at each ``position``, and where it ends."""
        octets = self._octets
        row = [position]
        if self._sizes[0]:
            position = position + self._sizes[0]
        for size in self._sizes[1:]:
            # A malformed record may lead out of the buffer: what is read there does not matter.
            length = octets.take(position, mode="clip")
            begin = position + 1
            if b"\xff" in length.tobytes():
                long = length == 255
                wide = octets.take(begin, mode="clip").astype(np.int64) << 8
                wide |= octets.take(begin + 1, mode="clip")
                length = np.where(long, wide, length)
                begin += 2 * long
            position = begin + length
            row += (begin, position)
            if size:
                position = position + size
        row.append(position)
        return row

    def _scalar(self, number: int, position: int, end: int) -> None:
        """All records of one set."""
        buffer = self._buffer
        sizes = self._sizes
        rows: list[list[int]] = []
        while end - position >= self._min_size:
            row = [position]
            for size in sizes[:-1]:
                position += size
                if position >= end:
                    break
                length = buffer[position]
                position += 1
                if length == 255:
                    length = buffer[position] << 8 | buffer[position + 1]
                    position += 2
                row.append(position)
                position += length
                row.append(position)
            else:
                position += sizes[-1]
                if position <= end:
                    rows.append(row)
                    continue
            self.malformed.append(number)
            break
        if rows:
            self._owners.append(np.full(len(rows), number))
            self._rows.append(list(np.array(rows, np.int64).T))
