"""What a fault in mid-insert wrote down but did not store is stored when it is sent again, once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from tests.support.mounts import read_only, small_disk
from tests.support.store import RunningStore, running_store

TABLES = ("t", "by_view")


@pytest.fixture
def store() -> Iterator[RunningStore]:
    with running_store() as running:
        window = "SETTINGS non_replicated_deduplication_window = 100"
        for table in TABLES:
            post(running, f"CREATE TABLE {table} (n UInt32) ENGINE = MergeTree ORDER BY n {window}")
        post(running, "CREATE MATERIALIZED VIEW v TO by_view AS SELECT n FROM t")
        insert(running, 1)
        yield running


def post(store: RunningStore, statement: str) -> str:
    answer = urllib3.request("POST", f"{store.url}/", body=statement, headers=store.authorization())
    text = answer.data.decode()
    if answer.status != 200:
        raise RuntimeError(text)
    return text


def insert(store: RunningStore, number: int, form: str = "VALUES ({})") -> None:
    settings = (
        f"insert_deduplication_token = '{number}', "
        "deduplicate_blocks_in_dependent_materialized_views = 1"
    )
    post(store, f"INSERT INTO t SETTINGS {settings} {form.format(number)}")


def stored(store: RunningStore) -> list[str]:
    """The numbers in each table."""
    return [post(store, f"SELECT arraySort(groupArray(n)) FROM {each}").strip() for each in TABLES]


def folder(store: RunningStore, table: str) -> Path:
    return Path(
        post(store, f"SELECT data_paths[1] FROM system.tables WHERE name = '{table}'").strip()
    )


def forgotten(store: RunningStore) -> float:
    text = urllib3.request("GET", f"{store.url}/metrics").data.decode()
    name = "flow_store_forgotten_inserts_total"
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("table", TABLES)
def test_after_a_kill_between_the_record_and_the_part(store: RunningStore, table: str) -> None:
    insert(store, 2)
    part = folder(store, table) / "all_2_2_0"
    store.kill()
    # The record is written, and then the part is put in its place.
    shutil.rmtree(part)
    store.start()
    assert forgotten(store) == 1
    for number in (1, 2):
        insert(store, number)
    assert stored(store) == ["[1,2]", "[1,2]"]
    store.restart()
    assert forgotten(store) == 0


@pytest.mark.parametrize("form", ["VALUES ({})", "SELECT {}"])
@pytest.mark.parametrize("table", TABLES)
def test_after_a_fault_of_the_disk_between_the_record_and_the_part(
    store: RunningStore, table: str, form: str
) -> None:
    # Nothing can be put in the place of a mounted disk.
    taken = folder(store, table) / "all_2_2_0"
    with small_disk(taken, "1m"), pytest.raises(RuntimeError, match="all_2_2_0"):
        insert(store, 2, form)
    assert stored(store)[TABLES.index(table)] == "[1]"
    for number in (1, 2, 3):
        insert(store, number, form)
    assert stored(store) == ["[1,2,3]", "[1,2,3]"]
    assert forgotten(store) == 1
    assert "1 records of inserts without their rows" in store.log.read_text()


def test_nothing_is_inserted_while_that_cannot_be_put_right(store: RunningStore) -> None:
    table = folder(store, "by_view")
    with small_disk(table / "all_2_2_0", "1m"), pytest.raises(RuntimeError, match="all_2_2_0"):
        insert(store, 2)
    logs = table / "deduplication_logs"
    with read_only(logs), pytest.raises(RuntimeError, match="after a failed insert"):
        insert(store, 3)
    assert stored(store) == ["[1,2]", "[1]"], "who reads finds the tables"
    for number in (1, 2, 3):
        insert(store, number)
    assert stored(store) == ["[1,2,3]", "[1,2,3]"]
