"""Data Explorer: any question of the form "what is big, by what, of which traffic"."""

from __future__ import annotations

from dataclasses import replace

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models.common import GraphDrawStyle
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.columns import DIMENSIONS, NO_DIMENSION
from exporter.explore.drawn import looked_at_query
from exporter.explore.flows import raw_flows_query, summary_query
from exporter.explore.hours import COUNTED_HOSTS
from exporter.explore.keys import LARGEST_GROUPS, PAIR_GROUPS, keys_query
from exporter.explore.rollups import ROLLUP_SECONDS
from exporter.explore.series import absent_series_query, series_query
from exporter.explore.table import table_query

from . import condition
from . import flows_sql as sql
from .flows_sql import AUTO, RANGE, chosen_dimension, chosen_measure, variable
from .parts import (
    CLICKHOUSE,
    ESTIMATES,
    ClickHouseQuery,
    address_box,
    custom,
    finish,
    link,
    links_property,
    looked_at,
    measure_choice,
    precision,
    prop,
    query_variable,
    start,
    stat_panel,
    table_panel,
    text_box,
    time_series,
    units_from,
)

UID = "flow-explorer"
TOP = (5, 10, 15, 25, 50, 100)
RAW_FLOWS = 200

#: What the variables ask.
_ASKED = replace(
    RANGE,
    dimension=chosen_dimension("dimension"),
    dimension_2=chosen_dimension("dimension_2", optional=True),
    measure=chosen_measure(),
    top=variable("top"),
    address=variable("address"),
    device=variable("device"),
    compare=variable("compare"),
    pinned=variable("pinned"),
    rollup_if=f"{sql.NO_AD_HOC_FILTERS} AND {condition.EMPTY}",
    beyond=sql.BEYOND,
    hourly=sql.HOURLY,
    constants=condition.CONSTANTS,
    where=condition.WHERE,
    settings=sql.SETTINGS,
)
QUESTION = sql.within_filters(
    _ASKED, alone=f"trim({variable('address')}) = '' AND {condition.EMPTY}"
)

#: The keys that have panels of their own: one each, where the panel is repeated.
_KEYS = f"splitByChar(',', trim(BOTH '{{}}' FROM {variable('key')}))"
ONE_KEY = replace(
    QUESTION,
    keys=_KEYS,
    top=f"if(has({_KEYS}, '*'), {QUESTION.top}, '0')",
)
#: Panels side by side at most.
MULTIPLES = 24

#: Numbers of a row of the top table that are values of the measure.
_RATES = ("Average", "95th percentile", "Maximum", "Last")

#: Offered on each row: the same traffic, shown by something else.
_SHOW_BY = (
    ("source address", "src_addr"),
    ("destination address", "dst_addr"),
    ("destination port", "dst_port"),
    ("source AS", "src_as"),
    ("device", "device"),
)


def link_here(*, dimension: str = "", filters: tuple[str, ...] = ()) -> str:
    """This dashboard with its present choices, another dimension, and further ad-hoc filters."""
    kept = [
        "dimension",
        "dimension_2",
        "measure",
        "top",
        "device",
        "address",
        "compare",
        "pinned",
        "precision",
        "condition",
        "filters",
    ]
    if dimension:
        kept = [name for name in kept if not name.startswith("dimension")]
    parts = ["${__url_time_range}", *(f"${{{name}:queryparam}}" for name in kept)]
    if dimension:
        parts += [f"var-dimension={dimension}", f"var-dimension_2={NO_DIMENSION}"]
    parts += [f"var-filters={condition}" for condition in filters]
    return f"/d/{UID}?{'&'.join(parts)}"


def _row_links(variable: str, field: str) -> list[builders.DashboardLink]:
    value = f"${{__data.fields.{field}:percentencode}}"
    column = f"${{{variable}:percentencode}}"
    include = f"{column}%7C%3D%7C{value}"
    exclude = f"{column}%7C%21%3D%7C{value}"
    return [
        link("Include only this", link_here(filters=(include,))),
        link("Exclude this", link_here(filters=(exclude,))),
        link("Show raw flows", link_here(filters=(include,)) + "&viewPanel=4"),
        *(
            link(f"Show by {words}", link_here(dimension=column, filters=(include,)))
            for words, column in _SHOW_BY
        ),
    ]


