"""From a notification to the cause, by nothing but the links in the data: at most three clicks.

Flows of two incidents lie in the real store; the shipped policies are evaluated over them, the
shipped rules make alerts of the values in the real Prometheus, and the alerts' links are followed.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Sequence

import pytest
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.migrate import Migrator
from tests.support.grafana import opened
from tests.support.prometheus import blocks, running_prometheus
from tests.support.stack import until
from tests.support.store import running_store
from tests.support.walks import PROMETHEUS_CONFIG, ROOT, click, exposition, rows

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
) -> str:
    """Flows of ``count`` sources, one a minute each; ``{i}`` in texts is the number of a source."""

    def text(words: str) -> str:
        return "concat('" + words.replace("{i}", "', toString(i), '") + "')"

    start, end = start or START, end or NOW
    return f"""INSERT INTO flows ({_COLUMNS})
SELECT t, t, t, 'edge1', 'router', 'ipfix', 1, {size}, {packets}, toIPv6({text(source)}),
  toIPv6('{target[0]}'), 2048, 6, 40000, {port}, {asn}, '', '{target[1]}', '{service}'
FROM (
  SELECT number % {count} AS i,
    toDateTime64({start} + intDiv(number, {count}) * 60 + 10, 3, 'UTC') AS t
  FROM numbers({count * ((end - start) // 60)})
)"""


FL13 = ("10.0.13.1", "fl13")
AG04 = ("10.0.4.4", "ag04")


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
    blocks(folder, exposition(settings[0], NOW, [USUAL]))
    with running_prometheus(folder, PROMETHEUS_CONFIG) as prometheus:

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

        return until("both alerts", 90, firing)


#: A usual fan-in of 5 at ag04.
USUAL = (
    {
        "policy": "service_sources",
        "dst_addr": AG04[0],
        "dst_host": AG04[1],
        "dst_service": "aggregation",
    },
    5.0,
)


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
