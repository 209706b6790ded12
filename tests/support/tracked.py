"""Keys of policies as Prometheus knows them: what the collector tells of them, and their past."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.metrics import PolicyCollector
from exporter.policies.model import Policy, PolicySet
from exporter.policies.past import HOUR_METRIC, HOUR_STEP
from tests.support.quiet_weeks import HABITS, Values, quiet_weeks
from tests.support.remote_write import Series

#: A Monday, 00:00 UTC: the first minute.
MONDAY = 1_767_571_200

# Which habits counts of different addresses and shares of all traffic do not have.
_EVEN = ("unique_", "share_")
_UNEVEN = {"bursty", "lumpy", "few"}


@dataclass
class Key:
    """One key and its values, minute by minute since :data:`MONDAY`."""

    policy: Policy
    habit: str
    labels: dict[str, str]
    values: Values
    #: Without noise.
    usual: Values

    def told(self, first: int, last: int) -> Series:
        """What the collector tells from minute ``first`` up to but not including ``last``."""
        return Series(
            {"__name__": "flow_policy_value", **self.labels},
            MONDAY + np.arange(first, last) * 60,
            self.values[first:last],
        )

    def hours(self, first: int, last: int) -> Iterator[Series]:
        """The recorded hours of the same time, each half hour, as ``backfill`` writes them."""
        step = HOUR_STEP // 60
        ends = np.arange(-(-(first + 60) // step) * step, last, step)
        hours = self.values[ends[:, None] - np.arange(60)]
        for quantile in (0.05, 0.5, 0.95):
            yield Series(
                {"__name__": HOUR_METRIC, **self.labels, "quantile": f"{quantile:g}"},
                MONDAY + ends * 60,
                np.quantile(hours, quantile, axis=1),
            )


def keys_of(policies: Iterable[Policy], weeks: int, seed: int) -> list[Key]:
    """A key of each habit for each policy, so large that a static bound does not keep it quiet.

    The habit ``few`` stays below the policy's minimum. Values cover the policy's window.
    """
    keys = []
    for turn, policy in enumerate(policies):
        traffic = quiet_weeks(len(HABITS), weeks, seed + turn)
        static = (policy.bounds.above and policy.bounds.above.static) or 0.0
        peak = max((3 if policy.combine == "all" else 0.3) * static, 20 * policy.minimum)
        counted = policy.measure.startswith("unique_")
        even = policy.measure.startswith(_EVEN)
        for habit, values, usual in zip(traffic.habits, traffic.values, traffic.usual, strict=True):
            if even and habit in _UNEVEN:
                continue
            level = policy.minimum if habit == "few" else peak
            values = level * windowed(values, policy.window // 60)
            keys.append(
                Key(
                    policy,
                    habit,
                    {"policy": policy.name, "dst_host": habit},
                    np.round(values) if counted else values,
                    level * usual,
                )
            )
    return keys


def windowed(values: Values, minutes: int) -> Values:
    """The mean of the last ``minutes`` at each minute."""
    if minutes <= 1:
        return values
    sums = np.cumsum(np.concatenate((np.full(minutes, values[0]), values)))
    return (sums[minutes:] - sums[:-minutes]) / minutes


def settings(policies: Sequence[Policy], first: int, last: int) -> Iterator[Series]:
    """What the collector tells of the policies themselves."""
    evaluator = PolicyEvaluator(
        lambda: None,  # type: ignore[arg-type, return-value]
        PolicySet(policies=list(policies)),
        delay_seconds=0,
        query_timeout_seconds=1,
    )
    times = MONDAY + np.arange(first, last) * 60
    for family in PolicyCollector(evaluator).collect():
        for sample in family.samples:
            if not sample.name.startswith("flow_exporter_"):
                yield Series(
                    {"__name__": sample.name, **sample.labels},
                    times,
                    np.full(len(times), sample.value),
                )
