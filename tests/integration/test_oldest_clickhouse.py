"""The oldest ClickHouse that is supported takes all our SQL, and answers as the newest does.

All other tests ask the embedded store's engine, which is newer: what older ones do not know, and
what they say otherwise, is seen here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from typer.testing import CliRunner, Result

from exporter.cli import app
from exporter.config import ClickHouse, Config, Device, Retention
from exporter.enrich.inventory import Inventory
from exporter.enrich.sources import NameSources
from exporter.explore.ask import Asked, ask, looks_at
from exporter.explore.columns import MEASURES
from exporter.explore.drawn import ALL_FLOWS, DRAWN_FLOWS, FEW_FLOWS, HOURLY_ROLLUPS, ROLLUPS
from exporter.incidents.alert import Observation
from exporter.incidents.evidence import Case
from exporter.incidents.evidence import take as take_evidence
from exporter.incidents.recorder import AlertRecorder
from exporter.policies.asking import Asker
from exporter.policies.list_store import ListKeeper
from exporter.policies.model import Policy, load_policies
from exporter.policies.past import PolicyPast
from exporter.policies.query import policy_query
from exporter.policies.speeds import SpeedKeeper
from exporter.resources import resource
from exporter.store.client import OLDEST_VERSION, connect
from exporter.store.insert import Encoding
from exporter.store.migrate import Migrator
from exporter.store.render import render
from exporter.store.retention import SizeKeeper
from exporter.store.schema_check import schema_differences
from exporter.store.statements import load_migrations
from tests.support.batches import random_batch
from tests.support.dashboard_flows import END, START, fill
from tests.support.dashboards import DASHBOARDS, defaults
from tests.support.database import migrated_database
from tests.support.golden import CLUSTER
from tests.support.grafana import (
    AdHoc,
    Context,
    Value,
    clickhouse_queries,
    clickhouse_variables,
    expand_sql,
)
from tests.support.oldest import ROOT, VERSION, oldest_clickhouse

MIGRATIONS = resource("clickhouse/migrations")
SHIPPED = load_policies(resource("alerting/policies.yaml"))
HOSTS = Policy.model_validate(
    {"name": "hosts", "dimensions": ["dst_addr", "dst_host"], "measure": "bits_per_second",
     "window": "5m", "bounds": {"above": {"static": 1}}}
)  # fmt: skip

ON_A_CLUSTER = {
    f"{migration.path.name} {number}": statement.sql
    for migration in render(load_migrations(MIGRATIONS), "flow", CLUSTER)
    for number, statement in enumerate(migration.statements, 1)
}

#: Dashboards as people look at them: what they chose, and their ad-hoc filters.
VIEWS: dict[str, tuple[str, dict[str, Value], tuple[AdHoc, ...]]] = {
    **{uid: (uid, {}, ()) for uid in DASHBOARDS},
    "all that can be chosen": (
        "flow-explorer",
        {"dimension": "device", "dimension_2": "dst_port", "address": "10.0.0.0/8",
         "compare": "day", "pinned": "none such"},
        (AdHoc("dst_port", "=", "14999"),),
    ),
    "different values": ("flow-explorer", {"measure": "unique_src_addr"}, ()),
    "shares of a condition": (
        "flow-incident",
        {"measure": "share_of_total", "condition": "dst_port = 443"},
        (),
    ),
    "a host": ("flow-host", {"address": "10.1.0.1"}, ()),
}  # fmt: skip
#: Panels that show some of many rows that are equal in what they are sorted by.
ANY_OF_EQUALS = {"Raw flows/A", "First and last seen/A"}

#: One of each type of column.
DIMENSIONS = (
    "src_addr", "src_host", "src_as", "dst_port", "proto", "src_network", "device", "direction",
    "src_mac", "etype", "tcp_flags", "dns_name",
)  # fmt: skip
QUESTIONS = {
    **{f"by {name}": Asked(START, END, by=(name,)) for name in DIMENSIONS},
    **{measure.name: Asked(START, END, measure=measure.name) for measure in MEASURES},
    "two dimensions": Asked(START, END, by=("device", "dst_port"), pinned=("r1",)),
    "compared": Asked(START, END, by=("dst_port",), compare="day"),
    "one host": Asked(START, END, address="ag04"),
    "one prefix": Asked(START, END, address="10.1.0.0/16", measure="unique_dst_addr"),
    "a filter": Asked(START, END, where="dst_port = 14999 AND src_host != 'spike'"),
    "a week": Asked(END - 7 * 86400, END, by=("src_as",)),
    "a year": Asked(END - 365 * 86400, END, by=("src_host",), compare="week"),
}


@pytest.fixture(scope="module")
def settings() -> Iterator[ClickHouse]:
    """The oldest ClickHouse with all tables and the dashboards' hour of flows."""
    with oldest_clickhouse() as settings:
        Migrator(settings, MIGRATIONS).apply()
        with connect(settings) as client:
            fill(client)
        yield settings


