"""Interfaces and ASes, for those who run the network."""

from __future__ import annotations

from grafana_foundation_sdk.builders import table, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from .flows_sql import RANGE, top_query
from .parts import (
    CLICKHOUSE,
    WIDTH,
    ClickHouseQuery,
    finish,
    link,
    links_property,
    prop,
    start,
    table_panel,
    time_series,
)

UID = "flow-interfaces"

#: Length of a billing sample in seconds.
SAMPLE = 300

_IN_RANGE = f"time >= {RANGE.first} AND time < {RANGE.past}"


def _name(side: str) -> str:
    named = f"toString(any({side}_if_name))"
    return f"concat(toString(device), ' ', if({named} != '', {named}, toString({side}_if)))"


def series_query(side: str, limit: int = 10) -> str:
    """``time``, ``series``, ``Value``: bits per second of the largest interfaces on one side."""
    bucket = f"toStartOfInterval(time, INTERVAL {RANGE.step} second)"
    return f"""\
SELECT moment AS time, series, Value FROM (
  SELECT moment, max(label) OVER (PARTITION BY device, {side}_if) AS series, Value FROM (
    SELECT device, {side}_if, {bucket} AS moment, {_name(side)} AS label,
      toFloat64(sum(bytes)) * 8 / {RANGE.step} AS Value
    FROM flows_1m
    WHERE {_IN_RANGE} AND (device, {side}_if) IN (
      SELECT device, {side}_if FROM flows_1m WHERE {_IN_RANGE}
      GROUP BY device, {side}_if ORDER BY sum(bytes) DESC, device, {side}_if LIMIT {limit}
    )
    GROUP BY device, {side}_if, moment
    ORDER BY device, {side}_if, moment
      WITH FILL FROM {RANGE.first} TO {RANGE.past} STEP {RANGE.step}
  )
)
ORDER BY time, series"""


def billing_query(limit: int = 200) -> str:
    """One row per interface: average, 95th percentile of five-minute samples, and maximum."""
    first = f"toStartOfInterval($__fromTime, INTERVAL {SAMPLE} second)"
    past = f"greatest(toStartOfInterval($__toTime, INTERVAL {SAMPLE} second), {first} + {SAMPLE})"
    samples = f"intDiv(dateDiff('second', {first}, {past}), {SAMPLE})"

    def values(side: str) -> str:
        found = f"arrayFilter(sample -> sample > 0, groupArray({side}_bits))"
        return (
            f"arrayConcat({found}, arrayWithConstant({samples}"
            f" - least({samples}, length({found})), toFloat64(0)))"
        )

    return f"""\
SELECT toString(device) AS "Device", interface AS "Index", max(label) AS "Interface",
  arrayAvg(ins) AS "In", arrayReduce('quantileExactInclusive(0.95)', ins) AS "In, p95",
  arrayMax(ins) AS "In, maximum",
  arrayAvg(outs) AS "Out", arrayReduce('quantileExactInclusive(0.95)', outs) AS "Out, p95",
  arrayMax(outs) AS "Out, maximum"
FROM (
  SELECT device, interface, max(label) AS label, {values("in")} AS ins, {values("out")} AS outs
  FROM (
    SELECT device, used.2 AS interface, max(used.3) AS label,
      toFloat64(sumIf(bytes, used.1 = 'in')) * 8 / {SAMPLE} AS in_bits,
      toFloat64(sumIf(bytes, used.1 = 'out')) * 8 / {SAMPLE} AS out_bits
    FROM flows_1m
    ARRAY JOIN [('in', in_if, toString(in_if_name)), ('out', out_if, toString(out_if_name))] AS used
    WHERE time >= {first} AND time < {past}
    GROUP BY device, interface, toStartOfInterval(time, INTERVAL {SAMPLE} second)
  )
  GROUP BY device, interface
)
GROUP BY device, interface, ins, outs
ORDER BY greatest("In, p95", "Out, p95") DESC, "Device", "Index"
LIMIT {limit}"""


def _series(title: str, description: str, side: str) -> timeseries.Panel:
    return time_series(
        title,
        description,
        "bps",
        [ClickHouseQuery(series_query(side), series=True)],
        size=(12, 9),
        source=CLICKHOUSE,
    ).display_name("${__field.labels.series}")


def _top(title: str, description: str, column: str, second: str = "") -> table.Panel:
    value = "${__data.fields.filter_1:percentencode}"
    target = (
        "/d/flow-explorer?${__url_time_range}&var-dimension=src_addr"
        f"&var-filters={column}%7C%3D%7C{value}"
    )
    return (
        table_panel(
            title,
            description,
            "bps",
            [ClickHouseQuery(top_query(column, second, limit=20))],
            size=(8, 10),
            sort="Bits/s",
        )
        .override_by_name("Key", [links_property(link("Data Explorer", target))])
        .override_by_name("Packets/s", [prop("unit", "pps")])
        .override_by_regexp("filter_.", [prop("custom.hidden", True)])
    )


def dashboard() -> Dashboard:
    """``flow-interfaces``."""
    minutes = SAMPLE // 60
    made = (
        start(
            UID,
            "Flow Interfaces and ASes",
            "What interfaces carry, their 95th percentile, and the ASes behind it.",
            "now-6h",
        )
        .with_panel(
            _series(
                "Into interfaces",
                "Bits per second that come in by the ten largest input interfaces; a long flow is"
                " spread over the minutes that it covered.",
                "in",
            )
        )
        .with_panel(
            _series(
                "Out of interfaces",
                "Bits per second that leave by the ten largest output interfaces.",
                "out",
            )
        )
        .with_panel(
            table_panel(
                "Interfaces in numbers",
                f"Average, 95th percentile and maximum of {minutes}-minute samples over the range,"
                " as transit is billed; a sample without traffic is a zero.",
                "bps",
                [ClickHouseQuery(billing_query())],
                size=(WIDTH, 10),
            )
            .override_by_name("Index", [prop("unit", "none")])
            .override_by_name(
                "Device",
                [
                    links_property(
                        link(
                            "Data Explorer",
                            "/d/flow-explorer?${__url_time_range}&var-dimension=src_as"
                            "&var-filters=device%7C%3D%7C${__value.raw:percentencode}",
                        )
                    )
                ],
            )
        )
        .with_panel(_top("Source ASes", "Autonomous systems that send most.", "src_as"))
        .with_panel(_top("Destination ASes", "Autonomous systems that receive most.", "dst_as"))
        .with_panel(
            _top(
                "Source ASes by input interface",
                "By which interface the largest source ASes come in.",
                "src_as",
                "in_if",
            )
        )
    )
    return finish(made)
