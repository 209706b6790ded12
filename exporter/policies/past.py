"""A policy's past: the values that it would have told, and their recorded hours.

The values come from the same flows by the same measure as those of the present, and keys are
followed by the same rules, so a baseline made of them is one that would have been.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from exporter.policies.keys import FollowedKeys, Row
from exporter.policies.model import Policy
from exporter.policies.query import Lists, count_query, history_query
from exporter.store.session import Client

#: Rows that one query reads about, and the longest time: bounds what it holds.
_CHUNK_ROWS: Final = 2_000_000
_CHUNK_SECONDS: Final = 86400

#: One value of these many seconds is written: Prometheus looks back as far for the latest.
VALUE_STEP: Final = 300

#: The recorded hours, as ``alerting/rules/baselines.yml`` needs them: each half hour.
HOUR_STEP: Final = 1800
_HOUR: Final = 3600
_QUANTILES: Final = (0.05, 0.5, 0.95)

VALUE_METRIC: Final = "key:flow_policy_value:max"
HOUR_METRIC: Final = "key:flow_policy_value:quantile_1h"

_SETTINGS: Final = {"max_execution_time": 120, "max_query_size": 4 << 20}


Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One sample of a series; ``time`` is in seconds since the epoch."""

    metric: str
    labels: Labels
    time: int
    value: float


class PolicyPast:
    """Walks through a policy's past from ``start`` on (seconds since the epoch).

    Each call of :meth:`samples` goes on where the last one ended, with the keys that were followed
    and the values of the last hour.
    """

    def __init__(
        self, client: Client, policy: Policy, start: int, lists: Lists | None = None
    ) -> None:
        self._client = client
        self._policy = policy
        self._lists = lists
        self._keys = FollowedKeys(policy)
        self._at = -(-start // policy.window) * policy.window
        self._hour: dict[Labels, list[tuple[int, float]]] = defaultdict(list)

    def samples(self, until: int) -> Iterator[Sample]:
        """The samples of the windows that end up to ``until`` (seconds since the epoch).

        Raises:
            clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
        """
        window = self._policy.window
        until = until // window * window
        while self._at < until:
            end = min(self._at + self._step(until), until)
            yield from self._chunk(self._at, end)
            self._at = end

    def _step(self, until: int) -> int:
        """Seconds that the next query may be about."""
        window = self._policy.window
        ahead = min(until, self._at + _CHUNK_SECONDS)
        query = count_query(self._policy, self._at * 1000, ahead * 1000)
        rows = int(self._client.query(query.sql, parameters=query.parameters).result_rows[0][0])
        step = (ahead - self._at) * _CHUNK_ROWS // max(rows, _CHUNK_ROWS)
        return max(step // window, 1) * window

    def _chunk(self, start: int, end: int) -> Iterator[Sample]:
        window = self._policy.window
        query = history_query(
            self._policy, start * 1000, end * 1000, self._keys.hashes(), self._lists
        )
        result = self._client.query(query.sql, parameters=query.parameters, settings=_SETTINGS)
        buckets: dict[int, list[Row]] = defaultdict(list)
        for bucket, key, *texts, value in result.result_rows:
            named = dict(zip(self._policy.dimensions, texts, strict=True))
            buckets[bucket].append(Row(key, named, value))
        for window_end in range(start + window, end + 1, window):
            self._keys.update(buckets.get(window_end // window - 1, ()), window_end)
            current = [(self._labels(key.labels), key.value) for key in self._keys]
            for labels, value in current:
                self._hour[labels].append((window_end, value))
            # A value is the latest until the next window ends.
            for time in _multiples(VALUE_STEP, window_end, window_end + window):
                for labels, value in current:
                    yield Sample(VALUE_METRIC, labels, time, value)
            for time in _multiples(HOUR_STEP, window_end, window_end + window):
                yield from self._hours(time)

    def _labels(self, texts: Mapping[str, str]) -> Labels:
        shown = ((name, text) for name, text in sorted(texts.items()) if text)
        return (("policy", self._policy.name), *shown)

    def _hours(self, time: int) -> Iterator[Sample]:
        """The quantiles of the hour before ``time``, as Prometheus' ``quantile_over_time``."""
        for labels in list(self._hour):
            recent = [pair for pair in self._hour[labels] if pair[0] > time - _HOUR]
            if not recent:
                del self._hour[labels]
                continue
            self._hour[labels] = recent
            ordered = sorted(value for _, value in recent)
            for quantile in _QUANTILES:
                named = (*labels, ("quantile", f"{quantile:g}"))
                yield Sample(HOUR_METRIC, named, time, quantile_of(ordered, quantile))


def values_by_key(samples: Iterable[Sample]) -> dict[Labels, list[float]]:
    """The values among ``samples`` by the key's labels, without the policy's."""
    values: dict[Labels, list[float]] = defaultdict(list)
    for sample in samples:
        if sample.metric == VALUE_METRIC:
            values[sample.labels[1:]].append(sample.value)
    return values


def _multiples(step: int, start: int, end: int) -> range:
    """Those of ``step`` from ``start`` up to but not including ``end``."""
    return range(-(-start // step) * step, end, step)


def quantile_of(ordered: list[float], quantile: float) -> float:
    """As Prometheus interpolates it; ``ordered`` is sorted and not empty."""
    rank = quantile * (len(ordered) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(ordered) - 1)
    weight = rank - lower
    return ordered[lower] * (1 - weight) + ordered[upper] * weight