@pytest.fixture(scope="module")
def oldest(settings: ClickHouse) -> Iterator[Client]:
    with connect(settings) as client:
        yield client


@pytest.fixture(scope="module")
def newest() -> Iterator[Client]:
    """The embedded store with the same flows."""
    with migrated_database() as database, database.connect() as client:
        fill(client)
        yield client


@pytest.fixture
def config(settings: ClickHouse, tmp_path: Path) -> Path:
    file = tmp_path / "flow-exporter.yaml"
    told = {
        "clickhouse": {"url": settings.url, "user": settings.user},
        "policies": {"file": str(ROOT / "alerting/policies.yaml")},
    }
    file.write_text(yaml.safe_dump(told))
    return file


def command(config: Path, *arguments: str) -> Result:
    run = CliRunner().invoke(app, [*arguments, "--config", str(config)])
    assert run.exit_code == 0, run.output
    return run


def test_it_is_the_version_that_the_client_wants_at_least(oldest: Client) -> None:
    assert oldest.server_version.split(".")[:2] == list(map(str, OLDEST_VERSION))


def test_compose_runs_a_version_between_the_oldest_and_that_of_all_other_tests(
    newest: Client,
) -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    image, _, tag = compose["services"]["clickhouse"]["image"].partition(":")
    assert image == "clickhouse/clickhouse-server"
    embedded = tuple(map(int, newest.server_version.split(".")[:2]))
    assert OLDEST_VERSION <= tuple(map(int, tag.split("."))) <= embedded


def test_code_makefile_and_documentation_name_the_same_version() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"OLDEST_ENGINE := .engines/clickhouse-{VERSION}\n" in makefile
    page = (ROOT / "docs/how-to/move-to-a-cluster.md").read_text()
    assert f"ClickHouse {VERSION} or newer" in page


def test_migrations_leave_what_check_expects(oldest: Client, settings: ClickHouse) -> None:
    migrator = Migrator(settings, MIGRATIONS)
    assert migrator.pending() == []
    assert schema_differences(oldest, settings, migrator.migrations) == []
    assert len(migrator.apply(again=True)) == len(migrator.migrations)


@pytest.mark.parametrize("statement", ON_A_CLUSTER)
def test_each_statement_for_a_cluster_is_read(oldest: Client, statement: str) -> None:
    assert oldest.query(f"EXPLAIN AST {ON_A_CLUSTER[statement]}").row_count


def test_rows_are_kept_as_long_as_configured(settings: ClickHouse, oldest: Client) -> None:
    kept = {"flows": Retention(days=9, max_gigabytes=1), "alerts": Retention(days=400)}
    with_days = settings.model_copy(update={"retention": kept})
    assert len(Migrator(with_days, MIGRATIONS).set_retention()) == 2
    assert Migrator(with_days, MIGRATIONS).retention() == []
    SizeKeeper(with_days, lambda: oldest).keep(oldest)
    assert len(Migrator(settings, MIGRATIONS).set_retention()) == 2


def test_a_retried_insert_counts_once_in_rollups_too(settings: ClickHouse) -> None:
    with connect(settings.model_copy(update={"database": "retried"}), database="") as client:
        Migrator(settings.model_copy(update={"database": "retried"}), MIGRATIONS).apply()
        client.database = "retried"
        for token in ("one", "one", "two"):
            Encoding().encode([random_batch(100)], token).send(client)
        stored = client.query(
            "SELECT (SELECT count() FROM flows), (SELECT sum(flows) FROM flows_1m), "
            "(SELECT sum(flows) FROM flows_1h), (SELECT sum(flows_sent) FROM hosts_1h)"
        ).result_rows
    assert stored == [(200, 200, 200, 200)]


@pytest.mark.parametrize("view", VIEWS)
def test_dashboards_show_what_the_newest_shows(oldest: Client, newest: Client, view: str) -> None:
    uid, chosen, filters = VIEWS[view]
    context = Context(START, END, 60, defaults(uid) | chosen, filters)
    queries = clickhouse_queries(DASHBOARDS[uid]) | clickhouse_variables(DASHBOARDS[uid])
    once = {expand_sql(sql, context): name for name, sql in queries.items()}
    others = {}
    for sql, name in once.items():
        try:
            told = shown(oldest, sql)
        except ClickHouseError as error:
            others[name] = str(error)[:500]
            continue
        expected = shown(newest, sql)
        if name in ANY_OF_EQUALS:
            told, expected = [told[0], len(told)], [expected[0], len(expected)]
        if told != expected and "now()" not in sql:
            others[name] = f"{told}\ninstead of\n{expected}"[:2000]
    assert others == {}


