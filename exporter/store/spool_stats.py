"""What the spool counts, and how Prometheus reads it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.metric_families import by_label

#: Why rows are dropped from the spool.
DROPS: Final = ("full", "age")


class SpoolStats(Collector):
    """Counters of one spool; ``lock`` guards all of them. All zero where there is none."""

    def __init__(self, refusals: tuple[str, ...]) -> None:
        self.lock = threading.Lock()
        self.bytes = 0
        self.bytes_limit = 0
        self.batches = 0
        self.rows = 0
        #: When the oldest came (``time.monotonic``); ``None`` while there is none.
        self.oldest: float | None = None
        self.spooled_rows = 0
        self.replayed_rows = 0
        self.dropped_rows = Counter(dict.fromkeys(DROPS, 0))
        self.corrupt_files = 0
        self.write_failures = 0
        self.quarantined_rows = Counter(dict.fromkeys(refusals, 0))
        self.quarantine_dropped_rows = 0
        #: Size of each file in quarantine, from which the command line takes files, too.
        self.quarantine_sizes: Callable[[], Iterable[int]] = tuple

    def collect(self) -> Iterator[Metric]:
        """All metrics of the spool."""
        with self.lock:
            yield from self._spool()
            yield from self._quarantine()

    def _spool(self) -> Iterator[Metric]:
        p = "flow_exporter_spool_"
        yield GaugeMetricFamily(f"{p}bytes", "Size of the inserts in the spool.", value=self.bytes)
        yield GaugeMetricFamily(
            f"{p}bytes_limit",
            "Size beyond which the oldest are dropped; 0: there is no spool.",
            value=self.bytes_limit,
        )
        yield GaugeMetricFamily(
            f"{p}batches", "Inserts that wait in the spool.", value=self.batches
        )
        yield GaugeMetricFamily(f"{p}rows", "Flows that wait in the spool.", value=self.rows)
        age = 0.0 if self.oldest is None else time.monotonic() - self.oldest
        yield GaugeMetricFamily(
            f"{p}oldest_age_seconds", "Age of the oldest insert in the spool.", value=age
        )
        yield CounterMetricFamily(
            f"{p}spooled_rows", "Flows written to the spool.", value=self.spooled_rows
        )
        yield CounterMetricFamily(
            f"{p}replayed_rows",
            "Flows of the spool that ClickHouse has taken.",
            value=self.replayed_rows,
        )
        yield by_label(
            CounterMetricFamily, f"{p}dropped_rows",
            "Flows dropped from the spool, for good, since it was full or they were too old.",
            "reason", self.dropped_rows,
        )  # fmt: skip
        yield CounterMetricFamily(
            f"{p}corrupt_files",
            "Files of the spool found torn or damaged and set aside.",
            value=self.corrupt_files,
        )
        yield CounterMetricFamily(
            f"{p}write_failures",
            "Inserts that could not be written to the spool and stayed in memory.",
            value=self.write_failures,
        )

    def _quarantine(self) -> Iterator[Metric]:
        yield by_label(
            CounterMetricFamily, "flow_exporter_quarantined_rows",
            "Flows that ClickHouse refuses, put into quarantine, by its name of the error.",
            "reason", self.quarantined_rows,
        )  # fmt: skip
        p = "flow_exporter_quarantine_"
        yield CounterMetricFamily(
            f"{p}dropped_rows",
            "Flows dropped from quarantine, for good, since it was full.",
            value=self.quarantine_dropped_rows,
        )
        sizes = list(self.quarantine_sizes())
        yield GaugeMetricFamily(
            f"{p}files",
            "Refused or damaged inserts that wait in quarantine for a person.",
            value=len(sizes),
        )
        yield GaugeMetricFamily(f"{p}bytes", "Size of the files in quarantine.", value=sum(sizes))
