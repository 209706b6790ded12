"""What all dashboards share: datasources, queries, panels, links, variables, looks.

Every panel needs a title, a description and a unit, so the makers here ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: Through variables, so that a dashboard also works where the datasources have other uids.
CLICKHOUSE = common.DataSourceRef(type_val="grafana-clickhouse-datasource", uid="${clickhouse}")
PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

TAG = "flow"
WIDTH = 24

#: Shortest bucket: most devices export a flow that lasts once a minute.
BUCKET = "1m"
#: Buckets of one panel at most; the same where a table and a graph must agree.
MAX_BUCKETS = 360

GREEN, YELLOW, RED = "green", "yellow", "red"

#: Reducers in legends and what the legend calls their columns.
_CALCS = {"mean": "Mean", "max": "Max", "lastNotNull": "Last *"}


@dataclass
class ClickHouseQuery(Dataquery, Builder[Dataquery]):
    """A query as the ClickHouse plugin keeps it in a dashboard."""

    sql: str
    series: bool = False
    ref_id: str = "A"

    def build(self) -> Dataquery:
        """Itself: there is nothing to put together."""
        return self

    def to_json(self) -> dict[str, object]:
        """The plugin's ``CHSqlQuery``; ``format`` is 0 for time series, 1 for tables."""
        return {
            "datasource": CLICKHOUSE,
            "editorType": "sql",
            "format": 0 if self.series else 1,
            "pluginVersion": "4.20.0",
            "queryType": "timeseries" if self.series else "table",
            "rawSql": self.sql,
            "refId": self.ref_id,
        }


def promql(
    expression: str, legend: str = "__auto", *, instant: bool = False, ref_id: str = "A"
) -> prometheus.Dataquery:
    """A Prometheus query: a range, or with ``instant`` one table of values now."""
    query = prometheus.Dataquery().expr(expression).ref_id(ref_id).datasource(PROMETHEUS)
    if instant:
        return query.instant().format(PromQueryFormat.TABLE)
    return query.range().legend_format(legend)


def url(uid: str, **variables: str) -> str:
    """A link to one of our dashboards at the range that is looked at."""
    parts = ["${__url_time_range}", *(f"var-{name}={value}" for name, value in variables.items())]
    return f"/d/{uid}?{'&'.join(parts)}"


def link(title: str, target: str) -> builders.DashboardLink:
    """A link of a panel, a field or a dashboard, in the same window."""
    made = builders.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(target)
    made.build().placement = None  # type: ignore[assignment]  # the SDK's default hides it
    return made


def links_property(*links: builders.DashboardLink) -> DynamicConfigValue:
    """Data links of one field, for an override."""
    shown = [{"title": made.build().title, "url": made.build().url} for made in links]
    return DynamicConfigValue(id_val="links", value=shown)


def prop(name: str, value: object) -> DynamicConfigValue:
    """One property of a field override."""
    return DynamicConfigValue(id_val=name, value=value)


def thresholds(*steps: tuple[float, str], base: str = GREEN) -> builders.ThresholdsConfig:
    """Colours from these values upward."""
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps(
            [dashboard.Threshold(value=None, color=base)]
            + [dashboard.Threshold(value=value, color=color) for value, color in steps]
        )
    )


def place(panel: Any, size: tuple[int, int], title: str, description: str) -> Any:
    """A panel with what every panel has."""
    width, height = size
    return panel.title(title).description(description).span(width).height(height)


def time_series(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Builder[Dataquery]],
    *,
    size: tuple[int, int] = (12, 8),
    stacked: bool = False,
    source: common.DataSourceRef = PROMETHEUS,
    calcs: Sequence[str] = ("mean", "max", "lastNotNull"),
    links: Sequence[builders.DashboardLink] = (),
) -> timeseries.Panel:
    """Lines (or stacked areas) over time; the legend is sorted by the first of its ``calcs``."""
    mode = common.StackingMode.NORMAL if stacked else common.StackingMode.NONE
    panel = place(timeseries.Panel(), size, title, description)
    return (  # type: ignore[no-any-return]
        panel.unit(unit)
        .datasource(source)
        .targets(list(queries))
        .min(0)
        .interval(BUCKET if source is CLICKHOUSE else "15s")
        .max_data_points(MAX_BUCKETS)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(common_builders.StackingConfig().mode(mode).group("A"))
        .color_scheme(
            builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
        )
        .legend(
            common_builders.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(list(calcs))
            .sort_by(_CALCS[calcs[0]])
            .sort_desc(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .data_links(list(links))
    )


def table_panel(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Builder[Dataquery]],
    *,
    size: tuple[int, int] = (12, 8),
    source: common.DataSourceRef = CLICKHOUSE,
    sort: str = "",
) -> table.Panel:
    """A table whose columns may be filtered; ``sort`` names the column it starts sorted by.

    Text is shown as it is: without a unit of its own Grafana takes text that looks like a number
    for one, shows port 14999 as 15.0 kb/s, and puts that into links as well.
    """
    panel = place(table.Panel(), size, title, description)
    panel = (
        panel.unit(unit)
        .datasource(source)
        .targets(list(queries))
        .interval(BUCKET)
        .max_data_points(MAX_BUCKETS)
        .show_header(True)
        .filterable(True)
        .cell_height(common.TableCellHeight.SM)
        .override_by_field_type("string", [prop("unit", "string")])
    )
    if sort:
        panel = panel.sort_by(
            [common_builders.TableSortByFieldState().display_name(sort).desc(True)]
        )
    return panel  # type: ignore[no-any-return]


def stat_panel(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[Builder[Dataquery]],
    *,
    size: tuple[int, int] = (4, 4),
    source: common.DataSourceRef = PROMETHEUS,
    steps: builders.ThresholdsConfig | None = None,
    target: str = "",
    graph: bool = False,
    empty: str = "none",
) -> stat.Panel:
    """One number, or several beside each other, coloured by thresholds; leads to ``target``."""
    panel = place(stat.Panel(), size, title, description)
    panel = (
        panel.unit(unit)
        .datasource(source)
        .targets(list(queries))
        .interval(BUCKET if source is CLICKHOUSE else "15s")
        .max_data_points(MAX_BUCKETS)
        .no_value(empty)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA if graph else common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.AUTO)
        .reduce_options(
            common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")
        )
        .thresholds(steps if steps is not None else thresholds(base="text"))
    )
    if target:
        panel = panel.data_links([link("Open", target)])
    return panel  # type: ignore[no-any-return]


