"""What the nodes and the application tell of themselves: CPU time, and how long queries take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from exporter.policies.past import Sample
from exporter.simulate.drawing import TELEMETRY, generator
from exporter.simulate.live import Second
from exporter.simulate.scenarios import Story
from exporter.simulate.site import MACHINES
from exporter.simulate.streams import Floats, Rhythm, factors

#: As node_exporter names it; one CPU stands for all of a node's.
CPU_METRIC: Final = "node_cpu_seconds"
#: As Prometheus itself tells of each node that it scrapes: dashboards choose nodes by it.
UP_METRIC: Final = "up"
LATENCY_METRIC: Final = "query_duration_seconds"
_LABELS: Final = (("job", "node"), ("cpu", "0"))
_APPLICATION: Final = (("job", "query-frontend"), ("instance", "web01:8080"))
_PORT: Final = 9100
_USER_SHARE: Final = 0.8
_RHYTHM: Final = Rhythm(night=0.4)
_IDLE_LOAD: Final = 0.1
_BUSY_LOAD: Final = 0.45

#: Upper ends of the histogram, seconds.
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
_USUAL_P95: Final = 1.5
_SPREAD: Final = 0.7
_QUERIES_PER_SECOND: Final = 30.0
_P95: Final = NormalDist().inv_cdf(0.95)
_MINUTE: Final = 60_000


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The values of a story; the same for the same seed.

    ``origin`` is what the story's windows count from, milliseconds since the epoch.
    """

    story: Story
    origin: int
    seed: int = 1

    def loads(self, node: str, times: NDArray[np.int64]) -> Floats:
        """The part of its CPU time that a node is busy; times in milliseconds since the epoch."""
        usual: Floats = _IDLE_LOAD + (_BUSY_LOAD - _IDLE_LOAD) * _RHYTHM.levels(times)
        usual = usual * self._noise(node, times)
        windows = self.story.busy_nodes.get(node, ())
        story = factors(windows, (times - self.origin) / 1000.0, 0.0)
        loads: Floats = np.minimum(np.maximum(usual, story), 1.0)
        return loads

    def slow(self, times: NDArray[np.int64]) -> Floats:
        """The 95th percentile of how long queries take, seconds."""
        usual = _USUAL_P95 * self._noise("latency", times)
        story = factors(self.story.latency, (times - self.origin) / 1000.0, 0.0)
        slowest: Floats = np.maximum(usual, story)
        return slowest

    def queries(self, times: NDArray[np.int64]) -> Floats:
        """Queries per second by how long they take: ``(times, buckets)``, cumulative over buckets.

        Log-normal around the 95th percentile.
        """
        median = np.log(self.slow(times)) - _P95 * _SPREAD
        ends = np.array([math.log(end) for end in BUCKETS])
        normal = NormalDist()
        shares = np.array(
            [[normal.cdf((end - middle) / _SPREAD) for end in ends] for middle in median]
        )
        rates: Floats = _QUERIES_PER_SECOND * _RHYTHM.levels(times)
        return shares * rates[:, None]

    def _noise(self, name: str, times: NDArray[np.int64]) -> Floats:
        """Factors around 1 that change each minute."""
        minutes, rows = np.unique(times // _MINUTE, return_inverse=True)
        drawn = [
            generator(self.seed, name, TELEMETRY, minute).normal(0, 0.06)
            for minute in minutes.tolist()
        ]
        noise: Floats = np.exp(np.array(drawn))[rows]
        return noise


class SiteMetrics(Collector):
    """The counters that grow as the story is told, for ``/metrics``."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._busy = dict.fromkeys(MACHINES, 0.0)
        self._seconds = 0.0
        self._queries = np.zeros(len(BUCKETS))
        self._sum = 0.0

    def tell(self, second: Second) -> None:
        """Count what happened in that second."""
        at = np.array([second.rhythm_time])
        for node in self._busy:
            self._busy[node] += float(self._telemetry.loads(node, at)[0])
        self._seconds += 1.0
        queries = self._telemetry.queries(at)[0]
        self._queries += queries
        self._sum += _mean(float(self._telemetry.slow(at)[0])) * float(queries[-1])

    def collect(self) -> Iterator[Metric]:
        """``node_cpu_seconds_total``, ``up`` and ``query_duration_seconds``."""
        cpu = CounterMetricFamily(
            CPU_METRIC, "Seconds that the CPU spent in each mode.",
            labels=["job", "cpu", "instance", "mode"],
        )  # fmt: skip
        for node, busy in self._busy.items():
            for mode, value in _modes(busy, self._seconds).items():
                cpu.add_metric(["node", "0", f"{node}:{_PORT}", mode], value)
        yield cpu
        up = GaugeMetricFamily(UP_METRIC, "Whether the node answers.", labels=["job", "instance"])
        for node in self._busy:
            up.add_metric(["node", f"{node}:{_PORT}"], 1.0)
        yield up
        latency = HistogramMetricFamily(
            LATENCY_METRIC, "How long queries of users took.", labels=["job", "instance"]
        )
        counts = self._queries.tolist()
        buckets = [(_le(end), count) for end, count in zip(BUCKETS, counts, strict=True)]
        latency.add_metric([value for _, value in _APPLICATION], buckets, self._sum)
        yield latency


def past_samples(telemetry: Telemetry, begin: int, end: int, step: int = 120) -> Iterator[Sample]:
    """The same series in the past, every ``step`` seconds; all times in seconds since the epoch.

    Counters begin at 0 with each call, as those of a process that was started anew.
    """
    times = np.arange(begin // step * step, end, step, dtype=np.int64)
    moments = times * 1000
    told = times.tolist()
    for node in MACHINES:
        busy = np.cumsum(telemetry.loads(node, moments)) * step
        for number, at in enumerate(told, 1):
            for mode, value in _modes(float(busy[number - 1]), float(number * step)).items():
                labels = (*_LABELS, ("instance", f"{node}:{_PORT}"), ("mode", mode))
                yield Sample(f"{CPU_METRIC}_total", labels, at, value)
    for node in MACHINES:
        for at in told:
            yield Sample(UP_METRIC, (("job", "node"), ("instance", f"{node}:{_PORT}")), at, 1.0)
    queries = np.cumsum(telemetry.queries(moments), axis=0) * step
    for bucket, upper in enumerate(BUCKETS):
        until = (*_APPLICATION, ("le", _le(upper)))
        for at, value in zip(told, queries[:, bucket].tolist(), strict=True):
            yield Sample(f"{LATENCY_METRIC}_bucket", until, at, value)


def _modes(busy: float, seconds: float) -> dict[str, float]:
    return {
        "idle": seconds - busy,
        "user": busy * _USER_SHARE,
        "system": busy * (1 - _USER_SHARE),
    }


def _mean(p95: float) -> float:
    return math.exp(math.log(p95) - _P95 * _SPREAD + _SPREAD**2 / 2)


def _le(end: float) -> str:
    return "+Inf" if end == math.inf else f"{end:g}" if end % 1 else f"{end:.1f}"
