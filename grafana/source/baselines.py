"""Baselines: what the rules see of a policy's keys, to find out why an alert fired or did not."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from .parts import (
    PROMETHEUS,
    WIDTH,
    alert_annotation,
    finish,
    matcher_box,
    merge,
    policy_variable,
    promql,
    prop,
    rename,
    start,
    stat_panel,
    table_panel,
    thresholds,
    time_series,
)

UID = "flow-baselines"

#: PromQL selector of the keys.
KEY = '{policy="$policy",${key:raw}}'
_VALUE = f"key:flow_policy_value:max{KEY}"
_USUAL = f"key:flow_policy_baseline:effective{KEY}"


def _side(name: str) -> str:
    """PromQL: one side of the keys' band, with a label that says which."""
    return f'label_replace(key:flow_policy_baseline:{name}{KEY}, "side", "{name}", "", "")'


def _lines(top: int, series: str) -> str:
    """PromQL: the largest keys, named in legends by the labels that tell them apart."""
    return f"topk({top}, max without (policy) ({series}))"


def dashboard() -> Dashboard:
    """``flow-baselines``."""
    bound = 'policy:flow_policy_static_threshold:max{policy="$policy"}'
    made = (
        start(
            UID,
            "Flow Baselines",
            "What the rules see of a policy's keys: value, what is usual, bounds, and breaches.",
            "now-24h",
        )
        .with_variable(policy_variable())
        .with_variable(matcher_box())
        .annotation(alert_annotation())
        .with_panel(
            stat_panel(
                "Keys",
                "Keys of the policy that are followed.",
                "none",
                [promql(f"count({_VALUE}) or vector(0)")],
                size=(8, 4),
            )
        )
        .with_panel(
            stat_panel(
                "Keys with a baseline",
                "Keys whose usual value is known, from their own past or as the policy states.",
                "none",
                [promql(f"count({_USUAL}) or vector(0)")],
                size=(8, 4),
            )
        )
        .with_panel(
            stat_panel(
                "Keys in breach",
                "Keys that crossed their bounds for as many minutes as the policy asks.",
                "none",
                [promql(f"count(key:flow_policy_breach:sustained{KEY}) or vector(0)")],
                size=(8, 4),
                steps=thresholds((1, "red")),
            )
        )
        .with_panel(
            time_series(
                "Value",
                "The measure of the ten largest keys, as the policy evaluates it, and the static"
                " bound.",
                "short",
                [
                    promql(_lines(10, _VALUE)),
                    promql(bound, "static bound, {{bound}}", ref_id="static"),
                ],
                size=(WIDTH, 9),
            ).override_by_query(
                "static",
                [
                    prop("color", {"mode": "fixed", "fixedColor": "red"}),
                    prop("custom.lineStyle", {"fill": "dash", "dash": [6, 6]}),
                ],
            )
        )
        .with_panel(
            time_series(
                "What is usual",
                "The baseline of the ten keys where it is largest; the label tells where it comes"
                " from.",
                "short",
                [promql(_lines(10, _USUAL))],
                size=(12, 9),
            )
        )
        .with_panel(
            time_series(
                "Value against what is usual",
                "The value as a share of what is usual at this hour: 1 is as always. The ten keys"
                " furthest above.",
                "percentunit",
                [promql(_lines(10, f"{_VALUE} / ignoring (baseline) ({_USUAL} > 0)"))],
                size=(12, 9),
            )
        )
        .with_panel(
            time_series(
                "Band",
                "What the key's own past allows at this hour: lower and upper side. Choose one key"
                " to read it.",
                "short",
                [
                    promql(_lines(10, _side("lower")), ref_id="lower"),
                    promql(_lines(10, _side("upper")), ref_id="upper"),
                ],
                size=(12, 9),
            )
        )
        .with_panel(
            time_series(
                "Tests of bounds",
                "1 where a test is crossed: static and baseline, above and below. All or any of"
                " them must be, as the policy says.",
                "none",
                [promql(_lines(20, f"key:flow_policy_breach:bool{KEY}"))],
                size=(12, 9),
            )
        )
        .with_panel(
            table_panel(
                "Keys now",
                "Each key's value, and what the baseline's test compares it with.",
                "short",
                [
                    promql(f"topk(100, {_VALUE})", instant=True, ref_id="A"),
                    promql(
                        f"max without (baseline, bound) (key:flow_policy_baseline:bound{KEY})",
                        instant=True,
                        ref_id="B",
                    ),
                ],
                size=(WIDTH, 9),
                source=PROMETHEUS,
            )
            .with_transformation(merge())
            .with_transformation(
                rename(
                    {"Value #A": "Value", "Value #B": "Bound from what is usual"},
                    hidden=("Time", "__name__", "policy"),
                )
            )
        )
    )
    return finish(made)