def merge() -> dashboard.DataTransformerConfig:
    """The tables of all queries as one, joined by what they have in common."""
    return dashboard.DataTransformerConfig(id_val="merge", options={})


def rename(names: Mapping[str, str], hidden: Sequence[str] = ()) -> dashboard.DataTransformerConfig:
    """Columns renamed, in this order, the ``hidden`` ones left out."""
    return dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {name: index for index, name in enumerate(names)},
            "renameByName": dict(names),
        },
    )


def _datasource_variable(name: str, label: str, kind: str, shown: str, uid: str) -> Any:
    return (
        builders.DatasourceVariable(name)
        .label(label)
        .type(kind)
        .hide(dashboard.VariableHide.HIDE_VARIABLE)
        .current(dashboard.VariableOption(selected=True, text=shown, value=uid))
    )


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
            _datasource_variable(
                "datasource", "Data source", "prometheus", "Flow Prometheus", "flow-prometheus"
            )
        )
        .with_variable(
            _datasource_variable(
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
            made = made.link(link(name, f"/d/{target}").keep_time(True))
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


def custom(
    name: str, label: str, description: str, options: Sequence[tuple[str, str]], current: str
) -> builders.CustomVariable:
    """A choice among (text, value) pairs and nothing else."""
    text_of = {value: text for text, value in options}
    return (
        builders.CustomVariable(name)
        .label(label)
        .description(description)
        .values(", ".join(f"{text} : {value}" for text, value in options))
        .allow_custom_value(False)
        .current(dashboard.VariableOption(selected=True, text=text_of[current], value=current))
    )


def text_box(name: str, label: str, description: str, default: str = "") -> Any:
    """A box for free text."""
    return (
        builders.TextBoxVariable(name)
        .label(label)
        .description(description)
        .default_value(default)
        .current(dashboard.VariableOption(selected=True, text=default, value=default))
    )


def address_box(name: str = "address", label: str = "Host, address or prefix") -> Any:
    """A box for an address, a prefix or a name, looked for as source and as destination."""
    return text_box(
        name,
        label,
        "Source or destination: an IPv4 or IPv6 address, a prefix such as 10.0.0.0/8, the name"
        " of a host or of a network. Empty: everything.",
    )


def matcher_box(name: str = "key") -> Any:
    """A box for the label matchers of one key of a policy."""
    return text_box(
        name,
        "Key",
        'Labels of the policy\'s key as PromQL matches them, such as dst_addr="10.0.0.1". Empty:'
        " the largest keys.",
    )


def policy_variable() -> builders.QueryVariable:
    """One policy of those that the collectors evaluate."""
    query = "label_values(flow_policy_info, policy)"
    return (
        builders.QueryVariable("policy")
        .label("Policy")
        .description("Which policy.")
        .datasource(PROMETHEUS)
        .query({"refId": "policy", "qryType": 5, "query": query})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .current(dashboard.VariableOption(selected=True, text="", value=""))
    )


def policy_text(name: str, label: str, description: str, series: str) -> builders.QueryVariable:
    """What a label, called as the variable, of a policy's ``series`` says; empty without one."""
    query = f"label_values({series}, {name})"
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"refId": name, "qryType": 5, "query": query})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .current(dashboard.VariableOption(selected=True, text="", value=""))
    )


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


def units_from(ref_id: str, *columns: str) -> dashboard.DataTransformerConfig:
    """Gives these columns, or all numbers, the unit that query ``ref_id`` tells in its only row.

    By name, not by pattern: beside a second query a pattern is held against names with the
    query's in front, such as ``A Before``.
    """
    named = {"id": "byNames", "options": {"mode": "include", "names": list(columns)}}
    return dashboard.DataTransformerConfig(
        id_val="configFromData",
        options={
            "applyTo": named if columns else {"id": "byType", "options": "number"},
            "configRefId": ref_id,
            "mappings": [{"fieldName": "unit", "handlerKey": "unit"}],
        },
    )


def query_variable(
    name: str, label: str, description: str, sql: str, *, multi: bool = True
) -> builders.QueryVariable:
    """A choice that fills itself from ClickHouse for the range; ``All`` reads ``*``."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(CLICKHOUSE)
        .query({"refId": name, "queryType": "sql", "rawSql": sql})
        .definition(sql)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(multi)
        .include_all(True)
        .all_value("*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )
