"""What all dashboards share: datasources, queries, panels, links, variables, looks."""

from .frame import alert_annotation, finish, start
from .looks import RED, YELLOW, dashboard_link, link, links_property, prop, thresholds
from .panels import WIDTH, place, stat_panel, table_panel, time_series
from .queries import CLICKHOUSE, PROMETHEUS, ClickHouseQuery, promql
from .transformations import merge, rename, units_from
from .variables import (
    ESTIMATES,
    address_box,
    custom,
    looked_at,
    matcher_box,
    measure_choice,
    policy_text,
    policy_variable,
    precision,
    query_variable,
    text_box,
)

__all__ = [
    "CLICKHOUSE",
    "ESTIMATES",
    "PROMETHEUS",
    "RED",
    "WIDTH",
    "YELLOW",
    "ClickHouseQuery",
    "address_box",
    "alert_annotation",
    "custom",
    "dashboard_link",
    "finish",
    "link",
    "links_property",
    "looked_at",
    "matcher_box",
    "measure_choice",
    "merge",
    "place",
    "policy_text",
    "policy_variable",
    "precision",
    "promql",
    "prop",
    "query_variable",
    "rename",
    "start",
    "stat_panel",
    "table_panel",
    "text_box",
    "thresholds",
    "time_series",
    "units_from",
]
