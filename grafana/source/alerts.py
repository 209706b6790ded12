"""Alerts: what fires now, and what fired in the range."""

from __future__ import annotations

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard, DynamicConfigValue

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
    merge,
    promql,
    prop,
    rename,
    start,
    stat_panel,
    table_panel,
    text_box,
    thresholds,
    time_series,
)
from .parts.looks import DataLink

UID = "flow-alerts"

SEVERITIES = (("critical", RED), ("warning", YELLOW), ("info", "blue"))


def firing(severity: str) -> str:
    """PromQL: how many alerts of a severity fire; 0 where none does."""
    return f'count(ALERTS{{alertstate="firing", severity="{severity}"}}) or vector(0)'


FIRING = 'ALERTS{alertstate="firing"}'

_ABOUT_ALERTS = (
    "alertname, alertstate, bound, severity, team, incident, dashboard, measure, baseline"
)


def _of_key(series: str, carried: str = "") -> str:
    """PromQL: what rules know of the key of each alert that fires, with the alert's labels."""
    return (
        f"max without (alertstate) (0 * {FIRING} + ignoring ({_ABOUT_ALERTS})"
        f" group_left ({carried}) {series})"
    )


def _since(factor: int) -> str:
    """PromQL: when alerts that fire became true, in parts of a second since the epoch."""
    return f"{factor} * (ALERTS_FOR_STATE and ignoring (alertstate) {FIRING})"


#: Columns that keys are mostly told by. (Of the device there are alerts without a policy, too.)
_KEYS = (
    "src_addr", "dst_addr", "src_host", "dst_host", "src_network", "dst_network", "src_as",
    "dst_as", "src_country", "dst_country", "src_port", "dst_port", "service", "src_service",
    "dst_service", "proto", "in_if", "out_if", "dns_name",
)  # fmt: skip


def _key_links(column: str) -> list[DataLink]:
    """Links of a value that the alert's key has: what its policy watches, narrowed to that."""
    value = "${__value.raw:percentencode}"
    policy = "${__data.fields.Policy:percentencode}"
    alert = "${__data.fields.Alert:percentencode}"
    only = f"${{__url_time_range}}&var-filters={column}%7C%3D%7C{value}"
    key = f"policy%3D%22{policy}%22%2C{column}%3D%22{value}%22"
    incident = f"/d/flow-incident?{only}&var-policy={policy}&var-key={key}"
    matchers = f"%7Balertname%3D%22{alert}%22%2C{key}%7D"
    return [
        link("Incident", f"{incident}&var-measure=${{__data.fields.measure:percentencode}}"),
        link("Data Explorer", f"/d/flow-explorer?{only}"),
        link("Silence in Alertmanager", f"${{alertmanager:raw}}/#/silences/new?filter={matchers}"),
    ]


def _shown_as(text: str) -> object:
    """Value mappings of a column for its link: the same text in each row that has something."""
    return [{"type": "regex", "options": {"pattern": ".+", "result": {"text": text, "index": 0}}}]


def severity_colours() -> object:
    """Value mappings that colour the severities."""
    options = {
        name: {"color": color, "index": index} for index, (name, color) in enumerate(SEVERITIES)
    }
    return [{"type": "value", "options": options}]


def _firing_now(colours: list[DynamicConfigValue]) -> table.Panel:
    panel = (
        table_panel(
            "Firing now",
            "One row per alert with the labels that tell what it is about, since when and for"
            " how long it has been true, the value of its key now, and what is usual with where"
            " that comes from. Click what a policy's key is told by, such as its address, for the"
            " policy's incident, the flows, or a new silence, all narrowed to that value. Texts,"
            " and links to the whole key at the time that it began, are in the history below, some"
            " seconds later.",
            "short",
            [
                promql(f"max without (alertstate) ({FIRING})", instant=True, ref_id="A"),
                promql(_since(1000), instant=True, ref_id="since"),
                promql(f"time() - {_since(1)}", instant=True, ref_id="duration"),
                promql(_of_key("key:flow_policy_value:max"), instant=True, ref_id="value"),
                promql(
                    _of_key("key:flow_policy_baseline:effective", "baseline"),
                    instant=True,
                    ref_id="usual",
                ),
            ],
            size=(WIDTH, 9),
            source=PROMETHEUS,
        )
        .with_transformation(merge())
        .with_transformation(
            rename(
                {
                    "severity": "Severity",
                    "alertname": "Alert",
                    "policy": "Policy",
                    "Value #since": "Since",
                    "Value #duration": "Duration",
                    "Value #value": "Value",
                    "Value #usual": "Usual",
                    "baseline": "Usual from",
                },
                hidden=("Time", "Value #A", "__name__", "instance", "job", "dashboard"),
            )
        )
        .override_by_name("Since", [prop("unit", "dateTimeAsIso")])
        .override_by_name("Duration", [prop("unit", "s")])
        .override_by_name("Severity", colours)
    )
    for column in _KEYS:
        panel = panel.override_by_name(column, [links_property(*_key_links(column))])
    return panel


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
    ).with_variable(
        text_box(
            "alertmanager",
            "Alertmanager",
            "Where people reach Alertmanager's own pages, for links to silences.",
            "http://127.0.0.1:9093",
        )
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
        made.with_panel(_firing_now(colours))
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
                "Alerts that fired at some time in the range: those that fire now, then the latest."
                " Open in dashboard leads to what the alert is about, at the time that it began;"
                " Silence, of those that fire, to a new silence with all of the alert's labels.",
                "none",
                [ClickHouseQuery(sql.history_query())],
                size=(WIDTH, 12),
            )
            .override_by_name("Severity", colours)
            .override_by_name("Duration", [prop("unit", "s")])
            .override_by_name("Last value", [prop("unit", "short")])
            .override_by_name(
                "Dashboard",
                # A whole URL: raw, or its percent signs are encoded once more.
                [
                    links_property(link("Open in dashboard", "${__value.raw:raw}")),
                    prop("mappings", _shown_as("Open in dashboard")),
                ],
            )
            .override_by_name(
                "Silence",
                [
                    links_property(
                        link(
                            "Silence in Alertmanager",
                            "${alertmanager:raw}/#/silences/new"
                            "?filter=${__value.raw:percentencode}",
                        )
                    ),
                    prop("mappings", _shown_as("Silence")),
                ],
            )
        )
    )
    return finish(made)
