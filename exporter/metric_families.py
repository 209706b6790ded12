"""Families of metrics as more than one part makes them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


def by_label(
    kind: type[Family], name: str, help_text: str, label: str, values: Mapping[str, float]
) -> Family:
    """A family with one sample for each value of its one label, in their order."""
    family = kind(name, help_text, labels=[label])
    for text, value in sorted(values.items()):
        family.add_metric([text], value)
    return family


class Distribution:
    """Counts of observed values by upper bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = (*bounds, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, help_text: str) -> HistogramMetricFamily:
        """The histogram as Prometheus wants it: cumulative counts."""
        family = HistogramMetricFamily(name, help_text)
        self.add_to(family)
        return family

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Add it to a family, under these values of its labels."""
        total = 0
        buckets = []
        for bound, count in zip(self._bounds, self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        family.add_metric(labels, buckets, self._sum)
