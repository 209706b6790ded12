"""Services: who talks to which, how much, from how many, and what rose or fell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from grafana_foundation_sdk.builders import nodegraph
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.changes import COUNTED_KEYS, changes_query
from exporter.explore.choices import by, measuring
from exporter.explore.columns import MEASURES, PORT
from exporter.explore.expressions import TIME
from exporter.explore.rollups import ROLLUP_SECONDS
from exporter.explore.series import series_query

from .flows_sql import RANGE, chosen_measure, variable
from .parts import (
    CLICKHOUSE,
    WIDTH,
    ClickHouseQuery,
    address_box,
    custom,
    finish,
    link,
    links_property,
    place,
    prop,
    query_variable,
    start,
    table_panel,
    text_box,
    time_series,
    units_from,
)

UID = "flow-services"

_HERE = replace(RANGE, address=variable("address"), measure=chosen_measure(), top="'12'")

#: Over long ranges the services of so many hosts: of those that receive most flows, most bytes.
_HOSTS = 500
_LONG = f"dateDiff('second', $__fromTime, $__toTime) >= {ROLLUP_SECONDS}"


def _busy(by: str) -> str:
    return f"""\
    SELECT addr FROM hosts_1h
    WHERE {_LONG} AND time >= toStartOfHour($__fromTime) AND time <= $__toTime
    GROUP BY addr ORDER BY sum({by}) DESC, addr LIMIT {_HOSTS}"""


#: All pairs of a host and a port of a day, with the ports of each client among them, are more than
#: can be counted while somebody waits: of long ranges only what busy hosts offer.
_OFFERED = f"""\
NOT ({_LONG}) OR address_kind != 'any'
  OR (dst_port <= src_port OR dst_service != '') AND dst_addr IN (
{_busy("flows_received")}
    UNION DISTINCT
{_busy("bytes_received")}
  )"""

_WHICH = (
    f" Over {ROLLUP_SECONDS // 3600} hours and more, without an address above: only flows to a"
    f" named service or to the lower of their two ports, of the {_HOSTS} hosts that receive most"
    f" flows and the {_HOSTS} that receive most bytes."
)

#: The port sent to; over long ranges the lower one of a flow, which the rollups have.
_SENT_TO = replace(by(PORT), column="dst_port", name="dst_service")
_LOWER = f" Over {ROLLUP_SECONDS // 3600} hours and more by the lower port of each flow."

_PORTS = f"splitByChar(',', trim(BOTH '{{}}' FROM {variable('port')}))"


def ports_query() -> str:
    """The ports that most is sent to in the range."""
    return f"""\
SELECT toString(port) FROM (
  SELECT dst_port AS port, bytes FROM flows
  WHERE NOT ({_LONG}) AND $__timeFilter({TIME})
  UNION ALL
  SELECT {PORT} AS port, bytes FROM flows_1m
  WHERE {_LONG} AND time >= toStartOfMinute($__fromTime) AND time <= $__toTime
)
WHERE port != 0
GROUP BY port
ORDER BY sum(bytes) DESC
LIMIT 12"""


def _edges(limit: int) -> str:
    """The largest pairs of a network and a service of a host, with their bits per second."""
    service = "if(dst_service != '', toString(dst_service), toString(port))"
    host = (
        "multiIf(dst_host != '', toString(dst_host), dst_network != '', toString(dst_network),"
        " 'elsewhere')"
    )
    return f"""\
  SELECT if(src_network = '', 'elsewhere', toString(src_network)) AS talks,
    concat({host}, ' ', {service}) AS listens,
    toFloat64(sum(octets)) * 8 / {_HERE.seconds} AS bits
  FROM (
    SELECT src_network, dst_host, dst_network, dst_service,
      if(dst_service = '', dst_port, 0) AS port, sum(bytes) AS octets
    {replace(_HERE, where=_OFFERED).selected_flows()}
    GROUP BY src_network, dst_host, dst_network, dst_service, port
  )
  GROUP BY talks, listens
  ORDER BY bits DESC, talks, listens
  LIMIT {limit}"""


def _stat(bits: str) -> str:
    """Bits per second as text such as ``71.23 Kb/s``: of a number the graph prints each digit."""
    return f"replaceRegexpOne(formatReadableDecimalSize({bits}), 'B$', 'b/s')"


def edges_query(limit: int = 40) -> str:
    """Edges as the node graph takes them, and ``bits``: ``mainstat`` as a number."""
    return f"""\
WITH
{_HERE.constants_list()}
SELECT concat(talks, ' > ', listens) AS id, concat('from ', talks) AS source, listens AS target,
  {_stat("bits")} AS mainstat, bits
FROM (
{_edges(limit)}
)
ORDER BY bits DESC, id"""


def nodes_query(limit: int = 40) -> str:
    """Nodes as the node graph takes them, and ``bits``: ``mainstat`` as a number."""
    return f"""\
