"""Policies as metrics: values and thresholds for Prometheus' rules, and how evaluation fares."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from exporter.policies.evaluator import REASONS, PolicyEvaluator, PolicyState
from exporter.policies.filter import is_plain
from exporter.policies.keys import Key
from exporter.policies.list_store import ListState
from exporter.policies.model import Bound, Policy
from exporter.policies.tables import FLOWS


class PolicyCollector(Collector):
    """Tells an evaluator's state at every scrape."""

    def __init__(self, evaluator: PolicyEvaluator) -> None:
        self._evaluator = evaluator

    def collect(self) -> Iterator[Metric]:
        """All families; without a policy they have no samples."""
        with self._evaluator.lock:
            states = self._evaluator.states()
            now = self._evaluator.now()
            families = [
                _values(states, now),
                _unobserved(states, now),
                *_thresholds([state.policy for state in states]),
                *_health(states),
                *_lists(self._evaluator.list_states()),
            ]
        yield from families


def _values(states: list[PolicyState], now: float) -> Metric:
    # A family of this library has one set of label names, but policies differ in their
    # dimensions: samples are added one by one. An empty label is no label to Prometheus.
    family = Metric(
        "flow_policy_value",
        "The measure of one key of a policy in the window that ended last.",
        "gauge",
    )
    for state in states:
        if state.is_current(now):
            for key in state.keys:
                family.add_sample(family.name, _key_labels(state.policy, key), key.value)
    return family


def _unobserved(states: list[PolicyState], now: float) -> Metric:
    family = Metric(
        "flow_policy_unobserved",
        "Keys of which a device that reported them is silent: no dip of theirs counts; always 1.",
        "gauge",
    )
    for state in states:
        if state.is_current(now):
            for key in state.unobserved:
                family.add_sample(family.name, _key_labels(state.policy, key), 1.0)
    return family


def _key_labels(policy: Policy, key: Key) -> dict[str, str]:
    shown = {name: text for name, text in key.labels.items() if text}
    return {"policy": policy.name, **shown}


def _bounds(policy: Policy) -> Iterator[tuple[str, str, Bound]]:
    """Side, severity and bound; no severity is that of the policy."""
    for severity, bounds in (("", policy.bounds), ("critical", policy.critical)):
        for side, bound in bounds.sides if bounds else ():
            yield side, severity, bound


def _thresholds(policies: list[Policy]) -> Iterator[Metric]:
    minimum = GaugeMetricFamily(
        "flow_policy_minimum",
        "Value below which a key is not picked up.",
        labels=["policy"],
    )
    static = GaugeMetricFamily(
        "flow_policy_static_threshold",
        "Value at which the bound is crossed; without severity: that of the policy.",
        labels=["policy", "bound", "severity"],
    )
    ratio = GaugeMetricFamily(
        "flow_policy_baseline_ratio",
        "Multiple of the baseline at which the bound is crossed; severity likewise.",
        labels=["policy", "bound", "severity"],
    )
    window = GaugeMetricFamily(
        "flow_policy_window_seconds",
        "Length of time that one value covers.",
        labels=["policy"],
    )
    breach = GaugeMetricFamily(
        "flow_policy_breach_needed",
        "Minutes, of as many as the label tells, in which a bound must be crossed to alert.",
        labels=["policy", "of"],
    )
    fallback = GaugeMetricFamily(
        "flow_policy_no_baseline_value",
        "The baseline of keys that have none, where the policy states a number.",
        labels=["policy"],
    )
    info = InfoMetricFamily(
        "flow_policy",
        "What a policy states about its alerts.",
        labels=[
            "policy", "severity", "team", "incident", "dashboard", "measure", "unit", "combine",
            "no_baseline", "description",
        ],
    )  # fmt: skip
    filters = InfoMetricFamily(
        "flow_policy_filter",
        "The filter of a policy over flows, as dashboards take it for their SQL condition; of one "
        "that has none, looks up lists, or has brackets or escapes, nothing.",
        labels=["policy", "condition"],
    )
    for policy in policies:
        plain = policy.filter.strip() and not policy.list_uses and is_plain(policy.filter)
        if plain and policy.table == FLOWS.name:
            filters.add_metric([policy.name, policy.filter.strip()], {})
        minimum.add_metric([policy.name], policy.minimum)
        window.add_metric([policy.name], policy.window)
        for side, severity, bound in _bounds(policy):
            if bound.static is not None:
                static.add_metric([policy.name, side, severity], bound.static)
            if bound.baseline_ratio is not None:
                ratio.add_metric([policy.name, side, severity], bound.baseline_ratio)
        breach.add_metric([policy.name, f"{policy.breach.of}m"], policy.breach.minutes)
        choice = policy.no_baseline
        if not isinstance(choice, str):
            fallback.add_metric([policy.name], choice)
        info.add_metric(
            [
                policy.name, policy.severity, policy.team, policy.incident, policy.dashboard,
                policy.measure, policy.measured.unit, policy.combine,
                choice if isinstance(choice, str) else "value", policy.description,
            ],
            {},
        )  # fmt: skip
    yield from (minimum, window, static, ratio, breach, fallback, info, filters)


def _health(states: list[PolicyState]) -> Iterator[Metric]:
    prefix = "flow_exporter_policy_evaluation"
    evaluations = CounterMetricFamily(
        "flow_exporter_policy_evaluations", "Evaluations that succeeded.", labels=["policy"]
    )
    failures = CounterMetricFamily(
        f"{prefix}_failures",
        "Evaluations that failed, by reason (timeout, refused, unreachable, other).",
        labels=["policy", "reason"],
    )
    skipped = CounterMetricFamily(
        f"{prefix}_skipped",
        "Turns left out because earlier evaluations took too long.",
        labels=["policy"],
    )
    duration = GaugeMetricFamily(
        f"{prefix}_duration_seconds", "Time that the last evaluation took.", labels=["policy"]
    )
    timestamp = GaugeMetricFamily(
        f"{prefix}_timestamp_seconds",
        "End of the window of the last good evaluation, since the epoch.",
        labels=["policy"],
    )
    keys = GaugeMetricFamily(f"{prefix}_keys", "Keys that are followed.", labels=["policy"])
    limit = GaugeMetricFamily(
        f"{prefix}_keys_limit", "Keys that may be followed.", labels=["policy"]
    )
    evicted = CounterMetricFamily(
        f"{prefix}_keys_evicted",
        "Keys no longer followed because there were more than may be; a dip of theirs is not told.",
        labels=["policy"],
    )
    for state in states:
        name = [state.policy.name]
        evaluations.add_metric(name, state.evaluations)
        skipped.add_metric(name, state.skipped)
        duration.add_metric(name, state.duration_seconds)
        if state.good_end:
            timestamp.add_metric(name, state.good_end)
        keys.add_metric(name, len(state.keys))
        limit.add_metric(name, state.policy.key_limit)
        evicted.add_metric(name, state.keys.evicted)
        for reason in REASONS:
            failures.add_metric([state.policy.name, reason], state.failures.get(reason, 0))
    yield from (evaluations, failures, skipped, duration, timestamp, keys, limit, evicted)


def _lists(lists: dict[str, ListState]) -> Iterator[Metric]:
    prefix = "flow_exporter_policy_list"
    entries = GaugeMetricFamily(f"{prefix}_entries", "Entries of a list.", labels=["list"])
    failures = CounterMetricFamily(
        f"{prefix}_failures",
        "Times that a list's file had changed and could not be used; the list stayed as it was.",
        labels=["list"],
    )
    read = GaugeMetricFamily(
        f"{prefix}_timestamp_seconds",
        "When the list's file was read last, since the epoch.",
        labels=["list"],
    )
    for name, state in lists.items():
        entries.add_metric([name], len(state.loaded.entries))
        failures.add_metric([name], state.failures)
        read.add_metric([name], state.read_at)
    yield from (entries, failures, read)
