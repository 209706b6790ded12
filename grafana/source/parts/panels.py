"""Panels. Every one needs a title, a description and a unit, so the makers ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard

from .looks import DataLink, link, prop, thresholds
from .queries import CLICKHOUSE, PROMETHEUS

WIDTH = 24

#: Shortest bucket: most devices export a flow that lasts once a minute.
BUCKET = "1m"

#: Buckets of one panel at most; the same where a table and a graph must agree.
MAX_BUCKETS = 360

#: Reducers in legends and what the legend calls their columns.
_CALCS = {"mean": "Mean", "max": "Max", "lastNotNull": "Last *"}


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
    links: Sequence[DataLink] = (),
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
