"""Traffic counters: bytes, packets and flows by the label columns of each ``counters:`` entry."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.batch import Array, FlowBatch
from exporter.config import Counter
from exporter.distinct import distinct
from exporter.key_index import KeyIndex
from exporter.metrics.exposition import SeriesFamily, escape
from exporter.metrics.labels import Factored, LabelColumn

#: The label value of everything that found no room in ``max_series``.
OTHER = "other"

#: Sets of values that are known at most, for each set of labels that there may be.
_KEYS_PER_SERIES = 2

_LOW = np.uint64(0xFFFF_FFFF)
_SHIFT = np.uint64(32)

_MEASURES = {
    "bytes": "Bytes of the flows, as estimated from sampling",
    "packets": "Packets of the flows, as estimated from sampling",
    "flows": "Flow records",
}


class TrafficCounters(Collector):
    """All counters of the configuration. ``add`` and ``collect`` may run in different threads."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._columns = {
            label: LabelColumn(label) for counter in counters for label in counter.labels
        }
        self._counters = [_Counter(counter, self._columns) for counter in counters]
        self._lock = threading.Lock()

    def add(self, batch: FlowBatch) -> None:
        """Counts each flow of the batch once in every counter."""
        if not len(batch):
            return
        factored = {name: column.factor(batch) for name, column in self._columns.items()}
        measured = [batch.array("bytes"), batch.array("packets")]
        wide = [len(batch) * int(values.max()) >= 2**64 for values in measured]
        with self._lock:
            for counter in self._counters:
                counter.add(len(batch), factored, measured, wide)

    def describe(self) -> Iterable[Metric]:
        """Names only: describing must not take part in collecting."""
        for counter in self._counters:
            yield from counter.describe()
        yield from _limits([])

    def collect(self) -> Iterable[Metric]:
        """Three families per counter, and how full each counter is."""
        with self._lock:
            families = [family for counter in self._counters for family in counter.collect()]
            sizes = [(counter.name, counter.size, counter.limit) for counter in self._counters]
        yield from families
        yield from _limits(sizes)


def _limits(sizes: list[tuple[str, int, int]]) -> Iterable[Metric]:
    series = GaugeMetricFamily(
        "flow_exporter_traffic_label_sets",
        "Label sets of a traffic counter, the remainder `other` not included.",
        labels=["counter"],
    )
    limit = GaugeMetricFamily(
        "flow_exporter_traffic_label_sets_limit",
        "Label sets that a traffic counter may have before new ones count as `other`.",
        labels=["counter"],
    )
    for name, size, maximum in sizes:
        series.add_metric([name], size)
        limit.add_metric([name], maximum)
    yield series
    yield limit


class _Counter:
    """One counter. Series 0 is ``other``; the rest stand in order of their appearance."""

    def __init__(self, counter: Counter, columns: dict[str, LabelColumn]) -> None:
        self.name = counter.name
        self.limit = counter.max_series
        self._label_names = counter.labels
        self._columns = [columns[name] for name in counter.labels]
        #: The keys of labels, and of those the series; of what is not there, -1.
        self._index = KeyIndex(*[np.uint64] * len(counter.labels))
        self._series = np.array([-1], np.intp)
        self._labels: list[tuple[str, ...]] = []
        self._by_labels: dict[tuple[str, ...], int] = {}
        self._prefixes: dict[str, list[str]] = {measure: [] for measure in _MEASURES}
        # Sums as two halves of 32 bits, the high one with room to grow: exact for any input.
        self._low = np.zeros((len(_MEASURES), counter.max_series + 1), np.uint64)
        self._high = np.zeros_like(self._low)
        self._announced = 0
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
        self._index.add(list(np.array(keys, np.uint64).reshape(-1, len(columns)).T), numbers)
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

    def describe(self) -> Iterable[Metric]:
        for measure, text in _MEASURES.items():
            yield Metric(f"flow_{self.name}_{measure}", self._help(text), "counter")

    def collect(self) -> Iterable[Metric]:
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
                partial(self._scraped, size),
            )

    def _help(self, text: str) -> str:
        return f"{text}, by {', '.join(self._label_names)}."

    def _scraped(self, size: int) -> None:
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
