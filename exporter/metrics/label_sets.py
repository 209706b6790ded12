"""The label sets of one traffic counter, a bounded number, and what was counted for each.

Where more come than there is room for, small ones make room for larger ones: once an hour those
that grew least, a quarter at most, leave. What they count from then on counts as ``other``, while
they can still be scraped for some minutes, so nothing is lost to whoever adds up rates; then they
are gone, and what comes next, the heaviest first, has their places.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric

from exporter.batch import Array
from exporter.config import Counter
from exporter.distinct import distinct
from exporter.key_index import KeyIndex
from exporter.metrics.exposition import SeriesFamily, escape
from exporter.metrics.labels import Factored, LabelColumn

#: The label value of everything that found no room in ``max_series``.
OTHER: Final = "other"

#: From one time that label sets make room to the next; how long those that leave can be scraped.
TURN_SECONDS: Final = 3_600.0
LEAVE_SECONDS: Final = 300.0
#: One in so many leaves at most.
_STAYING: Final = 4

#: Sets of values that are known at most, for each set of labels that there may be.
_KEYS_PER_SERIES: Final = 2

_LOW: Final = np.uint64(0xFFFF_FFFF)
_SHIFT: Final = np.uint64(32)

_MEASURES: Final = {
    "bytes": "Bytes of the flows, as estimated from sampling",
    "packets": "Packets of the flows, as estimated from sampling",
    "flows": "Flow records",
}


class LabelSets:
    """One counter. Series 0 is ``other``; the rest stand in order of their appearance.

    ``now`` is of a clock that nobody sets, in seconds. Whoever calls holds ``lock``; when a scrape
    has ended, it is taken here.
    """

    def __init__(
        self, counter: Counter, columns: dict[str, LabelColumn], now: float, lock: threading.Lock
    ) -> None:
        self._lock = lock
        self.name = counter.name
        self.limit = counter.max_series
        self._label_names = counter.labels
        self._columns = [columns[name] for name in counter.labels]
        #: Numbers of keys, and by number the key of each label and the series; number 0 is of what
        #: is not there.
        self._index = self._new_index()
        self._keys = np.zeros((1, len(counter.labels)), np.uint64)
        self._series = np.array([-1], np.intp)
        self._labels: list[tuple[str, ...]] = []
        self._by_labels: dict[tuple[str, ...], int] = {}
        self._prefixes: dict[str, list[str]] = {measure: [] for measure in _MEASURES}
        # Sums as two halves of 32 bits, the high one with room to grow: exact for any input.
        self._low = np.zeros((len(_MEASURES), counter.max_series + 1), np.uint64)
        self._high = np.zeros_like(self._low)
        self._announced = 0
        #: Label sets that made room so far, and those that are about to.
        self.replaced = 0
        self._leaving: NDArray[np.intp] | None = None
        self._refused = False
        self._before: NDArray[np.float64] = np.zeros(0)
        self._turn_at = now + TURN_SECONDS
        self._append(tuple(OTHER for _ in counter.labels))

    @property
    def size(self) -> int:
        """Series, ``other`` not included."""
        return len(self._labels) - 1

    def add(
        self, length: int, factored: dict[str, Factored], measured: list[Array], wide: list[bool]
    ) -> None:
        """Adds one batch: ``measured`` is bytes and packets, ``wide`` where a sum may overflow."""
        columns = [factored[name] for name in self._label_names]
        groups, size = _group(columns, length)
        flows = np.bincount(groups, minlength=size).astype(np.uint64)
        sums = [_sum(groups, size, *pair) for pair in zip(measured, wide, strict=True)]
        sums.append((flows, np.zeros_like(flows)))
        present = np.flatnonzero(flows)
        row = np.empty(size, np.intp)
        row[groups] = np.arange(length)
        low, high = sums[0]
        weights = high[present].astype(np.float64) * 2.0**32 + low[present]
        series = self._find(columns, row[present], weights)
        for measure, (low, high) in enumerate(sums):
            np.add.at(self._low[measure], series, low[present])
            np.add.at(self._high[measure], series, high[present])
            self._high[measure, series] += self._low[measure, series] >> _SHIFT
            self._low[measure, series] &= _LOW

    def _find(
        self, columns: list[Factored], rows: NDArray[np.intp], weights: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """The series of each group; ``rows`` has one row of each. Heavy groups come in first."""
        codes = [
            np.zeros(len(rows), np.uint64)
            if column.codes is None
            else column.codes[rows].astype(np.uint64)
            for column in columns
        ]
        keys = [
            own if column.keys is None else column.keys.take(own)
            for column, own in zip(columns, codes, strict=True)
        ]
        series = self._series.take(self._index.find(keys))
        if len(self._labels) <= self.limit:
            missing = np.flatnonzero(series < 0)
            heaviest = missing[np.argsort(weights[missing], kind="stable")[::-1]]
            self._admit(columns, codes, heaviest, series)
        self._refused = self._refused or bool((series < 0).any())
        return np.maximum(series, 0)

    def _admit(
        self,
        columns: list[Factored],
        codes: list[NDArray[np.uint64]],
        groups: NDArray[np.intp],
        series: NDArray[np.intp],
    ) -> None:
        """Give these groups a series, into ``series``, as long as there is room."""
        keys: list[list[int]] = []
        # Texts that are alike as far as labels go share a series: of these there is no end.
        room = max(0, _KEYS_PER_SERIES * self.limit - len(self._index))
        for group in groups[:room].tolist():
            if len(self._labels) > self.limit:
                break
            key = [
                column.remember(values, int(own[group]))
                for column, values, own in zip(self._columns, columns, codes, strict=True)
            ]
            named = zip(self._columns, key, strict=True)
            labels = tuple(column.label(part) for column, part in named)
            found = self._by_labels.get(labels)
            series[group] = self._append(labels) if found is None else found
            keys.append(key)
        numbers = np.arange(len(self._series), len(self._series) + len(keys), dtype=np.uint32)
        added = np.array(keys, np.uint64).reshape(-1, len(columns))
        self._index.add(list(added.T), numbers)
        self._keys = np.concatenate((self._keys, added))
        self._series = np.append(self._series, series[groups[: len(keys)]])

    def _append(self, labels: tuple[str, ...]) -> int:
        inner = ",".join(
            f'{name}="{escape(value)}"'
            for name, value in zip(self._label_names, labels, strict=True)
        )
        for measure, prefixes in self._prefixes.items():
            prefixes.append(f"flow_{self.name}_{measure}_total{{{inner}}} ")
        self._by_labels[labels] = len(self._labels)
        self._labels.append(labels)
        return len(self._labels) - 1

    def renew(self, now: float) -> bool:
        """Let small label sets make room where others found none; whether some have gone.

        Only what was scraped leaves: of the others nobody would know what they had.
        """
        if now < self._turn_at:
            return False
        if self._leaving is not None:
            self._drop(self._leaving)
            self._leaving, self._refused = None, False
            self._turn_at = now + TURN_SECONDS - LEAVE_SECONDS
            return True
        size = len(self._labels)
        counted = (self._high[0, :size] * 2.0**32 + self._low[0, :size]).astype(np.float64)
        grown = counted.copy()
        grown[: len(self._before)] -= self._before
        self._before = counted
        self._turn_at = now + TURN_SECONDS
        known = grown[1 : self._announced]
        if self._refused and len(known):
            most = max(self.limit // _STAYING, 1)
            self._leaving = 1 + np.argsort(known, kind="stable")[:most]
            self._series[np.isin(self._series, self._leaving)] = 0
            self._turn_at = now + LEAVE_SECONDS
        self._refused = False
        return False

    def _drop(self, leaving: NDArray[np.intp]) -> None:
        """Forget these series and all keys that have none of their own.

        What a scrape may be reading is left as it is.
        """
        kept = np.ones(len(self._labels), np.bool_)
        kept[leaving] = False
        place = np.cumsum(kept) - 1
        rows = np.flatnonzero(kept)
        self._labels = [self._labels[row] for row in rows]
        self._by_labels = {labels: number for number, labels in enumerate(self._labels)}
        self._prefixes = {
            measure: [prefixes[row] for row in rows] for measure, prefixes in self._prefixes.items()
        }
        for sums in (self._low, self._high):
            sums[:, : len(rows)] = sums[:, rows]
            sums[:, len(rows) :] = 0
        self._before = self._before[kept[: len(self._before)]]
        self._announced -= len(leaving)
        self.replaced += len(leaving)
        numbers = np.flatnonzero(self._series > 0)
        self._keys = np.concatenate((self._keys[:1], self._keys[numbers]))
        self._series = np.append(self._series[:1], place[self._series[numbers]])
        self._index = self._new_index()
        self._index.add(list(self._keys[1:].T), np.arange(1, len(self._keys), dtype=np.uint32))

    def _new_index(self) -> KeyIndex:
        return KeyIndex(*[np.uint64] * len(self._label_names))

    def used_keys(self) -> Iterable[tuple[str, set[int]]]:
        """Each label and the keys of it that series have."""
        for name, keys in zip(self._label_names, self._keys[1:].T, strict=True):
            yield name, set(keys.tolist())

    def describe(self) -> Iterable[Metric]:
        """Names only."""
        for measure, text in _MEASURES.items():
            yield Metric(f"flow_{self.name}_{measure}", self._help(text), "counter")

    def collect(self) -> Iterable[Metric]:
        """A family for each measure."""
        size = len(self._labels)
        for index, (measure, text) in enumerate(_MEASURES.items()):
            high = self._high[index, :size].tolist()
            low = self._low[index, :size].tolist()
            yield SeriesFamily(
                f"flow_{self.name}_{measure}",
                self._help(text),
                self._label_names,
                self._labels,
                self._prefixes[measure],
                [(h << 32) + part for h, part in zip(high, low, strict=True)],
                self._announced,
                partial(self._scraped, self.replaced, size),
            )

    def _help(self, text: str) -> str:
        return f"{text}, by {', '.join(self._label_names)}."

    def _scraped(self, replaced: int, size: int) -> None:
        with self._lock:
            if replaced == self.replaced:  # else places are not what they were
                self._announced = max(self._announced, size)


def _group(columns: list[Factored], length: int) -> tuple[Array, int]:
    """A number below the returned size for each row, equal where all columns are equal."""
    key: Array | None = None
    size = 1
    for column in columns:
        if column.codes is None:
            continue
        if key is None:
            key, size = column.codes, column.size
            continue
        if size * column.size > 2**63:
            key, uniques = distinct(key)
            size = len(uniques)
        codes, factor = column.codes, column.size
        if size * factor > 2**63:
            codes, uniques = distinct(codes)
            factor = len(uniques)
        size *= factor
        key = key.astype(np.uint64) * np.uint64(factor) + codes.astype(np.uint64)
    if key is None:
        return np.zeros(length, np.intp), 1
    if size > max(4096, 2 * length):
        key, uniques = distinct(key)
        size = len(uniques)
    return key.astype(np.intp), size


def _sum(
    groups: Array, size: int, values: Array, wide: bool
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Sums per group as low and high halves; ``wide``: they may not fit 64 bits."""
    low = np.zeros(size, np.uint64)
    if not wide:
        np.add.at(low, groups, values)
        return low & _LOW, low >> _SHIFT
    high = np.zeros(size, np.uint64)
    np.add.at(low, groups, values & _LOW)
    np.add.at(high, groups, values >> _SHIFT)
    return low & _LOW, high + (low >> _SHIFT)
