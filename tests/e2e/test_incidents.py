"""The four incidents: packets in at one end, the alert (or the right silence) at the other.

From a notification the links are followed to the rows that show the cause. Stories began a few
minutes ago and go on live; rules are evaluated every five seconds, so that what the policies count
in minutes comes sooner. ``python -m tests.e2e.measure`` measures the delays with all as shipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from exporter.simulate.scenarios import load_spike, query_fanin, registry_429, rogue_host
from exporter.simulate.site import HOSTS, REGISTRY, ROGUE, WORKERS
from tests.e2e.datacenter import QUICK, Site, watched
from tests.support.grafana import opened
from tests.support.stack import until
from tests.support.walks import click, mean, rows

#: The registry's quota was worn out a few minutes ago; the others began after that.
BEGAN = {
    "registry-429": int(registry_429.END) + 8 * 60,
    "load-spike": 4 * 60,
    "query-fanin": 4 * 60,
    "rogue-host": 100,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("incidents")
    with watched(folder, QUICK, lambda now: {n: now - before for n, before in BEGAN.items()}) as it:
        yield it


def link(site: Site, seconds: float = 150, **labels: str) -> str:
    """The dashboard that the notification of such an alert leads to."""
    return str(site.told(seconds, **labels)["annotations"]["dashboard_url"])


def together(site: Site, *wanted: dict[str, str]) -> dict[str, Any]:
    """A notification that tells of alerts with all of these labels."""

    def found() -> dict[str, Any] | None:
        for _, notification in site.inbox.received:
            told = [a["labels"] for a in notification["alerts"] if a["status"] == "firing"]
            if all(any(labels.items() <= each.items() for each in told) for labels in wanted):
                return notification
        return None

    try:
        return until("one notification", 150, found)
    except AssertionError as late:
        told = [alert["labels"] for _, _, alert in site.inbox.alerts()]
        missing = [
            labels for labels in wanted if not any(labels.items() <= each.items() for each in told)
        ]
        raise AssertionError(f"{late}; never told: {missing or 'none, but not together'}") from None


def test_a_load_spike_is_told_with_its_baseline_and_leads_to_its_as(site: Site) -> None:
    for policy in ("host_bits", "host_packets"):
        alert = site.told(150, policy=policy, dst_host=load_spike.NODE)
        assert "(from: weeks)" in alert["annotations"]["description"]
    url = link(site, policy="host_bits", dst_host=load_spike.NODE)
    uid, context = opened(url)
    assert (uid, context.variables["node"]) == ("flow-incident", load_spike.NODE)
    assert context.start < site.begins["load-spike"] < context.end, "an absolute range around it"
    first, second, *_ = rows(site.reader, url, "Source ASes")
    assert first["Key"] == "123456"
    assert first["Change"] > 10 * second["Change"], "by far"
    service = rows(site.reader, url, "Destination ports")[0]
    assert (service["Key"], service["Name"]) == ("20012", "ingest")


def test_slow_queries_and_the_network_are_one_notification(site: Site) -> None:
    node = query_fanin.NODE
    notification = together(
        site,
        {"alertname": "QueriesSlow"},
        {"policy": "network_internal_bits", "dst_network": "query-cluster"},
        {"policy": "service_sources", "dst_host": node, "dst_service": "aggregation"},
        {"policy": "service_dip", "dst_host": node, "dst_service": "ingest"},
    )
    assert notification["groupLabels"]["incident"] == "load"
    url = link(site, policy="service_sources", dst_host=node)
    counted = rows(site.reader, url, "Different sources and destinations")
    sources = {r["time"].timestamp(): r["Value"] for r in counted if r["series"] == "Sources"}
    begin = site.begins["query-fanin"] // 60 * 60
    assert sources[begin - 120] < 40
    # Of the past, the peers of five minutes are spread over them; live, all answer at once.
    assert max(count for at, count in sources.items() if at > begin) > len(WORKERS)
    dip = link(site, policy="service_dip", dst_host=node, dst_service="ingest")
    ports = click(dip, "", "All ports of the node")
    series: dict[str, dict[float, float]] = {}
    for row in rows(site.reader, ports, "Top ${top} by ${dimension:text}: ${measure:text}"):
        series.setdefault(row["series"].split(" ")[0], {})[row["time"].timestamp()] = row["Value"]
    rising, dipping = series["14999"], series["20012"]
    assert mean(rising, begin + 60, 3) > 5 * mean(rising, begin - 600, 10)
    assert mean(dipping, begin + 60, 3) < 0.5 * mean(dipping, begin - 600, 10)


def test_a_rogue_host_is_one_notification_with_its_keys_apart(site: Site) -> None:
    wanted = [
        {"policy": "gateway_sources", "dst_network": "nat"},
        {"policy": "gateway_sources", "dst_network": "proxy"},
        {"policy": "internal_sources", "dst_host": ROGUE},
        {"policy": "new_address", "src_host": ROGUE},
    ]
    notification = together(site, *wanted)
    assert notification["groupLabels"]["incident"] == "rogue"
    links = {link(site, **labels) for labels in wanted}
    assert len(links) == 4, "each with its own"
    url = link(site, policy="new_address", src_host=ROGUE)
    [source] = rows(site.reader, url, "Sources")
    profile = click(url, "Sources", "Host profile", source)
    [seen] = rows(site.reader, profile, "First and last seen")
    # Of the past, the minute of which most is in the story is told from its begin.
    assert -30 < seen["First seen"].timestamp() - site.begins["rogue-host"] < 90
    asked = {
        value
        for row in rows(site.reader, profile, "DNS names it asked for")
        for value in row.values()
    }
    assert asked & set(rogue_host.POOL_NAMES)


def test_a_quota_that_is_worn_out_alerts_nobody_and_is_found_by_name(site: Site) -> None:
    # The others have alerted by now, so silence is not slowness.
    site.told(150, policy="host_bits", dst_host=load_spike.NODE)
    concerned = {*registry_429.VMS, *(HOSTS[name] for name in registry_429.VMS), HOSTS[REGISTRY]}
    for _, _, alert in site.inbox.alerts():
        assert not concerned & set(alert["labels"].values()), alert["labels"]
    begin = site.begins["registry-429"]
    span = f"from={(begin - 600) * 1000}&to={(begin + int(registry_429.END) + 400) * 1000}"
    asked = f"&var-address={REGISTRY}&var-dimension=device&var-measure=packets_per_second"
    url = f"http://g/d/flow-explorer?{span}{asked}"
    first, second, third, *_ = rows(site.reader, url, "Keys in numbers")
    assert {first["Key"], second["Key"]} == set(registry_429.VMS)
    assert second["Average"] > 2 * third["Average"]


def test_what_was_notified_came_home(site: Site) -> None:
    site.told(150, policy="host_bits", dst_host=load_spike.NODE)
    until(
        "the alert in the history",
        60,
        lambda: site.reader.query(
            "SELECT count() FROM alerts FINAL WHERE status = 'firing' AND policy = 'host_bits' "
            f"AND labels['dst_host'] = '{load_spike.NODE}'"
        ).result_rows[0][0],
    )