def _look(panel: timeseries.Panel) -> timeseries.Panel:
    return (
        panel.display_name("${__field.labels.series}")
        .with_transformation(units_from("unit"))
        .override_by_regexp(
            "/, earlier$/", [prop("custom.lineStyle", {"fill": "dash", "dash": [4, 6]})]
        )
        .override_by_name("Other", [prop("color", {"mode": "fixed", "fixedColor": "#8e8e8e"})])
    )


_HOURLY = (
    f" Over {ROLLUP_SECONDS // 3600} hours and more addresses, hosts, networks, ASes and countries"
    " come from hourly rollups where nothing else filters: buckets are hours, of which the last"
    f" may not be over. Different addresses are those of the {COUNTED_HOSTS} hosts with most flows,"
    " about 2 % off, and there is no Other."
)
_PAIRS = (
    " Pairs of two columns with many values, such as addresses and ports, are sought in the"
    f" {LARGEST_GROUPS:,} largest of {PAIR_GROUPS:,} groups of pairs (by flows where different"
    " values are counted): a pair left out carries less than any of these groups."
)
_TITLE = "Top ${top} by ${dimension:text}: ${measure:text}"
_PRESENT = ClickHouseQuery(series_query(QUESTION), series=True)
_UNIT = ClickHouseQuery(QUESTION.unit_query(), ref_id="unit")


def _series() -> timeseries.Panel:
    return _look(
        time_series(
            _TITLE,
            "The measure of the keys with the largest total over the range, and all the rest as"
            " Other; pinned keys stay whatever their rank. Buckets without flows read zero; the"
            " last, unfinished one is left out. Dashed: the same keys in the earlier range."
            + _HOURLY
            + _PAIRS
            + ESTIMATES,
            "short",
            [
                _PRESENT,
                ClickHouseQuery(absent_series_query(QUESTION), series=True, ref_id="absent"),
                _UNIT,
            ],
            size=(24, 12),
            source=CLICKHOUSE,
        )
    )


def _other_views() -> list[builders.Row]:
    """Rows that ask nothing until they are opened."""
    stacked = time_series(
        f"{_TITLE}, stacked",
        "The same keys and Other on top of each other: their upper edge is all of the traffic."
        " Whether one of them falls is seen better as a line.",
        "short",
        [_PRESENT, _UNIT],
        size=(24, 12),
        source=CLICKHOUSE,
        stacked=True,
    )
    bars = time_series(
        f"{_TITLE}, bars",
        "The same as a bar per bucket, one on top of the other.",
        "short",
        [_PRESENT, _UNIT],
        size=(24, 12),
        source=CLICKHOUSE,
        stacked=True,
    )
    bars = bars.draw_style(GraphDrawStyle.BARS).fill_opacity(80)
    one = time_series(
        "${key}: ${measure:text}",
        "One key alone, on a scale of its own: how it moves, however small it is.",
        "short",
        [ClickHouseQuery(series_query(ONE_KEY), series=True), _UNIT],
        size=(6, 7),
        source=CLICKHOUSE,
        calcs=("max", "lastNotNull"),
    )
    one = one.repeat("key").repeat_direction("h").max_per_row(4)
    return [
        builders.Row(title).collapsed(True).with_panel(_look(panel))
        for title, panel in (("Stacked", stacked), ("Bars", bars), ("Small multiples", one))
    ]


def _table() -> table.Panel:
    return (
        table_panel(
            "Keys in numbers",
            "The same keys: average, 95th percentile, maximum and last of the buckets, and the"
            " total over the range (bits, packets, flows, or different values) with that of the"
            " earlier range. Click a key to"
            " include or exclude it, to see its flows, or to show it by something else."
            + ESTIMATES,
            "short",
            [
                ClickHouseQuery(table_query(QUESTION)),
                ClickHouseQuery(QUESTION.unit_query(), ref_id="unit"),
                ClickHouseQuery(QUESTION.unit_query(of_total=True), ref_id="total"),
            ],
            size=(24, 11),
            sort="Total",
        )
        .with_transformation(units_from("unit", *_RATES))
        .with_transformation(units_from("total", "Total", "Earlier"))
        .override_by_name("Change", [prop("unit", "percentunit")])
        .override_by_name("Key", [links_property(*_row_links("dimension", "filter_1"))])
        .override_by_name("Second key", [links_property(*_row_links("dimension_2", "filter_2"))])
        .override_by_regexp("filter_.", [prop("custom.hidden", True)])
    )


