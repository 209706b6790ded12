"""Interfaces and ASes, for those who run the network."""

from __future__ import annotations

from dataclasses import replace

from grafana_foundation_sdk.builders import table, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from .flows_sql import RANGE, devices_query, variable
from .parts import (
    CLICKHOUSE,
    WIDTH,
    ClickHouseQuery,
    finish,
    link,
    links_property,
    prop,
    query_variable,
    start,
    table_panel,
    time_series,
)
from .top_sql import top_query

UID = "flow-interfaces"

#: Length of a billing sample in seconds.
SAMPLE = 300

_USE = prop(
    "thresholds",
    {
        "mode": "absolute",
        "steps": [
            {"value": None, "color": "green"},
            {"value": 0.8, "color": "yellow"},
            {"value": 0.95, "color": "red"},
        ],
    },
)
_COLOURED = prop("custom.cellOptions", {"type": "color-text"})

#: Whether a row is of the devices chosen.
_OF_DEVICES = replace(RANGE, device=variable("device")).of_devices

_ENDS = "[('in', in_if, toString(in_if_name)), ('out', out_if, toString(out_if_name))] AS used"


def _summed(step: str, first: str, past: str) -> str:
    """``flows_1m`` by interfaces and buckets: a hundredth of its rows is then seen from both ends.

    ``first`` and ``past`` are the ends of the range.
    """
    return f"""\
(
  SELECT toStartOfInterval(f.time, INTERVAL {step} second) AS time, f.device AS device,
    f.in_if AS in_if, f.out_if AS out_if, max(f.in_if_name) AS in_if_name,
    max(f.out_if_name) AS out_if_name, sum(f.bytes) AS bytes
  FROM flows_1m AS f
  WHERE f.time >= {first} AND f.time < {past} AND {_OF_DEVICES}
  GROUP BY time, device, in_if, out_if
)"""


def series_query(limit: int = 8) -> str:
    """``time``, ``series``, ``Value``: bits per second of the largest interfaces, in and out."""
    summed = _summed(RANGE.step, RANGE.first, RANGE.past)
    return f"""\
SELECT moment AS time, concat(name, ' ', way) AS series, Value FROM (
  SELECT moment, way, Value, max(label) OVER (PARTITION BY device, interface) AS name FROM (
    SELECT device, used.2 AS interface, used.1 AS way, time AS moment,
      concat(toString(device), ' ', if(max(used.3) != '', max(used.3), toString(interface)))
        AS label,
      toFloat64(sum(bytes)) * 8 / {RANGE.step} AS Value
    FROM {summed}
    ARRAY JOIN {_ENDS}
    WHERE (device, used.2) IN (
      SELECT device, used.2 FROM {summed} ARRAY JOIN {_ENDS} WHERE used.2 != 0
      GROUP BY device, used.2 ORDER BY sum(bytes) DESC, device, used.2 LIMIT {limit}
    )
    GROUP BY device, interface, way, moment
    ORDER BY device, interface, way, moment
      WITH FILL FROM {RANGE.first} TO {RANGE.past} STEP {RANGE.step}
  )
)
ORDER BY time, series"""


def providers_query() -> str:
    """One row per provider: its traffic in and out, the shares of them, and p95 of samples."""
    first = f"toStartOfInterval($__fromTime, INTERVAL {SAMPLE} second)"
    past = f"greatest(toStartOfInterval($__toTime, INTERVAL {SAMPLE} second), {first} + {SAMPLE})"
    samples = f"intDiv(dateDiff('second', {first}, {past}), {SAMPLE})"

    def p95(side: str) -> str:
        return (
            f"arrayReduce('quantileExactInclusive(0.95)', arrayConcat(groupArray({side}_bits),"
            f" arrayWithConstant({samples} - least({samples}, count()), toFloat64(0))))"
        )

    return f"""\
SELECT provider AS "Provider", interfaces AS "Interfaces",
  bits_in AS "In", bits_in / nullIf(sum(bits_in) OVER (), 0) AS "In, share", p95_in AS "In, p95",
  bits_out AS "Out", bits_out / nullIf(sum(bits_out) OVER (), 0) AS "Out, share",
  p95_out AS "Out, p95"
FROM (
  SELECT provider, arrayStringConcat(arraySort(groupUniqArrayArray(names)), ', ') AS interfaces,
    sum(in_bits) / {samples} AS bits_in, {p95("in")} AS p95_in,
    sum(out_bits) / {samples} AS bits_out, {p95("out")} AS p95_out
  FROM (
    SELECT known.provider AS provider,
      groupUniqArray(concat(toString(device), ' ', used.3)) AS names,
      toFloat64(sumIf(bytes, used.1 = 'in')) * 8 / {SAMPLE} AS in_bits,
      toFloat64(sumIf(bytes, used.1 = 'out')) * 8 / {SAMPLE} AS out_bits
    FROM (
      SELECT time, device, used, bytes FROM {_summed(str(SAMPLE), first, past)}
      ARRAY JOIN {_ENDS}
    ) AS passed
    INNER JOIN (
      SELECT device AS at, interface, assumeNotNull(provider) AS provider FROM interfaces FINAL
      WHERE ifNull(provider, '') != ''
    ) AS known ON passed.device = known.at AND passed.used.2 = known.interface
    GROUP BY provider, time
  )
  GROUP BY provider
)
ORDER BY "In" + "Out" DESC, "Provider\""""


