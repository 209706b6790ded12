"""Scenarios into real parts: live into a collector by every way, and their past into a store."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError

from exporter.config import Config
from exporter.enrich import NameSources
from exporter.resources import resource
from exporter.simulate.demo import demo_config
from exporter.simulate.fill import Past, fill
from exporter.simulate.history import CHUNK
from exporter.simulate.scenarios import SCENARIOS, rogue_host, told_together
from exporter.simulate.site import HOSTS, REGISTRY, ROGUE
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from tests.support.collector import RunningCollector
from tests.support.stack import free_port, until
from tests.support.store import RunningStore
from tests.support.writing import migrated, settings_for

SECONDS = 8


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def collector(
    tmp_path_factory: pytest.TempPathFactory, store: RunningStore
) -> Iterator[RunningCollector]:
    config = demo_config() | {
        "receive": {
            "grpc": {"port": free_port(socket.SOCK_STREAM)},
            "dnstap": [{"port": free_port(socket.SOCK_STREAM)}],
        }
    }
    database = f"sim{uuid.uuid4().hex[:8]}"
    with RunningCollector(tmp_path_factory.mktemp("simulate"), store, database, config) as running:
        yield running


@pytest.fixture(scope="module")
def totals(collector: RunningCollector) -> dict[str, dict[str, int]]:
    """What all devices have sent of a rogue host that has been there for minutes."""
    receive = collector.config["receive"]
    done = simulate(
        "rogue-host@5m", "--json", "--duration", str(SECONDS),
        "--to", f"127.0.0.1:{collector.flows}",
        "--agents-to", f"127.0.0.1:{receive['grpc']['port']}",
        "--dnstap", f"127.0.0.1:{receive['dnstap'][0]['port']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not taken" not in done.stderr
    sent: dict[str, dict[str, int]] = json.loads(done.stdout)
    return sent


def test_every_device_is_known_by_its_name_and_all_that_it_sent_is_stored(
    collector: RunningCollector, store: RunningStore, totals: dict[str, dict[str, int]]
) -> None:
    database = collector.config["clickhouse"]["database"]
    expected = {name: total["flows"] for name, total in totals.items() if total["flows"]}
    sql = "SELECT device, count(), sum(bytes), sum(packets) FROM flows GROUP BY device"

    def stored() -> list[tuple[Any, ...]]:
        rows = store.ask(database, sql)
        return rows if {row[0]: row[1] for row in rows} == expected else []

    rows = until("all flows in the store", 30, stored)
    assert {row[0]: (row[2], row[3]) for row in rows} == {
        name: (totals[name]["bytes"], totals[name]["packets"]) for name in expected
    }
    assert {"edge1", "edge2", "nat01", "wifi01", "sw01", "ag04", "wk01"} <= expected.keys()


def test_agents_are_hosts_so_that_each_flow_counts_once(
    collector: RunningCollector, store: RunningStore, totals: dict[str, dict[str, int]]
) -> None:
    database = collector.config["clickhouse"]["database"]
    one = store.ask(
        database,
        "SELECT count(), countIf(direction = 'egress') FROM flows_once "
        "WHERE src_network = 'query-cluster' AND dst_network = 'query-cluster'",
    )[0]
    both = store.ask(
        database,
        "SELECT countIf(direction = 'ingress'), countIf(direction = 'egress') FROM flows "
        "WHERE src_network = 'query-cluster' AND dst_network = 'query-cluster'",
    )[0]
    assert both[0] == both[1] > 0
    assert one == (both[0], 0)


def test_names_that_the_rogue_host_asked_for_come_from_the_resolvers(
    collector: RunningCollector, store: RunningStore, totals: dict[str, dict[str, int]]
) -> None:
    database = collector.config["clickhouse"]["database"]
    sql = f"SELECT dns_name, device, dns_rcode FROM dns_queries WHERE src_host = '{ROGUE}'"

    def asked() -> list[tuple[Any, ...]]:
        rows = store.ask(database, sql)
        return rows if {row[0] for row in rows} & set(rogue_host.POOL_NAMES) else []

    for _ in range(6):  # it asks every other second or so: in some eight seconds for no pool
        if asked():
            break
        simulate(
            "rogue-host@5m", "--duration", "10",
            "--to", f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}", "--agents-to", "",
            "--dnstap", f"127.0.0.1:{collector.config['receive']['dnstap'][0]['port']}",
        )  # fmt: skip
    rows = until("its queries in the store", 30, asked)
    assert {row[1] for row in rows} <= {"dns01", "dns02"}
    assert {row[2] for row in rows} == {"NOERROR"}


def test_metrics_of_nodes_and_application_are_served(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    command = [
        sys.executable, "-m", "exporter", "simulate", "query-fanin@5m", "load-spike@5m",
        "--to", f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}", "--agents-to", "",
        "--metrics-port", str(port),
    ]  # fmt: skip

    idle = 'node_cpu_seconds_total{{cpu="0",instance="{}:9100",job="node",mode="idle"}}'.format

    def scraped() -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        values = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        told = {name: float(value) for name, value in values}
        return told if told[idle("fl12")] > 3 else {}

    count = 'query_duration_seconds_count{instance="web01:8080",job="query-frontend"}'
    quick = 'query_duration_seconds_bucket{instance="web01:8080",job="query-frontend",le="4.0"}'
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            values = until("metrics of some seconds", 60, scraped)
        finally:
            process.terminate()
            assert process.wait(20) == 0, (tmp_path / "log").read_text()
    for busy in ("fl13", "ag04"):
        assert values[idle(busy)] < 0.3 * values[idle("fl12")]
        # By this the Incident dashboard chooses whose CPU it shows.
        assert values[f'up{{instance="{busy}:9100",job="node"}}'] == 1
    assert values[quick] / values[count] < 0.95


def test_history_fills_flows_rollups_first_seen_and_names(
    store: RunningStore, tmp_path: Path
) -> None:
    database = f"past{uuid.uuid4().hex[:8]}"
    settings = settings_for(store, database=database)
    Migrator(settings, resource("clickhouse/migrations")).apply()
    file = tmp_path / "flow-exporter.yaml"
    written = {"clickhouse": settings.model_dump(mode="json", exclude_unset=True)}
    file.write_text(yaml.safe_dump(demo_config() | written))
    before = int(time.time())

    done = simulate("rogue-host@1h", "--history", "5h", "--config", str(file))

    assert done.returncode == 0, done.stderr
    after = int(time.time())
    rows, first, last, octets = store.ask(
        database,
        "SELECT count(), toUnixTimestamp(min(time_received)), toUnixTimestamp(max(time_received)), "
        "sum(bytes) FROM flows",
    )[0]
    assert rows > 50_000
    assert before - 5 * 3600 <= first < before - 5 * 3600 + 60
    assert before - 60 < last <= after
    for rollup in ("flows_1m", "flows_1h"):
        assert store.ask(database, f"SELECT sum(bytes) FROM {rollup}") == [(octets,)]
    seen = dict(
        store.ask(
            database,
            "SELECT host, toUnixTimestamp(min(first_seen)) FROM hosts_seen GROUP BY host",
        )
    )
    # A minute of the past is told from its begin, once most of it is in the window.
    assert before - 3600 - 20 <= seen[ROGUE] < before - 3600 + 90
    assert seen["fl13"] < before - 4 * 3600
    again = simulate("rogue-host@1h", "--history", "5h", "--resume", "--config", str(file))
    assert again.returncode == 0, again.stderr
    told = store.ask(database, f"SELECT count() FROM flows WHERE time_received < {last + 1}")
    assert told == [(rows,)], "nothing is told twice"
    names = store.ask(
        database,
        f"SELECT DISTINCT dns_name FROM dns_queries WHERE src_host = '{ROGUE}'",
    )
    assert {name for (name,) in names} >= set(rogue_host.POOL_NAMES)
    registry = store.ask(
        database,
        "SELECT DISTINCT toString(arrayJoin(answers)) FROM dns_queries "
        f"WHERE dns_name = '{REGISTRY}'",
    )
    assert registry == [(f"::ffff:{HOSTS[REGISTRY]}",)]
    assert store.ask(database, f"SELECT count() > 0 FROM flows WHERE dst_host = '{REGISTRY}'") == [
        (1,)
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["load-spike@yesterday"], "load-spike@yesterday"),
        (["load-spike", "--history", "long"], "--history"),
        (["load-spike", "--live"], "--live"),
        (["load-spike", "--resume"], "--resume"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: list[str], text: str) -> None:
    refused = simulate(*arguments)
    assert refused.returncode == 2
    assert text in refused.stderr


class _GoesAway:
    """A client whose ClickHouse is away after so many inserts."""

    def __init__(self, client: Client, inserts: int) -> None:
        self._client = client
        self._left = inserts

    def raw_insert(self, *arguments: Any, **named: Any) -> object:
        self._left -= 1
        if self._left < 0:
            raise OperationalError("ClickHouse is away")
        return self._client.raw_insert(*arguments, **named)


def test_a_history_that_broke_off_is_finished_and_tells_nothing_twice(store: RunningStore) -> None:
    now = int(time.time()) // 60 * 60_000
    story = told_together([(SCENARIOS["normal"], 0.0)])
    past = Past(story, now, 1, NameSources(Config.model_validate(demo_config())))
    begin, end = now // CHUNK * CHUNK - 2 * CHUNK, now // CHUNK * CHUNK

    def write(client: Any, begin: int) -> None:
        for _ in fill(client, past, begin, end, once=True, stop=threading.Event()):
            pass

    def told(client: Client) -> list[tuple[int, ...]]:
        return [
            client.query(f"SELECT {what}").result_rows[0]
            for what in (
                "count(), sum(bytes) FROM flows",
                "sum(flows), sum(bytes) FROM flows_1h",
                "count() FROM dns_queries",
            )
        ]

    with migrated(store) as settings, connect(settings) as client:
        write(client, begin)
        expected = told(client)
    with migrated(store) as settings, connect(settings) as client:
        with pytest.raises(OperationalError):
            write(_GoesAway(client, 3), begin)  # the second part's queries are in, its flows not
        assert 0 < told(client)[0][0] < expected[0][0]
        assert told(client)[2] == expected[2]
        newest = client.query("SELECT toUnixTimestamp(max(time_received)) FROM flows")
        write(client, (newest.result_rows[0][0] + 1) * 1000)
        assert told(client) == expected


def test_a_history_that_was_killed_between_two_inserts_repeats_no_query(
    tmp_path: Path, store: RunningStore
) -> None:
    past = Past(
        told_together([(SCENARIOS["normal"], 0.0)]),
        int(time.time()) * 1000,
        1,
        NameSources(Config.model_validate(demo_config())),
    )
    end = int(time.time() - 600) * 1000
    with migrated(store) as settings, connect(settings) as client:
        with pytest.raises(OperationalError):
            # Its first part's queries are in, its flows not; by now that part would be another.
            for _ in fill(
                _GoesAway(client, 1), past, end - 7_000_000, end, once=True, stop=threading.Event()
            ):
                pass
        queries = "SELECT count(), uniqExact(time_received, src_addr, dns_latency) FROM dns_queries"
        ((before, _),) = client.query(queries).result_rows
        assert before > 0
        file = tmp_path / "flow-exporter.yaml"
        written = {"clickhouse": settings.model_dump(mode="json", exclude_unset=True)}
        file.write_text(yaml.safe_dump(demo_config() | written))
        done = simulate("normal", "--history", "3h", "--resume", "--config", str(file))
        assert done.returncode == 0, done.stderr
        ((count, different),) = client.query(queries).result_rows
        assert count == different > before
        flows = client.query("SELECT min(time_received) < now() - 10_000 FROM flows").result_rows
        assert flows == [(1,)], "what has no newest flow is told from the begin"
