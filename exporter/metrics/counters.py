"""Traffic counters: bytes, packets and flows by the label columns of each ``counters:`` entry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.batch import FlowBatch
from exporter.config import Counter
from exporter.metric_families import by_label
from exporter.metrics.label_sets import LabelSets
from exporter.metrics.labels import LabelColumn


class TrafficCounters(Collector):
    """All counters of the configuration. ``add`` and ``collect`` may run in different threads."""

    def __init__(
        self, counters: Sequence[Counter], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._columns = {
            label: LabelColumn(label) for counter in counters for label in counter.labels
        }
        self._lock = threading.Lock()
        self._counters = [
            LabelSets(counter, self._columns, clock(), self._lock) for counter in counters
        ]

    def add(self, batch: FlowBatch) -> None:
        """Counts each flow of the batch once in every counter."""
        if not len(batch):
            return
        self._renew()
        factored = {name: column.factor(batch) for name, column in self._columns.items()}
        measured = [batch.array("bytes"), batch.array("packets")]
        wide = [len(batch) * int(values.max()) >= 2**64 for values in measured]
        with self._lock:
            for counter in self._counters:
                counter.add(len(batch), factored, measured, wide)

    def _renew(self) -> None:
        """Let label sets that are not worth their place go, and what only they were made of."""
        now = self._clock()
        with self._lock:
            gone = [counter.renew(now) for counter in self._counters]
            if not any(gone):
                return
            used: dict[str, set[int]] = {name: set() for name in self._columns}
            for counter in self._counters:
                for name, keys in counter.used_keys():
                    used[name] |= keys
        for name, column in self._columns.items():
            column.keep(used[name])

    def describe(self) -> Iterable[Metric]:
        """Names only: describing must not take part in collecting."""
        for counter in self._counters:
            yield from counter.describe()
        yield from _limits([])

    def collect(self) -> Iterable[Metric]:
        """Three families per counter, and how full each counter is."""
        with self._lock:
            families = [family for counter in self._counters for family in counter.collect()]
            sizes = [(one.name, one.size, one.limit, one.replaced) for one in self._counters]
        yield from families
        yield from _limits(sizes)


def _limits(sizes: list[tuple[str, int, int, int]]) -> Iterable[Metric]:
    yield by_label(
        GaugeMetricFamily, "flow_exporter_traffic_label_sets",
        "Label sets of a traffic counter, the remainder `other` not included.",
        "counter", {name: size for name, size, _, _ in sizes},
    )  # fmt: skip
    yield by_label(
        GaugeMetricFamily, "flow_exporter_traffic_label_sets_limit",
        "Label sets that a traffic counter may have before new ones count as `other`.",
        "counter", {name: limit for name, _, limit, _ in sizes},
    )  # fmt: skip
    yield by_label(
        CounterMetricFamily, "flow_exporter_traffic_label_sets_replaced",
        "Label sets of a traffic counter that made room for others, as they grew least.",
        "counter", {name: replaced for name, _, _, replaced in sizes},
    )  # fmt: skip