WITH
{_HERE.constants_list()}
SELECT id, title, {_stat("sum(part)")} AS mainstat, sum(part) AS bits
FROM (
  SELECT end.1 AS id, end.2 AS title, edge.bits AS part
  FROM (
{_edges(limit)}
  ) AS edge
  ARRAY JOIN [(concat('from ', talks), talks), (listens, listens)] AS end
)
GROUP BY id, title
ORDER BY bits DESC, id"""


def _graph() -> nodegraph.Panel:
    panel: Any = place(
        nodegraph.Panel(),
        (12, 12),
        "Who talks to which service",
        "The forty largest pairs of a network and a service of a host; numbers are bits per"
        " second." + _WHICH,
    )
    return (  # type: ignore[no-any-return]
        panel.unit("bps")
        .datasource(CLICKHOUSE)
        .targets([ClickHouseQuery(nodes_query()), ClickHouseQuery(edges_query(), ref_id="edges")])
    )


def dashboard() -> Dashboard:
    """``flow-services``."""
    ports = replace(_HERE, dimension=_SENT_TO, rollup_if="1")
    chosen = replace(ports, keys=_PORTS, top=f"if(has({_PORTS}, '*'), '12', '0')")
    listeners = replace(
        _HERE,
        dimension=by("dst_addr"),
        dimension_2=by("dst_port"),
        where=_OFFERED,
    )
    fan_in = replace(listeners, measure=measuring("unique_src_addr"))
    explorer = "/d/flow-explorer?${__url_time_range}&${address:queryparam}&${measure:queryparam}"
    only = "&var-filters=dst_addr%7C%3D%7C${__data.fields.filter_1:percentencode}"
    only += "&var-filters=dst_port%7C%3D%7C${__data.fields.filter_2:percentencode}"
    unit = ClickHouseQuery(_HERE.unit_query(), ref_id="unit")
    number = units_from("unit")
    made = (
        start(
            UID,
            "Flow Services",
            "Who talks to which service, how much, from how many, and what rose or fell.",
            "now-3h",
            refresh="",
        )
        .with_variable(address_box())
        .with_variable(
            custom(
                "measure",
                "Measure",
                "What is summed or counted.",
                [(m.label, m.name) for m in MEASURES],
                MEASURES[0].name,
            )
        )
        .with_variable(
            query_variable("port", "Ports", "Ports with a panel of their own.", ports_query())
        )
        .with_variable(
            text_box(
                "since",
                "Since",
                "When something began, in milliseconds since the epoch: rises and dips are against"
                " the time before. Empty: the middle of the range.",
            )
        )
        .with_panel(
            table_panel(
                "Rises and dips",
                "Services of hosts by how much they changed: averages before and during. What"
                " changed most comes first, whether it rose or fell. Different values are those of"
                f" the {COUNTED_KEYS} services of hosts with most flows." + _WHICH,
                "short",
                [ClickHouseQuery(changes_query(listeners, variable("since"), 20)), unit],
                size=(12, 12),
            )
            .with_transformation(units_from("unit", "Before", "During", "Change"))
            .override_by_name(
                "Key",
                [
                    links_property(
                        link("Its sources", f"{explorer}&var-dimension=src_addr{only}"),
                        link(
                            "Host profile",
                            "/d/flow-host?${__url_time_range}"
                            "&var-address=${__data.fields.filter_1:percentencode}",
                        ),
                    )
                ],
            )
            .override_by_regexp("filter_.", [prop("custom.hidden", True)])
        )
        .with_panel(_graph())
        .with_panel(
            time_series(
                "Traffic by destination port",
                "The measure of the largest ports, each as a line of its own, so that one that"
                " falls is not hidden by one that rises. A port without flows reads zero." + _LOWER,
                "short",
                [ClickHouseQuery(series_query(ports), series=True), unit],
                size=(12, 9),
                source=CLICKHOUSE,
            )
            .display_name("${__field.labels.series}")
            .with_transformation(number)
        )
        .with_panel(
            time_series(
                "Fan-in",
                "Different sources of each service of a host in every bucket; the services with"
                " most of them over the range. Many sources that rise together show as one line."
                + _WHICH,
                "short",
                [ClickHouseQuery(series_query(fan_in), series=True)],
                size=(12, 9),
                source=CLICKHOUSE,
            ).display_name("${__field.labels.series}")
        )
        .with_panel(
            time_series(
                "Port ${port}",
                "The measure of this destination port alone." + _LOWER,
                "short",
                [
                    ClickHouseQuery(series_query(chosen), series=True),
                    unit,
                ],
                size=(WIDTH // 4, 7),
                source=CLICKHOUSE,
                calcs=("max", "lastNotNull"),
            )
            .display_name("${__field.labels.series}")
            .with_transformation(number)
            .repeat("port")
            .repeat_direction("h")
        )
    )
    return finish(made)
