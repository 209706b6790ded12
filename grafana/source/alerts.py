"""Alerts: what fires now, and what fired in the range."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import alerts_sql as sql
from .parts import (
    CLICKHOUSE,
    PROMETHEUS,
    RED,
    WIDTH,
    YELLOW,
    ClickHouseQuery,
    finish,
    link,
    links_property,
    promql,
    prop,
    rename,
    start,
    stat_panel,
    table_panel,
    thresholds,
    time_series,
)

UID = "flow-alerts"

SEVERITIES = (("critical", RED), ("warning", YELLOW), ("info", "blue"))


def firing(severity: str) -> str:
    """PromQL: how many alerts of a severity fire; 0 where none does."""
    return f'count(ALERTS{{alertstate="firing", severity="{severity}"}}) or vector(0)'


def severity_colours() -> object:
    """Value mappings that colour the severities."""
    options = {
        name: {"color": color, "index": index} for index, (name, color) in enumerate(SEVERITIES)
    }
    return [{"type": "value", "options": options}]


def dashboard() -> Dashboard:
    """``flow-alerts``."""
    colours = [
        prop("mappings", severity_colours()),
        prop("custom.cellOptions", {"type": "color-text"}),
    ]
    made = start(
        UID,
        "Flow Alerts",
        "Alerts that fire now, from Prometheus, and their history, from ClickHouse.",
        "now-24h",
    )
    for severity, color in SEVERITIES:
        made = made.with_panel(
            stat_panel(
                f"Firing: {severity}",
                f"Alerts of severity {severity} that fire now, before grouping and silences.",
                "none",
                [promql(firing(severity), severity)],
                size=(8, 4),
                steps=thresholds((1, color)),
            )
        )
    made = (
        made.with_panel(
            table_panel(
                "Firing now",
                "One row per alert with the labels that tell what it is about. Times, values and"
                " texts are in the history below, which knows it some seconds later.",
                "none",
                [promql('ALERTS{alertstate="firing"}', instant=True)],
                size=(WIDTH, 9),
                source=PROMETHEUS,
            )
            .with_transformation(
                rename(
                    {"severity": "Severity", "alertname": "Alert", "policy": "Policy"},
                    hidden=("Time", "Value", "__name__", "alertstate", "instance", "job"),
                )
            )
            .override_by_name("Severity", colours)
        )
        .with_panel(
            time_series(
                "Alerts firing over time",
                "How many alerts fired at each moment, by severity.",
                "none",
                [promql('sum by (severity) (ALERTS{alertstate="firing"})', "{{severity}}")],
                stacked=True,
            )
        )
        .with_panel(
            time_series(
                "Alerts begun",
                "Alerts that began in each bucket, by severity, from the history.",
                "none",
                [ClickHouseQuery(sql.count_query(), series=True)],
                source=CLICKHOUSE,
                stacked=True,
            ).display_name("${__field.labels.series}")
        )
        .with_panel(
            table_panel(
                "History",
                "Alerts that fired at some time in the range, latest first. Open in dashboard"
                " leads to what the alert is about, at the time that it began.",
                "none",
                [ClickHouseQuery(sql.history_query())],
                size=(WIDTH, 12),
            )
            .override_by_name("Severity", colours)
            .override_by_name("Duration", [prop("unit", "s")])
            .override_by_name("Value", [prop("unit", "short")])
            .override_by_name(
                "Dashboard", [links_property(link("Open in dashboard", "${__value.raw}"))]
            )
        )
    )
    return finish(made)
