"""The simulator's datacenter with all four incidents: walks to causes, and panels full of data.

The first incident has no alert: who explores asks by name. The fourth is a rogue host of which
three counts of sources and "first seen" tell; links lead to who it is. The other two are walked in
``test_incident_walks``.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from exporter.simulate.scenarios.rogue_host import POOL_NAMES
from exporter.simulate.site import HOSTS, ROGUE
from tests.support.four_incidents import Datacenter, four_incidents
from tests.support.grafana import expand_sql, opened, panels
from tests.support.prometheus import blocks, running_prometheus
from tests.support.stack import until
from tests.support.walks import (
    DASHBOARDS,
    PROMETHEUS_CONFIG,
    click,
    exposition,
    mean,
    rows,
    state,
    values_at,
)

ADDRESS = HOSTS[ROGUE]
EXPLORED = "Top ${top} by ${dimension:text}: ${measure:text}"


@pytest.fixture(scope="module")
def datacenter() -> Iterator[Datacenter]:
    with four_incidents() as made:
        yield made


@pytest.fixture(scope="module")
def notified(
    datacenter: Datacenter, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], str]:
    """The links of the alerts that fire, by policy and the address that they are about.

    What is usual are the values of an hour ago.
    """
    folder = tmp_path_factory.mktemp("prometheus")
    usual = values_at(datacenter.settings, datacenter.now - 3600)
    blocks(folder, exposition(datacenter.settings, datacenter.now, usual))
    wanted = {
        ("new_address", ADDRESS),
        ("gateway_sources", HOSTS["proxy01"]),
        ("internal_sources", ADDRESS),
    }
    with running_prometheus(folder, PROMETHEUS_CONFIG) as prometheus:

        def firing() -> dict[tuple[str, str], str]:
            with urllib.request.urlopen(f"{prometheus.url}/api/v1/alerts") as answer:
                alerts = json.load(answer)["data"]["alerts"]
            found = {}
            for alert in alerts:
                labels = alert["labels"]
                about = labels.get("dst_addr") or labels.get("src_addr") or ""
                if alert["state"] == "firing":
                    link = alert["annotations"]["dashboard_url"]
                    found[labels["policy"], about] = link
            return found if wanted <= found.keys() else {}

        return until("the alerts of a rogue host", 120, firing)


def test_a_rogue_host_is_two_clicks_from_each_of_its_alerts(
    datacenter: Datacenter, notified: dict[tuple[str, str], str]
) -> None:
    assert any(
        policy == "gateway_sources" and about != HOSTS["proxy01"] for policy, about in notified
    ), "the NAT, too"
    for key, panel in (
        (("new_address", ADDRESS), "Sources"),
        (("internal_sources", ADDRESS), "Destinations"),
    ):
        first_click = notified[key]
        assert opened(first_click)[0] == "flow-incident"
        [row, *_] = rows(datacenter.reader, first_click, panel)
        assert (row["Key"], row["Name"]) == (ADDRESS, ROGUE)
        second_click = click(first_click, panel, "Host profile", row)
        uid, context = opened(second_click)
        assert (uid, context.variables["address"]) == ("flow-host", ADDRESS)
        assert context.end - context.start == 3 * 3600 + 1800, "a range that does not drift"
    _is_the_rogue_host(datacenter, second_click)


def _is_the_rogue_host(datacenter: Datacenter, profile: str) -> None:
    reader = datacenter.reader
    [seen] = rows(reader, profile, "First and last seen")
    began = datacenter.began("rogue-host")
    assert began <= seen["First seen"].timestamp() < began + 90
    assert (seen["Role"], seen["Owner"]) == ("", ""), "nobody answers for it"
    names = rows(reader, profile, "DNS names it asked for")
    pools = [row for row in names if row["Name asked"] in POOL_NAMES]
    assert {row["Name asked"] for row in names[:4]} <= set(POOL_NAMES), "in the first rows"
    assert len(pools) == len(POOL_NAMES)
    assert {row["Clients"] for row in pools} == {1}, "nobody else asks for them"
    [first, second, *_] = rows(reader, profile, "Where it attaches and leaves")
    assert {row["Way"] for row in (first, second)} == {"Sent", "Received"}
    for row in (first, second):
        far = row["Leaves by"] if row["Way"] == "Sent" else row["Comes in by"]
        assert (row["Device"], far) == ("edge1", "transit-north"), "the transit of production"
        assert row["Provider"] == "Example Northern Transit"
        assert row["MAC"]
    services = {row["Key"]: row["Name"] for row in rows(reader, profile, "Services")}
    assert {"443", "3333"} <= services.keys()


def test_a_quota_leads_to_two_virtual_machines_of_interns(datacenter: Datacenter) -> None:
    """No alert: who explores names the registry, devices, packets and the absolute time."""
    began = datacenter.began("registry-429")
    stopped = began + 3 * 3600 + 180
    span = f"from={(began - 600) * 1000}&to={(stopped + 1800) * 1000}"
    asked = "&var-address=gcr.io&var-dimension=device&var-measure=packets_per_second"
    url = f"http://g/d/flow-explorer?{span}{asked}"
    first, second, third, *_ = rows(datacenter.reader, url, "Keys in numbers")
    for row, name in ((first, "k122"), (second, "k212")):
        assert (row["Key"], row["Role"], row["Owner"]) == (name, "dev-vm", "interns")
    assert second["Average"] > 2 * third["Average"]
    lines: dict[str, dict[float, float]] = {}
    for row in rows(datacenter.reader, url, EXPLORED):
        lines.setdefault(row["series"], {})[row["time"].timestamp()] = row["Value"]
    for name in ("k122 interns", "k212 interns"):
        line = lines[name]
        minute = stopped // 60 * 60
        assert mean(line, minute - 600, 10) > 20 * mean(line, minute + 60, 10), "both collapse"
    by_bits = rows(
        datacenter.reader, url.replace("packets_per_second", "bits_per_second"), "Keys in numbers"
    )
    assert by_bits[0]["Key"] not in ("k122", "k212"), "bits hide them"


def test_fan_in_and_dip_are_on_one_screen(datacenter: Datacenter) -> None:
    """Each port has a panel of its own, of one node."""
    began = datacenter.began("query-fanin")
    url = (
        f"http://g/d/flow-services?from={(began - 1800) * 1000}&to={datacenter.now * 1000}"
        f"&var-address=ag04&var-since={began * 1000}"
    )
    minute = began // 60 * 60

    def line(port: str) -> dict[float, float]:
        told = rows(datacenter.reader, f"{url}&var-port={port}", "Port ${port}")
        return {row["time"].timestamp(): row["Value"] for row in told}

    rising, dipping = line("14999"), line("20012")
    # The past is told in few records, drawn at random: of the workers a fifth in each minute.
    assert mean(rising, minute + 60, 10) > 10 * mean(rising, minute - 600, 10)
    assert mean(dipping, minute + 60, 10) < 0.5 * mean(dipping, minute - 600, 10)
    changes = rows(datacenter.reader, url, "Rises and dips")
    assert (changes[0]["Second key"], changes[0]["Name"]) == ("14999", "ag04")
    fan_in = rows(datacenter.reader, url, "Fan-in")
    sources = {
        row["time"].timestamp(): row["Value"]
        for row in fan_in
        if row["series"].startswith(f"{HOSTS['ag04']} 14999")
    }
    assert mean(sources, minute + 60, 10) >= 2.5 * mean(sources, minute - 600, 10)


def test_transit_is_told_by_provider(datacenter: Datacenter) -> None:
    span = f"from={(datacenter.now - 3 * 3600) * 1000}&to={datacenter.now * 1000}"
    url = f"http://g/d/flow-interfaces?{span}"
    providers = rows(datacenter.reader, url, "Transit by provider")
    assert {row["Provider"]: row["Interfaces"] for row in providers} == {
        "Example Northern Transit": "edge1 transit-north",
        "Example Southern Transit": "edge2 transit-south",
    }
    assert sum(row["In, share"] for row in providers) == pytest.approx(1)
    numbers = {
        (row["Device"], row["Interface"]): row
        for row in rows(datacenter.reader, url, "Interfaces in numbers")
    }
    for row in providers:
        same = numbers[tuple(row["Interfaces"].split(" "))]
        assert row["In, p95"] == pytest.approx(same["In, p95"])
        assert same["Speed"] == 10_000_000_000
        busier = max(same["In, p95"], same["Out, p95"])
        assert same["Use, p95"] == pytest.approx(busier / 10_000_000_000)


#: These are about alerts, of which none is stored here.
_OF_ALERTS = ("History", "Alerts begun", "Alerts of this key", "Evidence kept")


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_no_panel_is_without_data(datacenter: Datacenter, uid: str) -> None:
    span = f"from={(datacenter.now - 7200) * 1000}&to={datacenter.now * 1000}"
    about = {"flow-host": f"&var-address={ADDRESS}"}.get(uid, "")
    _, context = state(f"http://g/d/{uid}?{span}{about}")
    for panel in panels(DASHBOARDS[uid]):
        for target in panel["targets"]:
            if "rawSql" not in target or panel["title"] in _OF_ALERTS:
                continue
            if target["refId"] in ("absent", "earlier"):
                continue
            found = datacenter.reader.query(expand_sql(target["rawSql"], context))
            assert found.row_count, panel["title"]
