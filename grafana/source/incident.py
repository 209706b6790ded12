"""Incident: what an alert's link opens; its value, what changed when it began, and the flows."""

from __future__ import annotations

from dataclasses import replace

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import table, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.changes import COUNTED_KEYS, LEAD_SECONDS, changes_query, distinct_query
from exporter.explore.choices import by
from exporter.explore.columns import DIMENSIONS
from exporter.explore.drawn import looked_at_query
from exporter.explore.flows import raw_flows_query
from exporter.explore.series import series_query

from . import condition, flows_sql, incident_sql
from .alerts import severity_colours
from .flows_sql import RANGE, chosen_dimension, chosen_measure, variable
from .parts import (
    CLICKHOUSE,
    ESTIMATES,
    WIDTH,
    ClickHouseQuery,
    alert_annotation,
    custom,
    dashboard_link,
    finish,
    link,
    links_property,
    looked_at,
    matcher_box,
    measure_choice,
    policy_text,
    policy_variable,
    precision,
    promql,
    prop,
    start,
    table_panel,
    text_box,
    time_series,
    units_from,
)

UID = "flow-incident"
RAW_FLOWS = 200
#: Rows of a table: sources that rise together must all be there.
KEYS = 100

QUESTION = flows_sql.within_filters(
    replace(
        RANGE,
        measure=chosen_measure(),
        top="'8'",
        constants=condition.CONSTANTS,
        where=condition.WHERE,
        settings=flows_sql.SETTINGS,
    ),
    alone=condition.EMPTY,
)

#: The Data Explorer with the same measure and filters.
EXPLORER = (
    "/d/flow-explorer?${__url_time_range}&${measure:queryparam}&${filters:queryparam}"
    "&${condition:queryparam}&${precision:queryparam}"
)

#: PromQL selector of the alert's key.
KEY = '{policy="$policy",${key:raw}}'

DEFAULT_METRIC = '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))'


def _value() -> timeseries.Panel:
    bound = 'policy:flow_policy_static_threshold:max{policy="$policy"}'
    panel = time_series(
        "Value, bounds and baseline",
        "What the policy measures of the key, as the rules see it; its static bound, what is usual"
        " at this hour with its band, and the bound from that. On the right axis the node's own"
        " metric, if Prometheus has it.",
        "short",
        [
            promql(f"topk(20, key:flow_policy_value:max{KEY})", "value", ref_id="A"),
            promql(bound, "static bound, {{bound}}", ref_id="static"),
            promql(
                f"topk(20, key:flow_policy_baseline:effective{KEY})",
                "usual ({{baseline}})",
                ref_id="usual",
            ),
            promql(
                f"topk(20, key:flow_policy_baseline:lower{KEY})", "usual, lower", ref_id="lower"
            ),
            promql(
                f"topk(20, key:flow_policy_baseline:upper{KEY})", "usual, upper", ref_id="upper"
            ),
            promql(
                f"topk(20, key:flow_policy_baseline:bound{KEY})",
                "bound from the usual, {{bound}}",
                ref_id="bound",
            ),
            promql(
                '(${metric:raw}) and on (instance) up{instance=~"(${node:raw})([.:].*)?"}',
                "{{instance}}",
                ref_id="node",
            ),
        ],
        size=(WIDTH, 9),
    )
    red = {"mode": "fixed", "fixedColor": "red"}
    dashed = prop("custom.lineStyle", {"fill": "dash", "dash": [6, 6]})
    band = {"mode": "fixed", "fixedColor": "#8e8e8e"}
    return (
        panel.override_by_query("static", [prop("color", red), dashed])
        .override_by_query("bound", [prop("color", {**red, "fixedColor": "orange"}), dashed])
        .override_by_query("usual", [prop("color", {"mode": "fixed", "fixedColor": "green"})])
        .override_by_query("lower", [prop("color", band)])
        .override_by_query(
            "upper", [prop("color", band), prop("custom.fillBelowTo", "usual, lower")]
        )
        .override_by_query(
            "node",
            [
                prop("custom.axisPlacement", "right"),
                prop("custom.axisLabel", "node"),
                prop("color", {"mode": "fixed", "fixedColor": "purple"}),
                prop("unit", "percentunit"),
            ],
        )
    )


def _series() -> timeseries.Panel:
    question = replace(QUESTION, dimension=chosen_dimension("dimension"))
    return (
        time_series(
            "Traffic by ${dimension:text}: ${measure:text}",
            "The key's flows, split by what is chosen above; all but the largest are Other."
            + ESTIMATES,
            "short",
            [
                ClickHouseQuery(series_query(question), series=True),
                ClickHouseQuery(question.unit_query(), ref_id="unit"),
            ],
            size=(12, 9),
            source=CLICKHOUSE,
        )
        .display_name("${__field.labels.series}")
        .with_transformation(units_from("unit"))
        .override_by_name("Other", [prop("color", {"mode": "fixed", "fixedColor": "#8e8e8e"})])
    )


def _changes(
    title: str, description: str, dimension: str, dimension_2: str = "", *, host: bool = False
) -> table.Panel:
    question = replace(QUESTION, dimension=by(dimension))
    hidden = ["Second key"]
    if dimension_2:
        question = replace(question, dimension_2=by(dimension_2))
        hidden = []
    value = "${__data.fields.filter_1:percentencode}"
    explorer = f"{EXPLORER}&var-dimension={dimension}"
    links = [
        link("Show as a graph", explorer),
        link(
            "Only this, in the Data Explorer", f"{explorer}&var-filters={dimension}%7C%3D%7C{value}"
        ),
    ]
    if host:
        links.insert(
            0, link("Host profile", f"/d/flow-host?${{__url_time_range}}&var-address={value}")
        )
    panel = (
        table_panel(
            title,
            description,
            "short",
            [
                ClickHouseQuery(changes_query(question, variable("since"), KEYS)),
                ClickHouseQuery(question.unit_query(), ref_id="unit"),
            ],
            size=(12, 8),
        )
        .with_transformation(units_from("unit", "Before", "During", "Change"))
        .override_by_name("Key", [links_property(*links)])
        .override_by_regexp("filter_.", [prop("custom.hidden", True)])
    )
    for name in hidden:
        panel = panel.override_by_name(name, [prop("custom.hidden", True)])
    return panel


