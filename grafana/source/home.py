"""Home: what is wrong now, what is big now, is the pipeline healthy; every number leads on."""

from __future__ import annotations

from urllib.parse import quote

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporter.explore.columns import EXPRESSIONS, PORT
from exporter.metrics.label_sets import OTHER

from .alerts import firing
from .parts import (
    RED,
    YELLOW,
    ClickHouseQuery,
    finish,
    link,
    links_property,
    promql,
    prop,
    start,
    stat_panel,
    table_panel,
    thresholds,
    time_series,
)
from .pipeline import LOST, REPORTING
from .top_sql import DESTINATIONS, SOURCES, top_query

UID = "flow-home"

_EXPLORER = "/d/flow-explorer?${__url_time_range}&var-dimension_2=none"


def _top(
    title: str,
    description: str,
    column: str,
    *,
    second: str = "",
    name: str = "''",
    where: str = "1",
    show_by: str,
    profile: bool = False,
) -> table.Panel:
    """The largest values of a column; a click goes on with that value's traffic by ``show_by``."""
    target = f"{_EXPLORER}&var-dimension={show_by}"
    for index, part in enumerate((column, second), start=1):
        if part:
            value = f"${{__data.fields.filter_{index}:percentencode}}"
            if part in EXPRESSIONS:
                target += f"&var-condition={quote(EXPRESSIONS[part])}%20%3D%20{value}"
            else:
                target += f"&var-filters={part}%7C%3D%7C{value}"
    links = [link("Data Explorer", target)]
    if profile:
        links.insert(
            0,
            link(
                "Host profile",
                "/d/flow-host?${__url_time_range}&var-address=${__value.raw:percentencode}",
            ),
        )
    return (
        table_panel(
            title,
            description,
            "bps",
            [ClickHouseQuery(top_query(column, second, name=name, where=where))],
            size=(8, 9),
            sort="Bits/s",
        )
        .override_by_name("Key", [links_property(*links)])
        .override_by_name("Packets/s", [prop("unit", "pps")])
        .override_by_regexp("filter_.", [prop("custom.hidden", True)])
    )


def dashboard() -> Dashboard:
    """``flow-home``."""
    traffic = "sum by (device) (rate(flow_device_bytes_total[$__rate_interval])) * 8"
    explorer = "/d/flow-explorer?${__url_time_range}"
    made = (
        start(
            UID,
            "Flow Home",
            "What is wrong now, what is big now, and whether flows are received and stored.",
            "now-1h",
        )
        .with_panel(
            stat_panel(
                "Critical alerts",
                "Alerts of severity critical that fire now.",
                "none",
                [promql(firing("critical"), "critical")],
                steps=thresholds((1, RED)),
                target="/d/flow-alerts?${__url_time_range}",
            )
        )
        .with_panel(
            stat_panel(
                "Warnings",
                "Alerts of severity warning that fire now.",
                "none",
                [promql(firing("warning"), "warning")],
                steps=thresholds((1, YELLOW)),
                target="/d/flow-alerts?${__url_time_range}",
            )
        )
        .with_panel(
            stat_panel(
                "Traffic",
                "Bits per second in all flows of all devices. A packet that two devices report"
                " counts twice.",
                "bps",
                [promql(f"sum({traffic})", "traffic")],
                target=explorer,
                graph=True,
            )
        )
        .with_panel(
            stat_panel(
                "Flow records",
                "Flow records that devices report per second.",
                "cps",
                [promql("sum(rate(flow_device_flows_total[$__rate_interval]))", "flows")],
                target=f"{explorer}&var-measure=flows_per_second&var-dimension=device",
                graph=True,
            )
        )
        .with_panel(
            stat_panel(
                "Devices reporting",
                "Devices that reported flows within the last five minutes.",
                "none",
                [promql(REPORTING, "devices")],
                steps=thresholds((1, "text"), base=RED),
                target="/d/flow-pipeline?${__url_time_range}",
            )
        )
        .with_panel(
            stat_panel(
                "Lost",
                "Datagrams and flows per second that never became rows. Should be zero; the"
                " pipeline dashboard tells where it happens.",
                "cps",
                [promql(LOST, "lost")],
                steps=thresholds((0.001, YELLOW), (10, RED)),
                target="/d/flow-pipeline?${__url_time_range}",
            )
        )
        .with_panel(
            time_series(
                "Traffic by device",
                "Bits per second that each device reports.",
                "bps",
                [promql(traffic, "{{device}}")],
                stacked=True,
                links=[
                    link(
                        "Data Explorer",
                        f"{explorer}&var-device=${{__field.labels.device:percentencode}}",
                    )
                ],
            )
        )
        .with_panel(
            time_series(
                "Traffic by service",
                "Bits per second of the largest services, and of flows of no known service.",
                "bps",
                [
                    # What has no service has no label, and without one Grafana says "Value".
                    # Flows do not say of which services the counter's other is made.
                    promql(
                        "label_replace(label_replace(label_replace(label_replace("
                        "topk(10, sum by (service)"
                        " (rate(flow_service_bytes_total[$__rate_interval]))) * 8,"
                        ' "name", "no known service", "service", ""),'
                        ' "name", "$1", "service", "(.+)"),'
                        ' "filter", "=|$1", "service", "(.*)"),'
                        f' "filter", "!=|", "service", "{OTHER}")',
                        "{{name}}",
                    )
                ],
                links=[
                    link(
                        "Data Explorer",
                        f"{_EXPLORER}&var-dimension=src_addr&var-filters=service%7C"
                        "${__field.labels.filter:percentencode}",
                    )
                ],
            )
        )
        .with_panel(
            _top(
                "Largest sources",
                "Addresses that send most, with their names. Click one for its profile.",
                "src_addr",
                name="src_host",
                show_by="dst_addr",
                profile=True,
            )
        )
        .with_panel(
            _top(
                "Largest destinations",
                "Addresses that receive most, with their names. Click one for its profile.",
                "dst_addr",
                name="dst_host",
                show_by="src_addr",
                profile=True,
            )
        )
        .with_panel(
            _top(
                "Largest ports",
                "The lower port of each flow, nearly always the service's, with the service's name"
                " where it has one. Both directions.",
                PORT,
                name="service",
                show_by="src_addr",
            )
        )
        .with_panel(
            _top(
                "Largest source ASes",
                "Autonomous systems that send most, as the devices report them.",
                "src_as",
                where="src_as != 0",
                show_by="dst_addr",
            )
        )
        .with_panel(
            _top(
                "Largest input interfaces",
                "Interfaces by which most comes in: device, and index and name of the interface."
                " Not 0, which stands for the device itself.",
                "device",
                second="in_if",
                name="in_if_name",
                where="in_if != 0",
                show_by="src_addr",
            )
        )
        .with_panel(
            _top(
                "Largest conversations",
                f"Pairs of source and destination, of the {SOURCES} largest sources and the"
                f" {DESTINATIONS:,} largest destinations. Click one for its ports.",
                "src_addr",
                second="dst_addr",
                show_by="dst_port",
            )
        )
    )
    return finish(made)
