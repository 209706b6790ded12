"""Migrations for a cluster, held against the real engine as far as one process goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest
from clickhouse_connect.driver.client import Client

from exporter.batch import FlowBatch
from exporter.config import ClickHouse, Retention
from exporter.resources import resource
from exporter.store.insert import Encoding
from exporter.store.migration_lock import lock_statement
from exporter.store.render import local_name, render
from exporter.store.retention import SizeKeeper, retention_changes
from exporter.store.schema_check import schema_differences
from exporter.store.statements import MigrationError, load_migrations
from exporter.store.writer import Writer
from tests.support.batches import random_batch
from tests.support.cluster import ClusterNode, EngineRefusalError, NodeClient, here, plain
from tests.support.golden import FOLDER, rendered

STATEMENTS = [
    statement.sql
    for migration in render(load_migrations(resource("clickhouse/migrations")), "flow", "flow")
    for statement in migration.statements
]


@pytest.fixture(scope="module")
def replicated() -> Iterator[ClusterNode]:
    """A node on which everything was made with its own engine."""
    with ClusterNode() as node:
        for sql in STATEMENTS:
            node.run(here(sql))
        yield node


@pytest.fixture(scope="module")
def filled() -> Iterator[ClusterNode]:
    """A node without replication, to which flows can be sent."""
    with ClusterNode() as node:
        for sql in STATEMENTS:
            node.run(plain(sql))
        yield node


def folder(path: Path, *texts: str) -> Path:
    for number, text in enumerate(texts, 1):
        (path / f"{number:04d}_test.sql").write_text(text)
    return path


def test_the_rendered_sql_is_what_was_looked_at() -> None:
    kept = {file.name: file.read_text() for file in FOLDER.glob("*.sql")}
    assert rendered() == kept, (
        "the migrations render differently for a cluster: look at the difference after "
        "`python -m tests.support.golden`"
    )


@pytest.mark.parametrize("sql", STATEMENTS, ids=lambda sql: str(sql)[:60])
def test_the_engine_reads_every_statement(replicated: ClusterNode, sql: str) -> None:
    assert replicated.run(f"EXPLAIN AST {sql}")
    assert " ON CLUSTER " in sql


def test_every_table_is_made_with_its_engine(replicated: ClusterNode) -> None:
    engines = dict(replicated.run("SELECT name, engine FROM system.tables WHERE database = 'flow'"))
    assert engines["flows"] == "Distributed"
    assert engines["flows_local"] == "ReplicatedMergeTree"
    assert engines["flows_1m_local"] == "ReplicatedAggregatingMergeTree"
    assert engines["alerts"] == "ReplicatedReplacingMergeTree"
    assert engines["protocol_names"] == "Join"
    plain_ones = {
        n for n, e in engines.items() if e.endswith("MergeTree") and "Replicated" not in e
    }
    assert plain_ones == set()
    for name in engines:
        if name.endswith("_local"):
            assert engines[name.removesuffix("_local")] == "Distributed"


def test_replicas_of_a_shard_and_copies_on_every_node_have_their_places(
    replicated: ClusterNode,
) -> None:
    places = {
        table: (path, replica)
        for table, path, replica in replicated.run(
            "SELECT table, zookeeper_path, replica_name FROM system.replicas"
        )
    }
    assert places["flows_local"] == ("/clickhouse/tables/01/flow/flows_local", "one")
    assert places["alerts"] == ("/clickhouse/tables/every_node/flow/alerts", "01-one")


def test_columns_are_the_same_for_the_whole_table_and_its_part(replicated: ClusterNode) -> None:
    columns = "SELECT name, type, comment FROM system.columns WHERE database = 'flow' AND table = "
    for table in ("flows", "flows_1m", "hosts_seen"):
        assert replicated.run(f"{columns}'{table}'") == replicated.run(f"{columns}'{table}_local'")


def test_views_read_and_write_on_their_own_node(replicated: ClusterNode) -> None:
    made = dict(
        replicated.run(
            "SELECT name, create_table_query FROM system.tables "
            "WHERE database = 'flow' AND engine = 'MaterializedView'"
        )
    )
    assert "TO flow.flows_1m_local " in made["flows_1m_from_flows"]
    assert "FROM flow.flows_local" in made["flows_1m_from_flows"]
    assert "FROM flow.flows_1m_local" in made["flows_1h_from_flows_1m"]
    assert "TO flow.devices " in made["devices_from_flows_1m"]


def test_what_goes_into_one_node_is_read_from_the_whole(filled: ClusterNode) -> None:
    filled.run(
        "INSERT INTO flows_local (time_received, time_flow_start, time_flow_end, device, bytes, "
        "packets, proto, src_port, dst_port, src_addr, dst_addr) "
        "SELECT now64(3), now64(3), now64(3), 'r1', 10, 1, 6, 50000 + number, 443, "
        "toIPv6('10.0.0.1'), toIPv6('10.0.0.2') FROM numbers(100)"
    )
    assert filled.run("SELECT count(), sum(bytes) FROM flows") == [[100, 1000]]
    for table in ("flows_1m", "flows_1h"):
        assert filled.run(f"SELECT sum(bytes), sum(flows) FROM {table}") == [[1000, 100]]
    assert filled.run("SELECT device FROM devices FINAL") == [["r1"]]
    assert filled.run("SELECT DISTINCT proto_name, dst_port_name FROM traffic") == [
        ["TCP", "https"]
    ]
    assert filled.run("SELECT count() FROM flows_once") == [[100]]


@pytest.mark.parametrize("table", ["flows", "flows_local"])
def test_a_repeated_insert_counts_once(filled: ClusterNode, table: str) -> None:
    proto = 17 if table == "flows" else 50
    for token, seconds in (("a", 1), ("a", 2), ("b", 3)):  # the same token, though not the rows
        filled.run(
            f"INSERT INTO {table} (time_received, proto) SETTINGS "
            "distributed_foreground_insert = 1, "
            f"insert_deduplication_token = '{table}{token}' SELECT now64(3) - {seconds}, {proto}"
        )
    assert filled.run(f"SELECT count() FROM flows WHERE proto = {proto}") == [[2]]
    assert filled.run(f"SELECT sum(flows) FROM flows_1m WHERE proto = {proto}") == [[2]]


def test_the_collector_inserts_into_the_table_of_the_node() -> None:
    assert local_name("flows", "flow") == "flows_local"
    assert local_name("flows", "") == "flows"
    body = Encoding("flows_local").encode([random_batch(3)], "token").body
    assert bytes(body).startswith(b"INSERT INTO flows_local (")
    assert Writer(ClickHouse(cluster="flow")).table(FlowBatch(0)) == "flows_local"
    assert Writer(ClickHouse()).table(FlowBatch(0)) == "flows"


def test_the_check_knows_the_tables_of_a_cluster(replicated: ClusterNode) -> None:
    settings = ClickHouse(cluster="flow")
    migrations = render(load_migrations(resource("clickhouse/migrations")), "flow", "flow")

    def differences() -> list[str]:
        client = cast("Client", NodeClient(replicated))
        return [str(found) for found in schema_differences(client, settings, migrations)]

    assert differences() == []
    comment = "comment is 'other', should be"
    replicated.run("ALTER TABLE flows MODIFY COMMENT 'other'")
    try:
        [found] = differences()
        assert found.startswith(f"flows: {comment} 'Flows as reported;")
        assert "ALTER TABLE flow.flows ON CLUSTER 'flow' MODIFY COMMENT 'Flows" in found
    finally:
        replicated.run(found[found.index("ALTER") :].replace(" ON CLUSTER 'flow'", ""))
    assert differences() == []


def test_times_of_a_clusters_tables_are_set_where_the_rows_are(replicated: ClusterNode) -> None:
    client = cast("Client", NodeClient(replicated))
    assert retention_changes(client, ClickHouse(cluster="flow")) == []
    kept = ClickHouse(
        cluster="flow", retention={"flows": Retention(days=7), "alerts": Retention(days=9)}
    )
    assert [change.sql for change in retention_changes(client, kept)] == [
        "ALTER TABLE flow.alerts ON CLUSTER 'flow' "
        "MODIFY TTL toDateTime(starts_at) + INTERVAL 9 DAY DELETE",
        "ALTER TABLE flow.flows_local ON CLUSTER 'flow' "
        "MODIFY TTL toDateTime(time_received) + INTERVAL 7 DAY DELETE",
    ]


def test_sizes_are_kept_where_the_rows_are(filled: ClusterNode) -> None:
    for days in range(3):
        filled.run(
            "INSERT INTO flows_local (time_received, proto, bytes) "
            f"SELECT now64(3) - toIntervalDay({days}), 99, rand64() FROM numbers(1000)"
        )
    client = cast("Client", NodeClient(filled))
    SizeKeeper(
        ClickHouse(cluster="flow", retention={"flows": Retention(max_gigabytes=1e-9)}),
        lambda: client,
    ).keep(client)
    assert filled.run("SELECT count() FROM flows WHERE proto = 99") == [[1000]]


def test_users_have_the_rights_to_every_engine(replicated: ClusterNode) -> None:
    users = ElementTree.parse(resource("clickhouse/server/users.d/flow.xml"))
    grants = [str(query.text) for query in users.iterfind("users//query")]
    for grant in grants:
        # The server adds the user itself.
        assert replicated.run(f"SELECT formatQuerySingleLine('{grant} TO somebody')")
    engines = re.findall(r"ENGINE = (\w+)", "\n".join(STATEMENTS))
    one_node = render(load_migrations(resource("clickhouse/migrations")), "flow", "")
    for migration in one_node:
        for statement in migration.statements:
            engines += re.findall(r"^ENGINE = (\w+)", statement.sql, re.M)
    engines += re.findall(r"ENGINE = (\w+)", lock_statement("flow", "", ""))
    granted = {g.removeprefix("GRANT TABLE ENGINE ON ") for g in grants if "TABLE ENGINE" in g}
    assert granted == set(engines)


def test_only_one_of_two_nodes_gets_the_lock(replicated: ClusterNode) -> None:
    lock = lock_statement("flow", "flow", "first")
    # Another node has a table of the same name; here it must have another one.
    other = lock_statement("flow", "flow", "second").replace(
        "CREATE TABLE flow.schema_migrations_lock", "CREATE TABLE flow.lock_of_another_node"
    )
    replicated.run(lock)
    with pytest.raises(EngineRefusalError, match="REPLICA_ALREADY_EXISTS"):
        replicated.run(other)
    replicated.run("DROP TABLE flow.schema_migrations_lock SYNC")
    replicated.run(other)
    replicated.run("DROP TABLE flow.lock_of_another_node SYNC")


def test_a_statement_that_no_cluster_can_run_is_refused(tmp_path: Path) -> None:
    migrations = load_migrations(folder(tmp_path, "SELECT 1;\n\nINSERT INTO a VALUES (1)"))
    assert render(migrations, "flow", "")[0].statements == migrations[0].statements
    with pytest.raises(MigrationError, match=r"0001_test\.sql:1: clusters run CREATE"):
        render(migrations, "flow", "flow")


def test_words_in_texts_and_comments_are_no_tables(tmp_path: Path) -> None:
    migrations = load_migrations(
        folder(
            tmp_path,
            "CREATE TABLE IF NOT EXISTS a (x Int8 COMMENT 'ENGINE = Log FROM a') "
            "ENGINE = MergeTree ORDER BY x COMMENT 'rows FROM a'",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS b TO a AS\n-- FROM a\n"
            "SELECT x FROM a WHERE 'FROM a' != ''",
        )
    )
    first, second = render(migrations, "d", "c")
    assert "COMMENT 'ENGINE = Log FROM a')" in first.statements[0].sql
    assert "ENGINE = ReplicatedMergeTree(" in first.statements[0].sql
    assert first.statements[1].sql.endswith("rand())\nCOMMENT 'rows FROM a'")
    assert second.statements[0].sql == (
        "CREATE MATERIALIZED VIEW IF NOT EXISTS d.b ON CLUSTER 'c' TO d.a_local AS\n-- FROM a\n"
        "SELECT x FROM d.a_local WHERE 'FROM a' != ''"
    )


def test_what_is_dropped_is_dropped_in_whole_and_in_part(tmp_path: Path) -> None:
    migrations = load_migrations(
        folder(
            tmp_path,
            "CREATE TABLE IF NOT EXISTS a (x Int8) ENGINE = MergeTree ORDER BY x",
            "DROP TABLE IF EXISTS a; DROP VIEW IF EXISTS b",
        )
    )
    assert [s.sql for s in render(migrations, "d", "c")[1].statements] == [
        "DROP TABLE IF EXISTS d.a ON CLUSTER 'c' SYNC",
        "DROP TABLE IF EXISTS d.a_local ON CLUSTER 'c' SYNC",
        "DROP VIEW IF EXISTS d.b ON CLUSTER 'c' SYNC",
    ]