def shown(client: Client, sql: str) -> list[Any]:
    """Column names and rows."""
    result = client.query(sql)
    return [result.column_names, *map(rounded, result.result_rows)]


def rounded(value: Any) -> Any:
    """Sums of fractions may differ in their last digits."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


@pytest.mark.parametrize("question", QUESTIONS)
def test_explore_tells_what_the_newest_tells(oldest: Client, newest: Client, question: str) -> None:
    asked = QUESTIONS[question]
    assert looks_at(oldest, asked) == looks_at(newest, asked)
    assert keys(oldest, asked, ALL_FLOWS) == keys(newest, asked, ALL_FLOWS)


@pytest.mark.parametrize("looked_at", [DRAWN_FLOWS, FEW_FLOWS, ROLLUPS, HOURLY_ROLLUPS])
def test_explore_reads_each_kind_of_rows(oldest: Client, newest: Client, looked_at: str) -> None:
    asked = Asked(START, END, by=("dst_port",))
    told = keys(oldest, asked, looked_at)
    if looked_at != DRAWN_FLOWS:  # each draws others
        assert told == keys(newest, asked, looked_at)


def keys(client: Client, asked: Asked, looked_at: str) -> list[Any]:
    return [rounded(astuple(key)) for key in ask(client, asked, looked_at)]


def test_check_finds_all_as_it_should_be(config: Path) -> None:
    told = json.loads(command(config, "check", "--json").output)
    assert told["faults"] == []
    assert {"schema", "rights", "policies' queries"} <= told["ok"].keys()


@pytest.mark.parametrize("name", [policy.name for policy in SHIPPED.policies])
def test_each_policy_is_evaluated_now_and_of_the_past_and_has_evidence(
    oldest: Client, settings: ClickHouse, name: str
) -> None:
    [policy] = [policy for policy in SHIPPED.policies if policy.name == name]
    speeds = SpeedKeeper(lambda: {("r1", 1): 10**9})
    asker = Asker(lambda: connect(settings), 30, ListKeeper(SHIPPED.lists), speeds)
    asker.values(policy, END, [1, 2])
    asker.fresh_devices(policy, END)
    asker.disconnect()
    list(PolicyPast(oldest, policy, END - 7200, SHIPPED.loaded_lists).samples(END))
    started = datetime.fromtimestamp(START + 1900, UTC)
    labels = dict.fromkeys(policy.dimensions, "10.1.0.1") | {"policy": name}
    case = Case("00000000000000bb", started, labels)
    take_evidence(oldest, policy, case, started, SHIPPED.loaded_lists)


def test_values_of_a_policy_are_those_of_the_newest(oldest: Client, newest: Client) -> None:
    query = policy_query(HOSTS, END * 1000)
    told, expected = (
        sorted(rounded(each.query(query.sql, parameters=query.parameters).result_rows))
        for each in (oldest, newest)
    )
    assert told == expected != []


def test_alerts_are_kept_and_listed(settings: ClickHouse, config: Path) -> None:
    started = datetime.now(UTC) - timedelta(minutes=1)
    labels = {"alertname": "FlowHigh", "policy": "host_bits", "dst_addr": "10.1.0.1"}
    recorder = AlertRecorder(lambda: connect(settings))
    recorder.offer(
        [
            Observation(
                "00000000000000cc", labels, {}, started, None, False, "", "webhook",
                datetime.now(UTC),
            )
        ]
    )  # fmt: skip
    recorder.start()
    recorder.stop()
    listed = json.loads(command(config, "incidents", "list", "--firing", "--json").output)
    assert "00000000000000cc" in {row["fingerprint"] for row in listed}
    told = json.loads(command(config, "incidents", "show", "00000000000000aa", "--json").output)
    assert {row["dimension"] for row in told["evidence"]} == {"src_as"}


def test_what_is_known_of_devices_is_stored(settings: ClickHouse, oldest: Client) -> None:
    device = Device(address="192.0.2.250", name="r1", owner="us")
    names = NameSources(Config(devices=[device]))
    Inventory(lambda: connect(settings), names).store()
    assert oldest.query("SELECT owner FROM devices FINAL WHERE device = 'r1'").result_rows == [
        ("us",)
    ]