def dashboard() -> Dashboard:
    """``flow-incident``."""
    minutes = LEAD_SECONDS // 60
    during = (
        f" During begins {minutes} minutes before the alert; values are averages of both times, and"
        " what changed most comes first. Different values are counted in each bucket, so an alert"
        " over a longer window tells of more; they are those of the"
        f" {COUNTED_KEYS} keys with most flows.{ESTIMATES}"
    )
    made = (
        start(
            UID,
            "Flow Incident",
            "One alert: its value with bounds and baseline, and what changed when it began.",
            "now-4h",
            refresh="",
        )
        .with_variable(policy_variable())
        .with_variable(matcher_box())
        .with_variable(
            policy_text(
                condition.NAME,
                "Policy's filter",
                "Which flows the policy counts, as an SQL condition; empty where the policy counts"
                " all of them, or looks them up in a list.",
                'flow_policy_filter_info{policy="$policy"}',
            )
        )
        .with_variable(measure_choice())
        .with_variable(
            custom("dimension", "Split by", "What the graph is split by.", DIMENSIONS, "src_as")
        )
        .with_variable(
            text_box(
                "since",
                "Alert began",
                "When the alert began, in milliseconds since the epoch. Empty: the middle of the"
                " range.",
            )
        )
        .with_variable(
            text_box(
                "node",
                "Node",
                "Whose own metric is shown beside the value: a regular expression of the instance,"
                " without its port.",
                ".*",
            )
        )
        .with_variable(
            text_box(
                "metric",
                "Node's metric",
                "PromQL with the label instance, shown on the right axis.",
                DEFAULT_METRIC,
            )
        )
        .with_variable(
            builders.AdHocVariable("filters")
            .label("Filters")
            .description("The flows that the alert is about; all conditions hold.")
            .datasource(CLICKHOUSE)
        )
        .with_variable(
            builders.ConstantVariable("clickhouse_adhoc_query").value(
                flows_sql.ad_hoc_values_query()
            )
        )
        .with_variable(precision())
        .with_variable(looked_at(looked_at_query(QUESTION, flows_sql.AUTO)))
        .link(
            dashboard_link(
                "The same in the Data Explorer",
                "/d/flow-explorer?${measure:queryparam}&${filters:queryparam}&${condition:queryparam}"
                "&${precision:queryparam}&var-dimension=src_addr",
            )
        )
        .link(
            dashboard_link(
                "All ports of the node",
                "/d/flow-explorer?${measure:queryparam}&${precision:queryparam}&var-dimension=dst_port"
                "&var-address=${node:percentencode}",
            )
        )
        .annotation(alert_annotation())
        .with_panel(
            table_panel(
                "Alerts of this key",
                "The alerts of this policy and key in the range, as the history tells.",
                "none",
                [ClickHouseQuery(incident_sql.alerts_query())],
                size=(WIDTH, 5),
            )
            .override_by_name(
                "Severity",
                [
                    prop("mappings", severity_colours()),
                    prop("custom.cellOptions", {"type": "color-text"}),
                ],
            )
            .override_by_name("Duration", [prop("unit", "s")])
        )
        .with_panel(_value())
        .with_panel(_series())
        .with_panel(
            time_series(
                "Different sources and destinations",
                "How many addresses the key's flows come from and go to, in each bucket: a fan-in"
                " or a scan shows here, however small each flow is.",
                "short",
                [ClickHouseQuery(distinct_query(QUESTION), series=True)],
                size=(12, 9),
                source=CLICKHOUSE,
            ).display_name("${__field.labels.series}")
        )
        .with_panel(_changes("Source ASes", "Autonomous systems that send." + during, "src_as"))
        .with_panel(_changes("Sources", "Addresses that send." + during, "src_addr", host=True))
        .with_panel(
            _changes("Destination ports", "Ports and services sent to." + during, "dst_port")
        )
        .with_panel(_changes("Destinations", "Addresses sent to." + during, "dst_addr", host=True))
        .with_panel(
            _changes(
                "Devices and input interfaces",
                "Who reported the flows, and by which interface they came in." + during,
                "device",
                "in_if",
            )
        )
        .with_panel(
            _changes("Source countries", "Countries of the sources." + during, "src_country")
        )
        .with_panel(
            table_panel(
                "Evidence kept",
                "The largest contributors before and during the alert, frozen when it fired: they"
                " outlive the flows themselves.",
                "short",
                [ClickHouseQuery(incident_sql.evidence_query())],
                size=(WIDTH, 8),
            ).override_by_regexp("/^Bytes/", [prop("unit", "decbytes")])
        )
        .with_panel(
            table_panel(
                "Raw flows",
                f"The latest {RAW_FLOWS} flow records of the key, as reported; bytes and packets"
                " are already multiplied by the sampling rate.",
                "none",
                [ClickHouseQuery(raw_flows_query(QUESTION, RAW_FLOWS))],
                size=(WIDTH, 10),
            ).override_by_name("Bytes", [prop("unit", "decbytes")])
        )
    )
    return finish(made)
