"""What the writer counts, and how Prometheus reads it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.metric_families import Distribution, by_label
from exporter.schema import DNS_QUERIES, FLOWS

_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ROWS: Final = (100.0, 1e3, 1e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 5e6)


class InsertStats(Collector):
    """Counters of one writer; ``lock`` guards all of them.

    ``failures`` and ``refusals`` are reasons to show before they happen: a counter that appears
    with its first increase hides that increase from Prometheus.
    """

    def __init__(self, failures: Iterable[str] = (), refusals: Iterable[str] = ()) -> None:
        self.lock = threading.Lock()
        self.rows = Counter({FLOWS.name: 0, DNS_QUERIES.name: 0})
        self.bytes = 0
        self.retries = 0
        self.failures = Counter(dict.fromkeys(failures, 0))
        self.refused_rows = Counter(dict.fromkeys(refusals, 0))
        self.lost_rows = 0
        self.queue_rows = 0
        self.queue_batches = 0
        self.blocked_seconds = 0.0
        self.last_success = 0.0
        self.duration = Distribution(_SECONDS)
        self.batch_rows = Distribution(_ROWS)

    def collect(self) -> Iterator[Metric]:
        """All metrics of the writer."""
        with self.lock:
            yield from self._collect()

    def _collect(self) -> Iterator[Metric]:
        p = "flow_exporter_insert_"
        yield by_label(
            CounterMetricFamily, f"{p}rows", "Rows that ClickHouse has taken, by table.",
            "table", self.rows,
        )  # fmt: skip
        yield CounterMetricFamily(
            f"{p}bytes", "Bytes (Native format) that ClickHouse has taken.", value=self.bytes
        )
        yield self.duration.family(
            f"{p}duration_seconds", "Time of one attempt to insert, successful or not."
        )
        yield self.batch_rows.family(f"{p}batch_rows", "Rows of one successful insert.")
        yield CounterMetricFamily(
            f"{p}retries", "Inserts tried again after a failure.", value=self.retries
        )
        yield by_label(
            CounterMetricFamily, f"{p}failures",
            "Failed attempts to insert, by ClickHouse's name of the error or `unreachable`.",
            "reason", self.failures,
        )  # fmt: skip
        yield by_label(
            CounterMetricFamily, f"{p}refused_rows",
            "Rows that ClickHouse refuses, by its name of the error; lost without a spool.",
            "reason", self.refused_rows,
        )  # fmt: skip
        yield CounterMetricFamily(
            f"{p}lost_rows", "Rows given up because the collector stopped.", value=self.lost_rows
        )
        yield GaugeMetricFamily(
            f"{p}queue_rows", "Rows waiting for their insert.", value=self.queue_rows
        )
        yield GaugeMetricFamily(
            f"{p}queue_batches", "Batches waiting for their insert.", value=self.queue_batches
        )
        yield CounterMetricFamily(
            f"{p}blocked_seconds",
            "Time that decoding stood still because the insert queue was full.",
            value=self.blocked_seconds,
        )
        yield GaugeMetricFamily(
            f"{p}last_success_timestamp_seconds",
            "Time of the last successful insert; 0 before the first.",
            value=self.last_success,
        )
