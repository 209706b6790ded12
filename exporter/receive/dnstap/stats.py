"""What the dnstap receiver counts, and how Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.metric_families import Distribution, by_label
from exporter.receive.dnstap import frame_stream, message

#: Why a connection is closed by us.
CLOSINGS: Final = (*frame_stream.REASONS, "timeout", "too_many", "socket")
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def _zeros(names: tuple[str, ...]) -> Counter[str]:
    return Counter(dict.fromkeys(names, 0))


@dataclass(slots=True)
class DnstapStats:
    """Plain counters, each changed by one thread only."""

    connections: int = 0
    accepted: int = 0
    bytes: int = 0
    frames: Counter[str] = field(default_factory=lambda: _zeros(message.KINDS))
    errors: Counter[str] = field(default_factory=lambda: _zeros(message.REASONS))
    closed: Counter[str] = field(default_factory=lambda: _zeros(CLOSINGS))
    waiting: int = 0
    queries: int = 0
    unanswered: int = 0
    dropped: int = 0
    failed: int = 0
    latency: Distribution = field(default_factory=lambda: Distribution(_SECONDS))


class DnstapCollector(Collector):
    """``flow_exporter_dnstap_*``."""

    def __init__(self, stats: DnstapStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All metrics of the receiver."""
        stats = self._stats
        prefix = "flow_exporter_dnstap_"
        yield GaugeMetricFamily(
            prefix + "connections", "Resolvers that are connected.", stats.connections
        )
        yield CounterMetricFamily(
            prefix + "accepted_connections", "Connections that were accepted.", stats.accepted
        )
        yield by_label(
            CounterMetricFamily,
            prefix + "closed_connections",
            "Connections closed by the exporter for a fault, by reason.",
            "reason",
            stats.closed,
        )
        yield CounterMetricFamily(prefix + "bytes", "Bytes read from resolvers.", stats.bytes)
        yield by_label(
            CounterMetricFamily,
            prefix + "frames",
            "Frames by the type of the dnstap message; only those of clients are used.",
            "type",
            stats.frames,
        )
        yield by_label(
            CounterMetricFamily,
            prefix + "errors",
            "Frames that could not be used, by reason.",
            "reason",
            stats.errors,
        )
        yield GaugeMetricFamily(
            prefix + "waiting_queries", "Queries whose response has not come yet.", stats.waiting
        )
        yield CounterMetricFamily(
            prefix + "queries", "Queries of clients, answered or not.", stats.queries
        )
        yield CounterMetricFamily(
            prefix + "unanswered_queries",
            "Queries without a response within ten seconds.",
            stats.unanswered,
        )
        yield CounterMetricFamily(
            prefix + "dropped_queries",
            "Queries not stored since the insert queue was full; names are learned all the same.",
            stats.dropped,
        )
        yield CounterMetricFamily(
            prefix + "failed_queries",
            "Queries not stored by a fault of the exporter itself; see the log.",
            stats.failed,
        )
        yield stats.latency.family(
            prefix + "latency_seconds", "Time from query to response, as resolvers tell."
        )
