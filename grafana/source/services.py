"""Services: who talks to which, how much, from how many, and what rose or fell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from grafana_foundation_sdk.builders import nodegraph
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.changes import COUNTED_KEYS
from exporter.explore.choices import by
from exporter.explore.columns import PORT
from exporter.explore.drawn import looked_at_query
from exporter.explore.rollups import ROLLUP_SECONDS
from exporter.explore.series import series_query

from .flows_sql import AUTO, variable
from .parts import (
    CLICKHOUSE,
    ESTIMATES,
    WIDTH,
    ClickHouseQuery,
    address_box,
    finish,
    link,
    links_property,
    looked_at,
    measure_choice,
    place,
    precision,
    prop,
    query_variable,
    start,
    table_panel,
    text_box,
    time_series,
    units_from,
)
from .services_sql import (
    HERE,
    HOSTS,
    edges_query,
    fan_in_query,
    nodes_query,
    ports_query,
    rises_query,
)

UID = "flow-services"

#: What is left out of long ranges, for their descriptions.
_LONG = f" Over {ROLLUP_SECONDS // 3600} hours and more, without an address above:"
_OFFERED = (
    f"{_LONG} only flows to a named service or to the lower of their two ports, of the {HOSTS}"
    " hosts that receive most"
)

#: The port sent to; over long ranges the lower one of a flow, which the rollups have.
_SENT_TO = replace(by(PORT), column="dst_port", name="dst_service")
_LOWER = f" Over {ROLLUP_SECONDS // 3600} hours and more by the lower port of each flow."

_PORTS = f"splitByChar(',', trim(BOTH '{{}}' FROM {variable('port')}))"


def _graph() -> nodegraph.Panel:
    panel: Any = place(
        nodegraph.Panel(),
        (12, 12),
        "Who talks to which service",
        "The forty largest pairs of a network and a service of a host; numbers are bits per"
        f" second.{_OFFERED} bytes, or of hosts without a name.{ESTIMATES}",
    )
    return (  # type: ignore[no-any-return]
        panel.unit("bps")
        .datasource(CLICKHOUSE)
        .targets([ClickHouseQuery(nodes_query()), ClickHouseQuery(edges_query(), ref_id="edges")])
    )


def dashboard() -> Dashboard:
    """``flow-services``."""
    ports = replace(HERE, dimension=_SENT_TO, rollup_if="1")
    chosen = replace(ports, keys=_PORTS, top=f"if(has({_PORTS}, '*'), '12', '0')")
    explorer = (
        "/d/flow-explorer?${__url_time_range}&${address:queryparam}&${measure:queryparam}"
        "&${precision:queryparam}"
    )
    only = "&var-filters=dst_addr%7C%3D%7C${__data.fields.filter_1:percentencode}"
    only += "&var-filters=dst_port%7C%3D%7C${__data.fields.filter_2:percentencode}"
    unit = ClickHouseQuery(HERE.unit_query(), ref_id="unit")
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
        .with_variable(measure_choice())
        .with_variable(
            query_variable("port", "Ports", "Ports with a panel of their own.", ports_query())
        )
        .with_variable(precision())
        .with_variable(looked_at(looked_at_query(HERE, AUTO)))
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
                f" the {COUNTED_KEYS} services of hosts with most flows.{_OFFERED} flows and the"
                f" {HOSTS} that receive most bytes.{ESTIMATES}",
                "short",
                [ClickHouseQuery(rises_query()), unit],
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
                f"{_LONG} those of each host, whatever the service, by the hour, of the {HOSTS}"
                " hosts that receive most flows.",
                "short",
                [ClickHouseQuery(fan_in_query(), series=True)],
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
