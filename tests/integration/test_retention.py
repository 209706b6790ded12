"""How long and how much is kept, on the real store."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import get_args

import pytest
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse, RetainedTable, Retention
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from exporter.store.retention import TTL_TABLES, SizeKeeper
from tests.support.store import RunningStore

MIGRATIONS = resource("clickhouse/migrations")


@pytest.fixture
def settings(store: RunningStore) -> Iterator[ClickHouse]:
    """A migrated database of our own."""
    database = f"retention_{uuid.uuid4().hex[:8]}"
    settings = ClickHouse(
        url=store.url,
        user=store.user,
        password_file=str(store.data_dir / "writer.password"),
        database=database,
    )
    Migrator(settings, MIGRATIONS).apply()
    yield settings
    with store.client() as client:
        client.command(f"DROP DATABASE {database} SYNC")


def keeping(settings: ClickHouse, **retention: Retention) -> ClickHouse:
    return settings.model_copy(update={"retention": retention})


def days_of_flows(client: Client, *days: int, rows: int = 2000) -> None:
    """Flows of so many days ago, which random numbers keep from compressing."""
    # In one statement: between two of them midnight may come.
    client.command(
        "INSERT INTO flows (time_received, bytes, packets) "
        f"SELECT now64(3) - toIntervalDay(arrayJoin({list(days)})), rand64(number), "
        f"rand64(number + 1) FROM numbers({rows})"
    )


def ages(client: Client) -> list[int]:
    """Days before the newest flow."""
    return [
        int(row[0])
        for row in client.query(
            "WITH (SELECT max(time_received) FROM flows) AS newest "
            "SELECT DISTINCT dateDiff('day', time_received, newest) AS age FROM flows ORDER BY age"
        ).result_rows
    ]


def size(client: Client) -> int:
    return int(
        client.query(
            "SELECT sum(bytes_on_disk) FROM system.parts "
            "WHERE active AND database = currentDatabase() AND table = 'flows'"
        ).result_rows[0][0]
    )


def metric(keeper: SizeKeeper, name: str) -> dict[str, float]:
    return {
        sample.labels.get("table", ""): sample.value
        for family in keeper.collect()
        for sample in family.samples
        if sample.name == name
    }


def test_defaults_are_those_of_the_migrations(settings: ClickHouse) -> None:
    assert set(TTL_TABLES) == set(get_args(RetainedTable))
    assert Migrator(settings, MIGRATIONS).retention() == []


def test_another_time_is_set_once_and_drops_what_is_older(settings: ClickHouse) -> None:
    with connect(settings) as client:
        days_of_flows(client, 0, 5, 20)
        migrator = Migrator(keeping(settings, flows=Retention(days=10)), MIGRATIONS)
        assert [(c.table, c.text) for c in migrator.retention()] == [
            ("flows", "rows are kept for 10 days")
        ]
        assert len(migrator.set_retention()) == 1
        assert migrator.set_retention() == []
        client.command("OPTIMIZE TABLE flows FINAL")
        assert ages(client) == [0, 5]


def test_for_ever_and_back_again(settings: ClickHouse) -> None:
    kept = keeping(settings, flows_1m=Retention(days=0), alerts=Retention(days=3))
    assert {c.table: c.text for c in Migrator(kept, MIGRATIONS).set_retention()} == {
        "alerts": "rows are kept for 3 days",
        "flows_1m": "rows are kept for ever",
    }
    assert Migrator(kept, MIGRATIONS).retention() == []
    assert {c.table for c in Migrator(settings, MIGRATIONS).set_retention()} == {
        "alerts",
        "flows_1m",
    }


def test_the_oldest_days_go_when_there_is_too_much(settings: ClickHouse) -> None:
    with connect(settings) as client:
        days_of_flows(client, 0, 1, 2, 3)
        whole = size(client)
        capped = keeping(settings, flows=Retention(max_gigabytes=whole * 0.6 / 1e9))
        keeper = SizeKeeper(capped, lambda: connect(capped))
        keeper.keep(client)
        assert ages(client) == [0, 1]
        assert metric(keeper, "flow_exporter_retention_dropped_partitions_total") == {"flows": 2}
        dropped = metric(keeper, "flow_exporter_retention_dropped_bytes_total")["flows"]
        assert dropped == pytest.approx(whole / 2, rel=0.1)
        assert metric(keeper, "flow_exporter_retention_table_bytes")["flows"] == whole - dropped
        cap = metric(keeper, "flow_exporter_retention_max_bytes")
        assert cap == {"flows": pytest.approx(whole * 0.6)}
        keeper.keep(client)
        assert ages(client) == [0, 1]


def test_the_newest_day_stays_however_small_the_cap(settings: ClickHouse) -> None:
    with connect(settings) as client:
        days_of_flows(client, 0, 1, 2)
        capped = keeping(settings, flows=Retention(max_gigabytes=1e-9))
        keepers = [SizeKeeper(capped, lambda: connect(capped)) for _ in range(2)]
        # Two collectors at once.
        threads = [
            threading.Thread(target=keeper.keep, args=(connect(capped),)) for keeper in keepers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ages(client) == [0]


def test_days_that_a_wrong_clock_dated_ahead_do_not_take_the_place_of_the_present(
    settings: ClickHouse,
) -> None:
    with connect(settings) as client:
        days_of_flows(client, 1, 0, -1, -20)  # tomorrow, as midnight may come
        capped = keeping(settings, flows=Retention(max_gigabytes=1e-9))
        SizeKeeper(capped, lambda: connect(capped)).keep(client)
        left = client.query(
            "SELECT uniqExact(toDate(time_received)), "
            "max(abs(dateDiff('day', time_received, now('UTC')))) <= 1 FROM flows"
        )
        assert left.result_rows == [(1, 1)]


def test_the_thread_keeps_sizes_and_counts_failures(settings: ClickHouse) -> None:
    with connect(settings) as client:
        days_of_flows(client, 0, 1)
        capped = keeping(settings, flows=Retention(max_gigabytes=1e-9))
        looked = threading.Event()

        def reach() -> Client:
            looked.set()
            raise OSError("nobody is there")

        failing = SizeKeeper(capped, reach)
        failing.start()
        assert looked.wait(60)
        failing.stop()
        failing.join()
        assert metric(failing, "flow_exporter_retention_failures_total") == {"": 1}
        keeper = SizeKeeper(capped, lambda: connect(capped))
        keeper.start()
        keeper.stop()
        keeper.join()
        assert ages(client) == [0]
