"""From a notification to the cause, by nothing but the links in the data: at most three clicks.

Flows of three incidents lie in the real store; the shipped policies are evaluated over them, the
shipped rules make alerts of the values in the real Prometheus, and the alerts' links are followed.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry

from exporter.config import ClickHouse
from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.metrics import PolicyCollector
from exporter.policies.model import load_policies
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from tests.support.grafana import Context, expand_sql, followed, opened, panels, variables
from tests.support.prometheus import blocks, running_prometheus
from tests.support.stack import until
from tests.support.store import running_store

ROOT = Path(__file__).parents[2]
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
}

#: All incidents begin six minutes ago, after three quiet hours.
NOW = BEGIN = START = 0


def _begin_now() -> None:
    """Set when the flows are made: in a long run the file was imported minutes before."""
    global NOW, BEGIN, START
    NOW = int(time.time()) // 60 * 60
    BEGIN = NOW - 360
    START = NOW - 3 * 3600


_COLUMNS = """time_received, time_flow_start, time_flow_end, device, role, source, sampling_rate,
  bytes, packets, src_addr, dst_addr, etype, proto, src_port, dst_port, src_as, src_host, dst_host,
  dst_service"""


def _flows(
    count: int,
    *,
    source: str,
    target: tuple[str, str],
    port: int,
    start: int = 0,
    end: int = 0,
    size: int = 100_000,
    packets: int = 100,
    service: str = "",
    asn: str = "64500 + i",
    device: str = "edge1",
    role: str = "",
) -> str:
    """Flows of ``count`` sources, one a minute each; ``{i}`` in texts is the number of a source."""

    def text(words: str) -> str:
        return "concat('" + words.replace("{i}", "', toString(i), '") + "')"

    start, end = start or START, end or NOW
    return f"""INSERT INTO flows ({_COLUMNS})
SELECT t, t, t, {text(device)}, '{role}', 'ipfix', 1, {size}, {packets}, toIPv6({text(source)}),
  toIPv6('{target[0]}'), 2048, 6, 40000, {port}, {asn}, '', '{target[1]}', '{service}'
