"""Migrations, applied to the real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.schema import DNS_QUERIES, FLOWS, Table
from exporter.store.client import StoreError, connect
from exporter.store.migrate import Migrator
from exporter.store.statements import MigrationError, load_migrations, split_statements
from tests.support.store import RunningStore

MIGRATIONS = resource("clickhouse/migrations")


@pytest.fixture
def settings(store: RunningStore) -> Iterator[ClickHouse]:
    """A database of our own, not made yet."""
    database = f"migrate_{uuid.uuid4().hex[:8]}"
    yield ClickHouse(
        url=store.url,
        user=store.user,
        password_file=str(store.data_dir / "writer.password"),
        database=database,
    )
    with store.client() as client:
        client.command(f"DROP DATABASE IF EXISTS {database} SYNC")


@pytest.fixture(scope="module")
def migrated(store: RunningStore) -> ClickHouse:
    """A database that has all migrations, only to be read."""
    settings = ClickHouse(
        url=store.url,
        user=store.user,
        password_file=str(store.data_dir / "writer.password"),
        database="migrate_all",
    )
    Migrator(settings, MIGRATIONS).apply()
    return settings


def databases(settings: ClickHouse) -> set[str]:
    with connect(settings, database="") as client:
        return {row[0] for row in client.query("SHOW DATABASES").result_rows}


def tables(client: Client) -> set[str]:
    return {row[0] for row in client.query("SHOW TABLES").result_rows}


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name.lstrip('_')}.sql").write_text(text)
    return folder


@pytest.mark.parametrize("table", [FLOWS, DNS_QUERIES], ids=lambda table: table.name)
def test_the_tables_are_what_the_schema_says(migrated: ClickHouse, table: Table) -> None:
    with connect(migrated) as client:
        stored = client.query(
            "SELECT name, type, comment FROM system.columns "
            "WHERE database = currentDatabase() AND table = {table:String} "
            "AND default_kind NOT IN ('MATERIALIZED', 'EPHEMERAL') ORDER BY position",
            {"table": table.name},
        ).result_rows
    assert [tuple(row) for row in stored] == [
        (c.name, c.clickhouse_type, c.description) for c in table.columns
    ]


def test_all_tables_are_there_and_every_column_is_explained(migrated: ClickHouse) -> None:
    with connect(migrated) as client:
        assert tables(client) >= {
            "flows", "flows_1m", "flows_1h", "hosts_1h", "networks_1h", "hosts_seen",
            "dns_queries", "names_seen", "alerts", "incident_evidence", "devices", "interfaces",
            "protocol_names", "port_names", "as_names", "schema_migrations",
        }  # fmt: skip
        silent = client.query(
            "SELECT table, name FROM system.columns WHERE database = currentDatabase() "
            "AND comment = '' AND table IN (SELECT name FROM system.tables "
            "WHERE database = currentDatabase() AND engine NOT LIKE '%View')"
        ).result_rows
        bare = client.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            "AND comment = '' AND engine != 'MaterializedView'"
        ).result_rows
    assert silent == []
    assert bare == []


def test_names_are_looked_up_by_number(migrated: ClickHouse) -> None:
    with connect(migrated) as client:
        names = client.query(
            "SELECT joinGet('protocol_names', 'name', toUInt8(6)), "
            "joinGet('port_names', 'name', toUInt8(17), toUInt16(53)), "
            "joinGet('as_names', 'name', toUInt32(64512))"
        ).first_row
    assert tuple(names or ()) == ("TCP", "domain", "")


def test_a_second_run_has_nothing_to_do(settings: ClickHouse) -> None:
    migrator = Migrator(settings, MIGRATIONS)
    assert [m.version for m in migrator.apply()] == [m.version for m in load_migrations(MIGRATIONS)]
    assert migrator.apply() == []
    assert migrator.pending() == []


def test_every_migration_may_be_run_again_after_breaking_off(settings: ClickHouse) -> None:
    Migrator(settings, MIGRATIONS).apply()
    with connect(settings) as client:
        names = client.query("SELECT count() FROM port_names").result_rows
        client.command("TRUNCATE TABLE schema_migrations")
        assert len(Migrator(settings, MIGRATIONS).apply()) > 0
        assert client.query("SELECT count() FROM port_names").result_rows == names


def test_a_dry_run_changes_nothing(settings: ClickHouse) -> None:
    assert Migrator(settings, MIGRATIONS).pending()
    assert settings.database not in databases(settings)


def test_an_edited_migration_is_refused(settings: ClickHouse, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", _0001_a="CREATE TABLE IF NOT EXISTS a (v Int8) ENGINE = Memory")
    Migrator(settings, folder).apply()
    write(folder, _0001_a="CREATE TABLE IF NOT EXISTS a (v Int16) ENGINE = Memory")
    with pytest.raises(
        MigrationError, match=r"0001_a\.sql: was changed.*first release.*clickhouse\.database"
    ):
        Migrator(settings, folder).apply()


def test_a_database_from_the_future_is_refused(settings: ClickHouse, tmp_path: Path) -> None:
    folder = write(tmp_path / "m", _0001_a="SELECT 1", _0002_b="SELECT 2")
    Migrator(settings, folder).apply()
    (folder / "0002_b.sql").unlink()
    with pytest.raises(MigrationError, match="0002_b"):
        Migrator(settings, folder).pending()


def test_a_failing_statement_is_named_and_the_rest_comes_later(
    settings: ClickHouse, tmp_path: Path
) -> None:
    table = "CREATE TABLE IF NOT EXISTS {} (v Int8) ENGINE = Memory;\n"
    folder = write(
        tmp_path / "m",
        _0001_a=table.format("a"),
        _0002_b=table.format("b") + "\n-- the next one is wrong\nCREATE TABEL c;\n",
    )
    with pytest.raises(MigrationError, match=r"0002_b\.sql:4: statement 2 of 2 failed.*TABEL"):
        Migrator(settings, folder).apply()
    write(folder, _0002_b=table.format("b") + table.format("c"))
    assert [m.name for m in Migrator(settings, folder).apply()] == ["b"]
    with connect(settings) as client:
        assert tables(client) == {"a", "b", "c", "schema_migrations"}


def test_two_at_once_apply_each_migration_once(settings: ClickHouse, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "m",
        _0001_a="CREATE TABLE IF NOT EXISTS a (v Int8) ENGINE = MergeTree ORDER BY v;"
        "SELECT sleep(0.5)",
        _0002_b="INSERT INTO a VALUES (1)",
    )
    applied: list[int] = []

    def apply() -> None:
        applied.extend(m.version for m in Migrator(settings, folder).apply())

    threads = [threading.Thread(target=apply) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [1, 2]
    with connect(settings) as client:
        assert client.query("SELECT count() FROM a").result_rows == [(1,)]
        assert tables(client) == {"a", "schema_migrations"}


def lock(settings: ClickHouse, holder: str) -> None:
    with connect(settings, database="") as client:
        client.command(f"CREATE DATABASE {settings.database}")
        client.command(
            f"CREATE TABLE {settings.database}.schema_migrations_lock (held UInt8) "
            f"ENGINE = Memory COMMENT '{holder}'"
        )


def test_a_running_migration_is_waited_for_then_named(settings: ClickHouse, tmp_path: Path) -> None:
    lock(settings, f"{os.uname().nodename} {os.getpid()} {time.time():.0f}")
    folder = write(tmp_path / "m", _0001_a="SELECT 1")
    with pytest.raises(MigrationError, match=f"another migration.*{os.getpid()}.*DROP TABLE"):
        Migrator(settings, folder).apply(wait_seconds=0.5)


def test_the_lock_of_a_dead_process_is_taken_over(settings: ClickHouse, tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    lock(settings, f"{os.uname().nodename} {dead} {time.time():.0f}")
    folder = write(tmp_path / "m", _0001_a="SELECT 1")
    assert len(Migrator(settings, folder).apply(wait_seconds=0.5)) == 1
    with connect(settings) as client:
        assert tables(client) == {"schema_migrations"}


@pytest.mark.parametrize(("age", "taken_over"), [(60, False), (3600, True)])
def test_the_lock_of_another_machine_is_taken_over_when_it_is_old(
    settings: ClickHouse, tmp_path: Path, age: int, taken_over: bool
) -> None:
    lock(settings, f"elsewhere.example 1 {time.time() - age:.0f}")
    migrator = Migrator(settings, write(tmp_path / "m", _0001_a="SELECT 1"))
    if taken_over:
        assert len(migrator.apply(wait_seconds=0.5)) == 1
    else:
        with pytest.raises(MigrationError, match="is running: elsewhere"):
            migrator.apply(wait_seconds=0.5)


def test_numbers_must_follow_one_another(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"0003_c\.sql: expected number 0002"):
        load_migrations(write(tmp_path / "gap", _0001_a="SELECT 1", _0003_c="SELECT 1"))
    with pytest.raises(MigrationError, match=r"b\.sql: migrations are named"):
        load_migrations(write(tmp_path / "name", b="SELECT 1"))


def test_statements_end_at_semicolons_outside_quotes_and_comments() -> None:
    text = "-- a; b\nSELECT ';', \"x;\" /* ; */;\n\n-- only a comment;\n;\nSELECT 'it''s \\'; ok'"
    statements = list(split_statements(text))
    assert [s.line for s in statements] == [2, 6]
    assert statements[1].sql == "SELECT 'it''s \\'; ok'"
    with pytest.raises(ValueError, match="line 2: ' is not closed"):
        list(split_statements("SELECT 1;\nSELECT 'a"))


def run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from exporter.cli import main; main()", "migrate", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def config(folder: Path, settings: ClickHouse, **changes: str) -> str:
    path = folder / "flow-exporter.yaml"
    values = {"url": settings.url, "database": settings.database, **changes}
    path.write_text("clickhouse:\n" + "".join(f"  {k}: {v}\n" for k, v in values.items()))
    return str(path)


def test_the_command_migrates(store: RunningStore, settings: ClickHouse, tmp_path: Path) -> None:
    file = config(tmp_path, settings)
    password = {"FLOW_CLICKHOUSE_PASSWORD": store.password}
    dry = run("--dry-run", "--config", file, environment=password)
    assert dry.returncode == 0, dry.stderr
    assert "CREATE TABLE IF NOT EXISTS flows\n" in dry.stdout
    assert settings.database not in databases(settings)
    real = run("--config", file, environment=password)
    assert "applied 0001_flows.sql" in real.stdout
    again = run("--config", file, environment=password)
    assert again.stdout.strip() == f"database {settings.database} is up to date"


def test_a_dry_run_for_a_cluster_shows_what_the_cluster_would_run(
    store: RunningStore, settings: ClickHouse, tmp_path: Path
) -> None:
    file = config(tmp_path, settings, cluster="big")
    dry = run("--dry-run", "--config", file,
              environment={"FLOW_CLICKHOUSE_PASSWORD": store.password})  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    name = f"{settings.database}.flows"
    assert f"CREATE TABLE IF NOT EXISTS {name}_local ON CLUSTER 'big'" in dry.stdout
    assert f"ENGINE = Distributed('big', '{settings.database}', 'flows_local', " in dry.stdout
    assert settings.database not in databases(settings)


def test_a_database_of_one_node_does_not_become_a_clusters(settings: ClickHouse) -> None:
    Migrator(settings, MIGRATIONS).apply()
    on_cluster = settings.model_copy(update={"cluster": "big"})
    with pytest.raises(MigrationError, match=r"made for one node, but clickhouse\.cluster is big"):
        Migrator(on_cluster, MIGRATIONS).pending()


def test_what_is_missing_is_made_again(
    store: RunningStore, settings: ClickHouse, tmp_path: Path
) -> None:
    Migrator(settings, MIGRATIONS).apply()
    file = config(tmp_path, settings)
    password = {"FLOW_CLICKHOUSE_PASSWORD": store.password}
    with connect(settings) as client:
        client.command("INSERT INTO flows (bytes) VALUES (1)")
        client.command("DROP VIEW flows_1m_from_flows")
        client.command("DROP TABLE port_names")
        assert run("--config", file, environment=password).returncode == 0
        assert "port_names" not in tables(client)
        again = run("--again", "--config", file, environment=password)
        assert "applied 0006_names.sql" in again.stdout, again.stderr
        assert {"port_names", "flows_1m_from_flows"} <= tables(client)
        port = client.command("SELECT joinGet('port_names', 'name', 6::UInt8, 443::UInt16)")
        assert port == "https"
        recorded = client.command("SELECT count() - uniqExact(version) FROM schema_migrations")
        assert recorded == 0


def test_the_command_sets_the_retention(
    store: RunningStore, settings: ClickHouse, tmp_path: Path
) -> None:
    password = {"FLOW_CLICKHOUSE_PASSWORD": store.password}
    Migrator(settings, MIGRATIONS).apply()
    file = config(tmp_path, settings, retention="{flows: {days: 7}}")
    dry = run("--dry-run", "--config", file, environment=password)
    assert "would change flows: rows are kept for 7 days\n\nALTER TABLE" in dry.stdout
    assert (
        "changed flows: rows are kept for 7 days"
        in run("--config", file, environment=password).stdout
    )
    assert "is up to date" in run("--config", file, environment=password).stdout


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({}, "wrong user or password", 1),
        ({"url": "http://127.0.0.1:1"}, "cannot be reached", 1),
        # The configuration is at fault.
        ({"url": "tcp://127.0.0.1:9000"}, "not an http", 2),
        ({"password_file": "/nowhere/password"}, "/nowhere/password", 2),
    ],
)
def test_the_command_says_what_is_wrong(
    settings: ClickHouse, tmp_path: Path, changes: dict[str, str], message: str, code: int
) -> None:
    file = config(tmp_path, settings, **changes)
    result = run("--config", file, environment={"FLOW_CLICKHOUSE_PASSWORD": "wrong"})
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_database_is_explained(settings: ClickHouse) -> None:
    with pytest.raises(StoreError, match="flow-exporter migrate"), connect(settings) as client:
        client.query("SELECT 1 FROM flows")


def test_the_sql_is_found_from_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "share" / "flow-exporter" / "clickhouse" / "migrations"
    shutil.copytree(MIGRATIONS, installed)
    package = tmp_path / "lib" / "exporter" / "resources.py"
    monkeypatch.setattr("exporter.resources.__file__", str(package))
    monkeypatch.setattr("exporter.resources.sysconfig.get_path", lambda *_: str(tmp_path))
    assert resource("clickhouse/migrations") == installed
    with pytest.raises(FileNotFoundError, match="incomplete"):
        resource("clickhouse/nothing")
