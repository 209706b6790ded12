"""Host profile: who an address (or prefix, or name) is and what it does."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.drawn import looked_at_query

from . import host_sql as sql
from .flows_sql import AUTO
from .parts import (
    CLICKHOUSE,
    ESTIMATES,
    ClickHouseQuery,
    address_box,
    finish,
    link,
    links_property,
    looked_at,
    precision,
    prop,
    start,
    stat_panel,
    table_panel,
    time_series,
)

UID = "flow-host"

#: The Data Explorer about the same host, grouped by something.
_EXPLORER = (
    "/d/flow-explorer?${__url_time_range}&${address:queryparam}&${precision:queryparam}"
    "&var-dimension_2=none&var-measure=bits_per_second&var-dimension="
)


def _summary() -> stat.Panel:
    return (
        stat_panel(
            "What it sends and receives",
            "Average rates over the range, flow records, different peers, and the first and last"
            " time the host is seen within the range.",
            "short",
            [ClickHouseQuery(sql.summary_query())],
            size=(24, 4),
            source=CLICKHOUSE,
        )
        .override_by_regexp("/bits/", [prop("unit", "bps")])
        .override_by_regexp("/seen/", [prop("unit", "dateTimeAsIso")])
    )


def _seen() -> table.Panel:
    return table_panel(
        "First and last seen",
        "Internal addresses, whose they are, and the time of their first and last flow ever (not"
        " only in the range), the newest first. A time shortly before an alert is a host that is"
        " new here.",
        "dateTimeAsIso",
        [ClickHouseQuery(sql.seen_query())],
        size=(24, 5),
    )


def _traffic() -> timeseries.Panel:
    return time_series(
        "Sent and received",
        "Bits per second that the host sends and receives, as its flows tell." + ESTIMATES,
        "bps",
        [ClickHouseQuery(sql.series_query(), series=True)],
        size=(24, 8),
        source=CLICKHOUSE,
    ).display_name("${__field.labels.series}")


def _breakdown(
    title: str, description: str, sent: Sequence[str], received: Sequence[str], dimension: str
) -> table.Panel:
    return (
        table_panel(
            title,
            description + ESTIMATES,
            "bps",
            [ClickHouseQuery(sql.breakdown_query(sent, received))],
            size=(12, 9),
            sort="Sent",
        )
        .override_by_name(
            "Key", [links_property(link("In the Data Explorer", _EXPLORER + dimension))]
        )
        .override_by_name("Flows", [prop("unit", "short")])
    )


def _peers() -> table.Panel:
    return (
        table_panel(
            "Peers",
            "Whom the host talks to, largest first, with the peer's name where it is known."
            " Click a peer for its own profile." + ESTIMATES,
            "bps",
            [
                ClickHouseQuery(
                    sql.breakdown_query(("dst_addr", "dst_host"), ("src_addr", "src_host"))
                )
            ],
            size=(12, 9),
            sort="Sent",
        )
        .override_by_name(
            "Key",
            [
                links_property(
                    link(
                        "Host profile",
                        f"/d/{UID}?${{__url_time_range}}&var-address=${{__value.raw:percentencode}}",
                    ),
                    link("In the Data Explorer", _EXPLORER + "dst_addr"),
                )
            ],
        )
        .override_by_name("Flows", [prop("unit", "short")])
    )


def dashboard() -> Dashboard:
    """``flow-host``."""
    made = (
        start(
            UID,
            "Flow Host Profile",
            "What one address, prefix or named host does: peers, services, networks, attachment.",
            "now-1h",
            refresh="",
        )
        .with_variable(address_box())
        .with_variable(precision())
        .with_variable(looked_at(looked_at_query(sql.HOST, AUTO)))
        .with_panel(_summary())
        .with_panel(_seen())
        .with_panel(_traffic())
        .with_panel(_peers())
        .with_panel(
            _breakdown(
                "Services",
                "Destination ports of its flows: what it uses (sent) and what it offers"
                " (received).",
                ("dst_port", "dst_service"),
                ("dst_port", "dst_service"),
                "dst_port",
            )
        )
        .with_panel(
            _breakdown(
                "Autonomous systems and countries of its peers",
                "AS number and country of the other side.",
                ("dst_as", "dst_country"),
                ("src_as", "src_country"),
                "dst_as",
            )
        )
        .with_panel(
            table_panel(
                "Where it attaches and leaves",
                "By which interfaces of which device its traffic passes, who is behind the far one,"
                " and the MAC address that the device tells." + ESTIMATES,
                "short",
                [ClickHouseQuery(sql.path_query())],
                size=(12, 9),
            )
            .override_by_name("Bits/s", [prop("unit", "bps")])
            .override_by_name(
                "Device",
                [links_property(link("In the Data Explorer", _EXPLORER + "device"))],
            )
        )
        .with_panel(
            table_panel(
                "DNS names it asked for",
                "Names in its DNS questions, as resolvers and flows that look inside packets tell,"
                " most frequent first: how many clients asked (1 is nobody else), and when it was"
                " first and last asked in the range.",
                "short",
                [ClickHouseQuery(sql.names_query())],
                size=(24, 8),
                sort="Questions",
            )
        )
    )
    return finish(made)
