"""A dashboard around its panels: what all have, links between them, annotations, numbers."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from .looks import RED, dashboard_link
from .queries import CLICKHOUSE, PROMETHEUS
from .variables import datasource_variable

TAG = "flow"


def start(
    uid: str, title: str, description: str, range_from: str, *, refresh: str = "1m"
) -> builders.Dashboard:
    """A dashboard with what all have: stable uid, UTC, the links between them, datasources.

    Dashboards to search in do not refresh: what one looks at must not move away.
    """
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("utc")
        .week_start("monday")
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time(range_from, "now")
        .refresh(refresh)
        .with_variable(
            datasource_variable(
                "datasource", "Data source", "prometheus", "Flow Prometheus", "flow-prometheus"
            )
        )
        .with_variable(
            datasource_variable(
                "clickhouse", "ClickHouse", CLICKHOUSE.type_val or "", "Flow ClickHouse",
                "flow-clickhouse",
            )
        )
    )  # fmt: skip
    for target, name in (
        ("flow-home", "Home"),
        ("flow-explorer", "Data Explorer"),
        ("flow-host", "Host"),
        ("flow-alerts", "Alerts"),
        ("flow-incident", "Incident"),
        ("flow-services", "Services"),
        ("flow-interfaces", "Interfaces"),
        ("flow-dns", "DNS"),
        ("flow-baselines", "Baselines"),
        ("flow-pipeline", "Pipeline"),
    ):
        if target != uid:
            made = made.link(dashboard_link(name, f"/d/{target}"))
    return made


def finish(made: builders.Dashboard) -> dashboard.Dashboard:
    """The dashboard, its panels numbered from 1 in reading order, rows' panels included."""
    built = made.build()
    number = 0
    for panel in built.panels or []:
        number += 1
        panel.id_val = number
        for inner in getattr(panel, "panels", None) or []:
            number += 1
            inner.id_val = number
    return built


def alert_annotation() -> builders.AnnotationQuery:
    """Marks the times at which alerts of policies fired."""
    made = (
        builders.AnnotationQuery()
        .name("Alerts of policies")
        .datasource(PROMETHEUS)
        .expr('ALERTS{alertstate="firing", policy!=""}')
        .step("60s")
        .title_format("{{alertname}}")
        .text_format("{{policy}}")
        .tag_keys("severity")
        .icon_color(RED)
        .enable(True)
    )
    made.build().placement = None  # type: ignore[assignment]  # the SDK's default hides it
    return made