def billing_query(limit: int = 200) -> str:
    """One row per interface: average, 95th percentile of five-minute samples, maximum, use."""
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
SELECT toString(device) AS "Device", used_if AS "Index", label AS "Interface",
  ifNull(behind, '') AS "Provider",
  arrayAvg(ins) AS "In", arrayReduce('quantileExactInclusive(0.95)', ins) AS "In, p95",
  arrayMax(ins) AS "In, maximum",
  arrayAvg(outs) AS "Out", arrayReduce('quantileExactInclusive(0.95)', outs) AS "Out, p95",
  arrayMax(outs) AS "Out, maximum",
  if(bits = 0, NULL, toFloat64(bits)) AS "Speed",
  if(bits = 0, NULL, greatest("In, p95", "Out, p95") / bits) AS "Use, p95",
  if(bits = 0, NULL, greatest("In, maximum", "Out, maximum") / bits) AS "Use, maximum",
  toString(used_if) AS filter_1
FROM (
  SELECT device, used_if, max(name) AS label, {values("in")} AS ins, {values("out")} AS outs
  FROM (
    SELECT device, used.2 AS used_if, max(used.3) AS name,
      toFloat64(sumIf(bytes, used.1 = 'in')) * 8 / {SAMPLE} AS in_bits,
      toFloat64(sumIf(bytes, used.1 = 'out')) * 8 / {SAMPLE} AS out_bits
    FROM {_summed(str(SAMPLE), first, past)}
    ARRAY JOIN {_ENDS}
    WHERE used.2 != 0
    GROUP BY device, used_if, time
  )
  GROUP BY device, used_if
) AS carried
LEFT JOIN (
  SELECT device AS at, interface, provider AS behind FROM interfaces FINAL
) AS known ON carried.device = known.at AND carried.used_if = known.interface
LEFT JOIN (
  SELECT device AS fast, interface AS fast_if, speed AS bits FROM interface_speeds FINAL
) AS speeds ON carried.device = speeds.fast AND carried.used_if = speeds.fast_if
ORDER BY greatest("In, p95", "Out, p95") DESC, "Device", "Index"
LIMIT {limit}"""


def _mirror() -> timeseries.Panel:
    panel = time_series(
        "Into and out of interfaces",
        "Bits per second of the eight largest interfaces: what comes in above, what leaves below"
        " the axis. A long flow is spread over the minutes that it covered.",
        "bps",
        [ClickHouseQuery(series_query(), series=True)],
        size=(WIDTH, 10),
        source=CLICKHOUSE,
    ).display_name("${__field.labels.series}")
    panel.build().field_config.defaults.min_val = None
    return panel.override_by_regexp("/ out$/", [prop("custom.transform", "negative-Y")])


def _top(title: str, description: str, column: str, second: str = "") -> table.Panel:
    value = "${__data.fields.filter_1:percentencode}"
    held = [f"{each} != 0" for each in (column, second) if each]
    if second:
        held.append(_OF_DEVICES)
    target = (
        "/d/flow-explorer?${__url_time_range}&var-dimension=src_addr"
        f"&var-filters={column}%7C%3D%7C{value}"
    )
    return (
        table_panel(
            title,
            description,
            "bps",
            [ClickHouseQuery(top_query(column, second, where=" AND ".join(held), limit=20))],
            size=(8, 10),
            sort="Bits/s",
        )
        .override_by_name("Key", [links_property(link("Data Explorer", target))])
        .override_by_name("Packets/s", [prop("unit", "pps")])
        .override_by_regexp("filter_.", [prop("custom.hidden", True)])
    )


def _explorer(interface: str = "") -> str:
    """The Data Explorer for the device of a row, and for what passes its interface one way."""
    target = (
        "/d/flow-explorer?${__url_time_range}&var-dimension=src_as"
        "&var-device=${__data.fields.Device:percentencode}"
    )
    if interface:
        target += f"&var-filters={interface}%7C%3D%7C${{__data.fields.filter_1:percentencode}}"
    return target


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
        .with_variable(
            query_variable(
                "device",
                "Device",
                "Whose interfaces; what networks send and receive is of all devices.",
                devices_query(),
            )
        )
        .with_panel(_mirror())
        .with_panel(
            table_panel(
                "Interfaces in numbers",
                f"Average, 95th percentile and maximum of {minutes}-minute samples over the range,"
                " as transit is billed; a sample without traffic is a zero. Use is of the speed,"
                " where that is known: the busier direction. Interface 0 is left out: it stands for"
                " the device itself, and for all of a host whose agent numbers none.",
                "bps",
                [ClickHouseQuery(billing_query())],
                size=(WIDTH, 10),
            )
            .override_by_name("Index", [prop("unit", "none")])
            .override_by_name("filter_1", [prop("custom.hidden", True)])
            .override_by_regexp("/^Use/", [prop("unit", "percentunit"), _USE, _COLOURED])
            .override_by_name("Device", [links_property(link("Data Explorer", _explorer()))])
            .override_by_name(
                "Interface",
                [
                    links_property(
                        link("What comes in", _explorer("in_if")),
                        link("What leaves", _explorer("out_if")),
                    )
                ],
            )
        )
        .with_panel(
            table_panel(
                "Transit by provider",
                "Interfaces whose provider is configured: averages, each provider's share of all of"
                f" them, and the 95th percentile of {minutes}-minute samples of its interfaces"
                " together.",
                "bps",
                [ClickHouseQuery(providers_query())],
                size=(WIDTH, 6),
            ).override_by_regexp("/share$/", [prop("unit", "percentunit")])
        )
        .with_panel(_top("Source ASes", "Known autonomous systems that send most.", "src_as"))
        .with_panel(
            _top("Destination ASes", "Known autonomous systems that receive most.", "dst_as")
        )
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
