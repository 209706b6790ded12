"""The embedded store through clickhouse-connect: sync, async, Arrow, data frames, streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import IPv4Address

import clickhouse_connect
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.support.store import RunningStore

COLUMNS = (
    "time DateTime64(3, 'UTC'), address IPv4, name LowCardinality(String), bytes UInt64, "
    "labels Array(UInt32)"
)
ROW = [datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), IPv4Address("10.0.0.1"), "a'b", 2**63, [1, 2]]


@pytest.fixture
def client(store: RunningStore) -> Iterator[Client]:
    with store.client() as client:
        client.command("CREATE DATABASE clients")
        client.command(f"CREATE TABLE clients.t ({COLUMNS}) ENGINE = MergeTree ORDER BY time")
        yield client
        client.command("DROP DATABASE clients SYNC")


def test_rows_come_back_as_they_were_inserted(client: Client) -> None:
    client.insert("clients.t", [ROW] * 3, column_names="*")
    rows = client.query("SELECT * FROM clients.t", tz_mode="aware").result_rows
    assert [list(row) for row in rows] == [ROW] * 3


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_all_compressions_of_the_client_work(store: RunningStore, compress: str | bool) -> None:
    with store.client(compress=compress, database="system") as client:
        assert client.query("SELECT sum(number) FROM numbers(100000)").first_row == (4999950000,)
        column = client.query("SELECT toString(number) FROM numbers(100000)").result_columns[0]
        assert column[-1] == "99999"


def test_a_session_id_does_no_harm(store: RunningStore) -> None:
    with store.client(autogenerate_session_id=True) as client:
        assert [client.command(f"SELECT {n}") for n in range(3)] == [0, 1, 2]


def test_arrow_and_data_frames(client: Client) -> None:
    table = pa.table({"bytes": pa.array([1, 2], pa.uint64()), "name": ["x", "y"]})
    client.insert_arrow("clients.t", table)
    client.insert_df("clients.t", pd.DataFrame({"bytes": [3], "name": ["z"]}))
    query = "SELECT bytes, toString(name) AS name FROM clients.t ORDER BY bytes"
    assert client.query_arrow(query, use_strings=True).to_pylist() == [
        {"bytes": 1, "name": "x"},
        {"bytes": 2, "name": "y"},
        {"bytes": 3, "name": "z"},
    ]
    assert client.query_df(query)["name"].tolist() == ["x", "y", "z"]


def test_streams_of_rows_frames_and_arrow(client: Client) -> None:
    query = "SELECT number AS n, toString(number) AS s FROM numbers(500000)"
    with client.query_rows_stream(query) as rows:
        assert sum(1 for _ in rows) == 500_000
    with client.query_df_stream(query) as frames:
        assert sum(len(frame) for frame in frames) == 500_000
    with client.query_arrow_stream(query) as batches:
        assert sum(batch.num_rows for batch in batches) == 500_000


def test_an_error_in_mid_stream_is_told_and_leaves_nothing_behind(client: Client) -> None:
    failing = "SELECT number, throwIf(number = 3000000, 'in the middle') FROM numbers(4000000)"
    for _ in range(2):
        seen: list[int] = []
        with pytest.raises(DatabaseError, match="in the middle"):
            _read_blocks(client, failing, seen)
        assert 0 < sum(seen) < 4_000_000
        assert client.query("SELECT 'fresh'").result_rows == [("fresh",)]


def _read_blocks(client: Client, query: str, seen: list[int]) -> None:
    with client.query_row_block_stream(query) as blocks:
        seen.extend(len(block) for block in blocks)


def test_the_async_client(store: RunningStore) -> None:
    async def run() -> list[int]:
        client = await clickhouse_connect.get_async_client(
            host="127.0.0.1",
            port=store.port,
            username=store.reader,
            password=store.reader_password,
        )
        try:
            answers = await asyncio.gather(
                *(client.query("SELECT {n:UInt32}", parameters={"n": n}) for n in range(20))
            )
            stream = await client.query_row_block_stream("SELECT number FROM numbers(300000)")
            async with stream:
                rows = [len(block) async for block in stream]
            return [answer.first_row[0] for answer in answers] + [sum(rows)]
        finally:
            await client.close()

    assert asyncio.run(run()) == [*range(20), 300_000]


def test_queries_run_beside_each_other(store: RunningStore) -> None:
    asked = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep(1)%'"

    def most(client: Client, pool: ThreadPoolExecutor) -> int:
        """How many were seen to run at a time."""
        queries = [pool.submit(client.query, "SELECT sleep(1)") for _ in range(6)]
        seen = 0
        while not all(query.done() for query in queries):
            seen = max(seen, int(str(client.command(asked))))
        for query in queries:
            query.result()
        return seen

    with store.client() as client, ThreadPoolExecutor(6) as pool:
        assert any(most(client, pool) > 1 for _ in range(10))


def test_readers_see_whole_inserts_only(client: Client, store: RunningStore) -> None:
    client.command("CREATE TABLE clients.n (n UInt64) ENGINE = MergeTree ORDER BY n")
    done = threading.Event()
    wrong: list[int] = []

    def read() -> None:
        with store.client(reader=True) as reader:
            while not done.is_set():
                count = reader.query("SELECT count() FROM clients.n").first_row[0]
                if count % 50_000:
                    wrong.append(count)

    thread = threading.Thread(target=read)
    thread.start()
    block = pa.table({"n": pa.array(range(50_000), pa.uint64())})
    for _ in range(10):
        client.insert_arrow("clients.n", block)
    done.set()
    thread.join()
    assert client.command("SELECT count() FROM clients.n") == 500_000
    assert not wrong