FROM (
  SELECT number % {count} AS i,
    toDateTime64({start} + intDiv(number, {count}) * 60 + 10, 3, 'UTC') AS t
  FROM numbers({count * ((end - start) // 60)})
)"""


FL13 = ("10.0.13.1", "fl13")
AG04 = ("10.0.4.4", "ag04")
REGISTRY = ("203.0.113.10", "gcr.io")


def _incidents() -> Sequence[str]:
    return (
    # 2: one AS sends several times the usual volume to an ingest node.
    _flows(20, source="192.0.2.{i}", target=FL13, port=20012, service="ingest"),
    _flows(
        12, source="198.51.100.{i}", target=FL13, port=20012, service="ingest", asn="123456",
        size=60_000_000, packets=60_000, start=BEGIN,
    ),
    # 3: a query makes many workers answer at once, and ingest on the same node stops.
    _flows(5, source="10.0.20.{i}", target=AG04, port=14999, service="aggregation"),
    _flows(
        56, source="10.0.21.{i}", target=AG04, port=14999, service="aggregation", start=BEGIN,
        size=2_000_000,
    ),
    _flows(
        10, source="192.0.2.{i}", target=AG04, port=20012, service="ingest", size=1_000_000,
        end=BEGIN,
    ),
    # 1: two virtual machines push small packets to a registry until they are stopped.
    _flows(30, source="10.0.30.{i}", target=REGISTRY, port=443, device="ag{i}", role="server"),
    _flows(
        1, source="10.0.31.1", target=REGISTRY, port=443, device="k122", role="interns",
        size=40_000, packets=1000, end=BEGIN,
    ),
    _flows(
        1, source="10.0.31.2", target=REGISTRY, port=443, device="k212", role="interns",
        size=36_000, packets=900, end=BEGIN,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def settings() -> Iterator[tuple[ClickHouse, Client]]:
    """How to write to the store, and a client of the user that Grafana is."""
    _begin_now()
    with running_store() as store:
        writer = ClickHouse(url=store.url, password_file=str(store.data_dir / "writer.password"))
        Migrator(writer, ROOT / "clickhouse/migrations").apply()
        with store.client(database="flow") as client:
            for statement in _incidents():
                client.command(statement)
        with store.client(reader=True, database="flow") as reader:
            yield writer, reader


@pytest.fixture(scope="module")
def reader(settings: tuple[ClickHouse, Client]) -> Client:
    return settings[1]


@pytest.fixture(scope="module")
def notified(
    settings: tuple[ClickHouse, Client], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The links of the alerts that fire, by policy and host."""
    folder = tmp_path_factory.mktemp("prometheus")
    blocks(folder, exposition(settings[0]))
    configuration = {
        "global": {"evaluation_interval": "1s", "external_labels": {"grafana_url": "http://g"}},
        "rule_files": [str(ROOT / "alerting/rules/policies.yml")],
    }
    with running_prometheus(folder, configuration) as prometheus:

        def firing() -> dict[str, str]:
            with urllib.request.urlopen(f"{prometheus.url}/api/v1/alerts") as answer:
                alerts = json.load(answer)["data"]["alerts"]
            found = {
                f"{alert['labels']['policy']} {alert['labels']['dst_host']}": alert["annotations"][
                    "dashboard_url"
                ]
                for alert in alerts
                if alert["state"] == "firing"
            }
            return found if {"host_bits fl13", "service_sources ag04"} <= found.keys() else {}

        return until("both alerts", 30, firing)


def exposition(settings: ClickHouse) -> str:
    """What the collector would tell of the policies, and a usual fan-in of 5 at ag04."""
    registry = CollectorRegistry()
    evaluator = PolicyEvaluator(
        lambda: connect(settings),
        load_policies(ROOT / "alerting/policies.yaml"),
        delay_seconds=0,
        query_timeout_seconds=20,
        clock=lambda: float(NOW),
    )
    registry.register(PolicyCollector(evaluator))
    evaluator.evaluate_due()
    lines = []
    for family in registry.collect():
        if not family.name.startswith("flow_policy"):
            continue
        kind = {"info": "info", "gauge": "gauge"}[family.type]
        lines.append(f"# TYPE {family.name} {kind}")
        lines += [sample(one.name, one.labels, one.value) for one in family.samples]
    usual = {
        "policy": "service_sources",
        "dst_addr": AG04[0],
        "dst_host": AG04[1],
        "dst_service": "aggregation",
        "baseline": "weeks",
    }
    lines += [
        "# TYPE key:flow_policy_baseline:typical gauge",
        sample("key:flow_policy_baseline:typical", usual, 5),
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def sample(name: str, labels: dict[str, str], value: float) -> str:
    told = ",".join(f"{label}={json.dumps(text)}" for label, text in labels.items())
    return f"{name}{{{told}}} {value} {time.time() - 5:.3f}"


def state(url: str) -> tuple[str, Context]:
    """The dashboard that a link opens, and its state: what the link says, else its defaults."""
    uid, context = opened(url)
    held = {
        name: variable.get("current", {}).get("value", variable.get("query"))
        for name, variable in variables(DASHBOARDS[uid]).items()
        if variable["type"] != "adhoc"
    }
    held = {name: "*" if value == "$__all" else value for name, value in held.items()}
    return uid, replace(context, variables=held | dict(context.variables))


def rows(client: Client, url: str, title: str, ref: str = "A") -> list[dict[str, Any]]:
    """What a panel of the dashboard that a link opens shows."""
    uid, context = state(url)
    [sql] = [
        target["rawSql"]
        for panel in panels(DASHBOARDS[uid])
        for target in panel["targets"]
        if panel["title"] == title and target["refId"] == ref
    ]
    return list(client.query(expand_sql(sql, context)).named_results())


def click(url: str, panel_title: str, link_title: str, row: dict[str, Any] | None = None) -> str:
    """The URL behind a link of a row's key, or without a row of the dashboard itself."""
    uid, context = state(url)
    if row is None:
        candidates = DASHBOARDS[uid]["links"]
    else:
        [panel] = [panel for panel in panels(DASHBOARDS[uid]) if panel["title"] == panel_title]
        candidates = [
            link
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["options"] == "Key"
            for changed in override["properties"]
            if changed["id"] == "links"
            for link in changed["value"]
        ]
    [target] = [link["url"] for link in candidates if link["title"] == link_title]
    return followed(target, context, row)


EXPLORED = "Top ${top} by ${dimension:text}: ${measure:text}"


def test_load_spike_leads_to_its_autonomous_system(
    reader: Client, notified: dict[str, str]
) -> None:
    first_click = notified["host_bits fl13"]
    uid, context = opened(first_click)
    assert uid == "flow-incident"
    assert context.end - context.start == 3 * 3600 + 1800, "a range that does not drift"
    assert context.variables["node"] == "fl13"
    [cause, *others] = rows(reader, first_click, "Source ASes")
    assert cause["Key"] == "123456"
    assert all(cause["Change"] > 100 * abs(row["Change"]) for row in others), "first by far"
    [service, *_] = rows(reader, first_click, "Destination ports")
    assert (service["Key"], service["Name"]) == ("20012", "ingest")
    series = rows(reader, first_click, "Traffic by ${dimension:text}: ${measure:text}")
    rising = [
        (row["time"].timestamp(), row["Value"]) for row in series if row["series"] == "123456"
    ]
    assert min(at for at, value in rising if value) == BEGIN

    second_click = click(first_click, "Source ASes", "Only this, in the Data Explorer", cause)
    uid, context = opened(second_click)
    assert uid == "flow-explorer"
    [only] = rows(reader, second_click, "Keys in numbers")
    assert only["Key"] == "123456"
    sources = click(second_click, "Keys in numbers", "Show by source address", only)
    keys = {row["Key"] for row in rows(reader, sources, "Keys in numbers")}
    assert len(keys) == 10
    assert all(key.startswith("198.51.100.") for key in keys)


def test_slow_queries_lead_to_the_fan_in_and_the_dip(
    reader: Client, notified: dict[str, str]
) -> None:
    first_click = notified["service_sources ag04"]
    uid, _ = opened(first_click)
    assert uid == "flow-incident"
    counted = rows(reader, first_click, "Different sources and destinations")
    sources = {
        row["time"].timestamp(): row["Value"] for row in counted if row["series"] == "Sources"
    }
    assert (sources[BEGIN - 60], sources[BEGIN]) == (5, 61), "as a count"
    workers = [row["Key"] for row in rows(reader, first_click, "Sources") if row["Change"] > 0]
    assert len([key for key in workers if key.startswith("10.0.21.")]) == 56, "as rows"

    second_click = click(first_click, "", "All ports of the node")
    uid, context = opened(second_click)
    assert (uid, context.variables["address"]) == ("flow-explorer", "ag04")
    lines: dict[str, dict[float, float]] = {}
    for row in rows(reader, second_click, EXPLORED):
        lines.setdefault(row["series"].split(" ")[0], {})[row["time"].timestamp()] = row["Value"]
    assert lines["14999"][BEGIN - 60] < lines["14999"][BEGIN]
    assert lines["20012"][BEGIN - 60] > lines["20012"][BEGIN] == 0, "in the same minute"


def test_a_quota_leads_to_two_virtual_machines(reader: Client) -> None:
    """No alert: who explores names the registry, devices, packets and the absolute time."""
    span = f"from={START * 1000}&to={NOW * 1000}"
    asked = "&var-address=gcr.io&var-dimension=device&var-measure=packets_per_second"
    url = f"http://g/d/flow-explorer?{span}{asked}"
    first, second, third, *_ = rows(reader, url, "Keys in numbers")
    assert [(row["Key"], row["Name"]) for row in (first, second)] == [
        ("k122", "interns"),
        ("k212", "interns"),
    ]
    assert second["Average"] > 5 * third["Average"]
    for name in ("k122 interns", "k212 interns"):
        line = {
            row["time"].timestamp(): row["Value"]
            for row in rows(reader, url, EXPLORED)
            if row["series"] == name
        }
        assert line[BEGIN - 60] > 10
        assert line[BEGIN] == 0
    by_bits = rows(reader, url.replace("packets_per_second", "bits_per_second"), "Keys in numbers")
    assert by_bits[0]["Key"] not in ("k122", "k212"), "bits hide them"