def _summary() -> stat.Panel:
    panel = stat_panel(
        "All flows that match",
        "The whole of the filtered traffic over the range, whatever it is grouped by: average"
        " rates, number of flow records, different sources and destinations, and mean packet"
        " size (small packets in large numbers are a sign of their own). Where drawn flows stand"
        " for all, different addresses are not counted: Precision Exact does.",
        "short",
        [ClickHouseQuery(summary_query(QUESTION))],
        size=(24, 4),
        source=CLICKHOUSE,
    )
    units = {"Bits/s": "bps", "Packets/s": "pps", "Bytes per packet": "decbytes"}
    for field, unit in units.items():
        panel = panel.override_by_name(field, [prop("unit", unit)])
    return panel


def _raw_flows() -> table.Panel:
    host = "/d/flow-host?${__url_time_range}&var-address="
    panel = table_panel(
        "Raw flows",
        f"The latest {RAW_FLOWS} flow records that match, as reported; bytes and packets are"
        " already multiplied by the sampling rate.",
        "none",
        [ClickHouseQuery(raw_flows_query(QUESTION, RAW_FLOWS))],
        size=(24, 12),
    ).override_by_name("Bytes", [prop("unit", "decbytes")])
    for field in ("Source", "Destination"):
        panel = panel.override_by_name(
            field,
            [links_property(link("Host profile", f"{host}${{__value.raw:percentencode}}"))],
        )
    return panel


def dashboard() -> Dashboard:
    """``flow-explorer``."""
    none = ("None", NO_DIMENSION)
    made = (
        start(
            UID,
            "Flow Data Explorer",
            "Group the flows by any dimension and measure, filter, and go down to the records.",
            "now-1h",
            refresh="",
        )
        .with_variable(custom("dimension", "Group by", "What to group by.", DIMENSIONS, "src_addr"))
        .with_variable(
            custom("dimension_2", "And by", "A second dimension.", (none, *DIMENSIONS), none[1])
        )
        .with_variable(measure_choice())
        .with_variable(
            custom("top", "Top", "How many keys.", [(str(n), str(n)) for n in TOP], "10")
        )
        .with_variable(address_box())
        .with_variable(
            query_variable("device", "Device", "Who reported the flow.", sql.devices_query())
        )
        .with_variable(
            custom(
                "compare",
                "Compare with",
                "An earlier range of the same length.",
                [("Nothing", NO_DIMENSION), ("A day before", "day"), ("A week before", "week")],
                NO_DIMENSION,
            )
        )
        .with_variable(
            text_box(
                "pinned",
                "Pinned",
                "Keys that stay whatever their rank, as the table shows them, separated by commas:"
                " 14999, 20012. One without traffic is a line of zeros.",
            )
        )
        .with_variable(precision())
        .with_variable(looked_at(looked_at_query(QUESTION, AUTO)))
        .with_variable(
            text_box(
                condition.NAME,
                "SQL condition",
                "For experts, over flow columns: dst_port IN (443, 8443) AND bytes / packets < 100."
                " Columns, operators, numbers, texts, AND, OR, NOT, IN, LIKE, and functions that"
                " filters of policies may use. Empty: everything.",
            )
        )
        .with_variable(
            query_variable(
                "key",
                "Small multiples",
                "Keys of the first dimension with a panel of their own, in the row Small"
                " multiples.",
                keys_query(
                    replace(
                        QUESTION,
                        top=f"toString(least({MULTIPLES}, toUInt16OrZero({QUESTION.top})))",
                    )
                ),
            )
        )
        .with_variable(
            builders.AdHocVariable("filters")
            .label("Filters")
            .description("Conditions on any flow column; all of them hold.")
            .datasource(CLICKHOUSE)
        )
        .with_variable(
            # The plugin asks this for values of an ad-hoc filter's column, and takes the columns
            # from the table that it names.
            builders.ConstantVariable("clickhouse_adhoc_query").value(sql.ad_hoc_values_query())
        )
        .with_panel(_summary())
        .with_panel(_series())
        .with_panel(_table())
        .with_panel(_raw_flows())
    )
    for row in _other_views():
        made = made.with_row(row)
    return finish(made)
