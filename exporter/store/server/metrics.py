"""The store's own metrics, ``flow_store_*``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from exporter.listening import Connections
from exporter.metric_families import Distribution

KINDS: Final = ("query", "insert")
OUTCOMES: Final = ("ok", "error", "cancelled")
_BOUNDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


class StoreMetrics(Collector):
    """Counts what the server does; ``data_bytes`` is asked at each scrape.

    What ``connections`` tells of those that are open belongs to it, too.
    """

    content_type = exposition.CONTENT_TYPE_LATEST

    def __init__(
        self,
        data_bytes: Callable[[], int],
        version: Callable[[], str],
        forgotten: Callable[[], int],
        connections: Connections,
    ) -> None:
        self._data_bytes = data_bytes
        self._forgotten = forgotten
        self._version = version
        self._connections = connections
        self._lock = threading.Lock()
        self._finished = {(kind, outcome): 0 for kind in KINDS for outcome in OUTCOMES}
        self._seconds = {kind: Distribution(_BOUNDS) for kind in KINDS}
        self._inserted_rows = 0
        self._inserted_bytes = 0
        self.running = 0
        self.queued = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def finished(self, kind: str, outcome: str, seconds: float, rows: int, size: int) -> None:
        """Count a query that came to its end."""
        with self._lock:
            self._finished[kind, outcome] += 1
            self._seconds[kind].observe(seconds)
            self._inserted_rows += rows
            self._inserted_bytes += size

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While a query waits for its turn."""
        self.queued += 1
        try:
            yield
        finally:
            self.queued -= 1

    @contextlib.contextmanager
    def executing(self) -> Iterator[None]:
        """While a query runs."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return exposition.generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing is collected at registration."""
        return []

    def collect(self) -> Iterable[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        info = GaugeMetricFamily(
            "flow_store_info", "Version of the ClickHouse engine.", labels=["version"]
        )
        info.add_metric([self._version()], 1)
        yield info
        duration = HistogramMetricFamily(
            "flow_store_query_duration_seconds",
            "Time from request to the end of its answer, waiting included.",
            labels=["kind"],
        )
        with self._lock:
            for kind, seconds in self._seconds.items():
                seconds.add_to(duration, kind)
            finished = dict(self._finished)
            rows, size = self._inserted_rows, self._inserted_bytes
        queries = CounterMetricFamily(
            "flow_store_queries",
            "Requests that ended, by kind (query, insert) and outcome (ok, error, cancelled).",
            labels=["kind", "outcome"],
        )
        for labels, count in finished.items():
            queries.add_metric(labels, count)
        yield queries
        yield duration
        yield GaugeMetricFamily(
            "flow_store_queries_running", "Queries and inserts that run now.", self.running
        )
        yield GaugeMetricFamily(
            "flow_store_queries_queued", "Queries and inserts that wait for their turn.",
            self.queued,
        )  # fmt: skip
        yield CounterMetricFamily(
            "flow_store_inserted_rows", "Rows inserted, those of views included.", rows
        )
        yield CounterMetricFamily(
            "flow_store_inserted_bytes", "Bytes inserted, before compression.", size
        )
        yield CounterMetricFamily(
            "flow_store_forgotten_inserts",
            "Records of inserts without their rows, which a fault left; the rows are stored when "
            "they are sent again.",
            self._forgotten(),
        )
        yield GaugeMetricFamily(
            "flow_store_data_bytes", "Bytes on disk of all active parts of tables.",
            self._data_bytes(),
        )  # fmt: skip
        yield from self._connections.collect()
