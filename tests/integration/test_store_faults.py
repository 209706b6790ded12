"""What the embedded store does when clients vanish, limits are met, and processes die."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import trustme
import urllib3
from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.support.mounts import fill, small_disk
from tests.support.store import RunningStore, running_store

FOREVER = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"


def running(store: RunningStore) -> list[str]:
    """The statements that run in the engine, but for this one."""
    with store.client() as client:
        rows = client.query("SELECT query FROM system.processes").result_rows
    return [query for (query,) in rows if "system.processes" not in query]


def eventually(condition: object, seconds: float = 300.0) -> bool:
    """Whether ``condition()`` comes true in time."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def metric(store: RunningStore, name: str) -> float:
    text = urllib3.request("GET", store.url + "/metrics").data.decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def send_and_leave(store: RunningStore, statement: str, read: int = 0) -> None:
    """Post a query, read ``read`` bytes of its answer, and close the connection while it runs."""
    authorization = store.authorization()["authorization"]
    with socket.create_connection(("127.0.0.1", store.port)) as connection:
        connection.sendall(
            f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
            f"Content-Length: {len(statement)}\r\n\r\n{statement}".encode()
        )
        while read > 0:
            read -= len(connection.recv(65536))
        assert eventually(lambda: running(store))


def test_a_query_ends_when_its_client_goes_away(store: RunningStore) -> None:
    before = metric(store, 'flow_store_queries_total{kind="query",outcome="cancelled"}')
    send_and_leave(store, FOREVER)
    assert eventually(lambda: not running(store))
    cancelled = 'flow_store_queries_total{kind="query",outcome="cancelled"}'
    assert eventually(lambda: metric(store, cancelled) == before + 1)


def test_a_long_answer_ends_when_its_reader_goes_away(store: RunningStore) -> None:
    send_and_leave(store, "SELECT number FROM system.numbers", read=1 << 20)
    assert eventually(lambda: not running(store))
    with store.client() as client:
        assert client.query("SELECT 'fresh'").result_rows == [("fresh",)]


def test_a_long_answer_takes_little_memory(store: RunningStore) -> None:
    def resident() -> int:
        status = Path(f"/proc/{store.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    before = resident()
    highest = before
    total = 0
    answer = urllib3.request(
        "GET",
        store.url + "/?query=SELECT+number,toString(number)+FROM+numbers(8000000)+FORMAT+JSON",
        headers=store.authorization(reader=True),
        preload_content=False,
    )
    for part in answer.stream(1 << 20):
        total += len(part)
        highest = max(highest, resident())
    assert total > 400_000_000
    assert highest - before < 200


def test_connections_are_bounded_and_the_store_goes_on(store: RunningStore) -> None:
    def is_closed(client: socket.socket) -> bool:
        client.settimeout(0.0)
        try:
            return client.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    with contextlib.ExitStack() as opened:
        many = [
            opened.enter_context(socket.create_connection(("127.0.0.1", store.port)))
            for _ in range(530)
        ]
        # Those that never ask lose theirs as well, but only after a while.
        assert eventually(lambda: any(map(is_closed, many)))
        assert not all(map(is_closed, many))
    assert eventually(lambda: metric(store, "flow_store_connections") < 10)
    assert metric(store, 'flow_store_refused_connections_total{reason="total"}') > 0
    assert store.ask("default", "SELECT 1") == [(1,)]


def test_an_unfinished_insert_stores_nothing(store: RunningStore) -> None:
    with store.client() as client:
        client.command("CREATE TABLE IF NOT EXISTS unfinished (a UInt64) ENGINE = MergeTree "
                       "ORDER BY a")  # fmt: skip
        authorization = store.authorization()["authorization"]
        with socket.create_connection(("127.0.0.1", store.port)) as connection:
            connection.sendall(
                f"POST /?query=INSERT+INTO+unfinished+FORMAT+CSV HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: {authorization}\r\nContent-Length: 1000\r\n\r\n1\n2\n3\n".encode()
            )
            time.sleep(0.3)
        assert eventually(lambda: metric(store, "flow_store_queries_running") == 0)
        assert client.command("SELECT count() FROM unfinished") == 0
        client.command("DROP TABLE unfinished SYNC")


def test_an_insert_that_fails_at_its_end_says_so(store: RunningStore) -> None:
    with store.client() as client:
        client.command("CREATE DATABASE ends")
        try:
            client.command("CREATE TABLE ends.t (a UInt64, CONSTRAINT low CHECK a < 10) "
                           "ENGINE = MergeTree ORDER BY a")  # fmt: skip
            with pytest.raises(ClickHouseError, match="VIOLATED_CONSTRAINT"):
                client.raw_insert("ends.t", insert_block=b"10\n", fmt="TSV")
            client.command("CREATE MATERIALIZED VIEW ends.v ENGINE = MergeTree ORDER BY a AS "
                           "SELECT a + throwIf(a = 5) AS a FROM ends.t")  # fmt: skip
            with pytest.raises(ClickHouseError, match="FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"):
                client.raw_insert("ends.t", insert_block=b"5\n", fmt="TSV")
        finally:
            client.command("DROP DATABASE ends SYNC")


def test_an_insert_into_a_full_disk_says_so(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "64m") as disk,
        RunningStore(disk / "store") as store,
        store.client() as client,
    ):
        client.command("CREATE DATABASE f")
        client.command("CREATE TABLE f.t (a UInt64) ENGINE = MergeTree ORDER BY a")
        ballast = fill(disk)
        with pytest.raises(ClickHouseError, match="NOT_ENOUGH_SPACE"):
            client.raw_insert("f.t", insert_block=b"1\n", fmt="TSV")
        ballast.unlink()
        client.raw_insert("f.t", insert_block=b"2\n", fmt="TSV")
        assert client.command("SELECT sum(a) FROM f.t") == 2


@pytest.fixture(scope="module")
def small() -> Iterator[RunningStore]:
    """A store with narrow bounds."""
    with running_store(
        "--max-queries", "1", "--max-waiting", "1", "--max-query-memory", "64M",
        "--max-query-seconds", "1", "--max-result-rows", "1000", "--slow-query-seconds", "0.5",
    ) as store:  # fmt: skip
        yield store


def ask(store: RunningStore, query: str, *, reader: bool = True) -> urllib3.BaseHTTPResponse:
    return urllib3.request(
        "POST", store.url, body=query, headers=store.authorization(reader=reader), retries=False
    )


def test_queries_are_bounded(small: RunningStore) -> None:
    memory = ask(small, "SELECT length(range(materialize(50000000)))")  # at once
    assert memory.headers["X-ClickHouse-Exception-Code"] == "241"
    began = time.monotonic()
    endless = ask(small, FOREVER)
    assert endless.headers["X-ClickHouse-Exception-Code"] == "159"
    assert time.monotonic() - began < 20  # the query itself knows no end
    rows = ask(small, "SELECT number FROM numbers(2000)")
    assert rows.headers["X-ClickHouse-Exception-Code"] == "396"
    told = f"user flow_reader, id {endless.headers['X-ClickHouse-Query-Id']}"
    assert eventually(lambda: told in small.log.read_text())


def test_queries_wait_for_their_turn_and_then_are_refused(small: RunningStore) -> None:
    for _ in range(10):  # where the three do not begin together, or not get the time, once more
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: ask(small, "SELECT sleep(0.7)"), range(3)))
        if sorted(answer.status for answer in answers) == [200, 200, 503]:
            break
    assert sorted(answer.status for answer in answers) == [200, 200, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.headers["X-ClickHouse-Exception-Code"] == "202"
    assert refused.headers["Retry-After"] == "1"


def test_inserts_do_not_wait_for_queries(small: RunningStore) -> None:
    ask(small, "CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a", reader=False)

    def overtakes() -> bool:
        """Whether an insert is done while the query that began before it still runs."""
        with ThreadPoolExecutor(1) as pool:
            query = pool.submit(ask, small, "SELECT sleep(0.9)")
            eventually(lambda: metric(small, "flow_store_queries_running") == 1 or query.done())
            assert ask(small, "INSERT INTO t VALUES (1)", reader=False).status == 200
            return not query.done()

    assert any(overtakes() for _ in range(20))


def test_the_reader_leaves_turns_and_places_in_the_queue_to_the_writer() -> None:
    with (
        running_store("--max-queries", "4", "--max-waiting", "1") as store,
        ThreadPoolExecutor(8) as pool,
    ):

        def writer_is_served() -> bool:
            """Whether the writer's query is done while the reader has all turns that it may."""
            crowd = [pool.submit(ask, store, "SELECT sleep(1)") for _ in range(6)]
            waits = eventually(lambda: metric(store, "flow_store_queries_queued") == 1, 2)
            most = metric(store, "flow_store_queries_running")
            served = ask(store, "SELECT 1", reader=False).status == 200
            early = not all(query.done() for query in crowd)
            for query in crowd:
                query.result()
            return waits and most == 3 and served and early

        assert any(writer_is_served() for _ in range(20))


def test_a_statement_that_is_too_large_is_refused(small: RunningStore) -> None:
    answer = ask(small, "SELECT " + "1," * 600_000 + "1")
    assert answer.status == 413
    assert answer.headers["X-ClickHouse-Exception-Code"] == "229"


def test_sigterm_lets_running_queries_end() -> None:
    with running_store() as store, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, store, "SELECT sleep(2), 'whole'")
        eventually(lambda: metric(store, "flow_store_queries_running") == 1 or answer.done())
        assert store.stop() == 0
        assert answer.result().data == b"0\twhole\n"


def test_what_was_acknowledged_survives_a_kill() -> None:
    """Inserts go on until the process is killed; those that were answered are all there."""
    with running_store() as store:
        with store.client() as client:
            client.command("CREATE DATABASE f")
            client.command("CREATE TABLE f.t (batch UInt32, n UInt32) ENGINE = MergeTree "
                           "ORDER BY batch")  # fmt: skip
        acknowledged: list[int] = []

        def insert() -> None:
            with contextlib.suppress(ClickHouseError, OSError), store.client() as client:
                for batch in range(100_000):
                    rows = pa.table(
                        {
                            "batch": pa.array([batch] * 1000, pa.uint32()),
                            "n": pa.array(range(1000), pa.uint32()),
                        }
                    )
                    client.insert_arrow("f.t", rows)
                    acknowledged.append(batch)

        thread = threading.Thread(target=insert)
        thread.start()
        assert eventually(lambda: len(acknowledged) >= 20)
        store.kill()
        thread.join()
        store.start()
        with store.client() as client:
            rows = client.query("SELECT batch, count() FROM f.t GROUP BY batch").result_rows
            stored = dict(rows)
            assert set(acknowledged) <= set(stored)
            assert set(stored.values()) == {1000}
            assert len(stored) <= len(acknowledged) + 1
            client.command("INSERT INTO f.t VALUES (0, 0)")


def test_one_data_directory_belongs_to_one_store(store: RunningStore) -> None:
    second = subprocess.run(
        [sys.executable, "-c", "from exporter.cli import main; main()", "store",
         "--data-dir", store.data_dir, "--listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"in use by another flow-exporter store (process {store.pid})" in second.stderr


def test_a_taken_port_is_told(store: RunningStore, tmp_path: Path) -> None:
    other = RunningStore(tmp_path / "other")
    other.port = store.port
    with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{store.port}"):
        other.start()


def test_a_backup_brings_tables_back() -> None:
    with running_store() as store:
        with store.client() as client:
            client.command("CREATE DATABASE f")
            client.command("CREATE TABLE f.t (a UInt32) ENGINE = MergeTree ORDER BY a")
            client.command("INSERT INTO f.t SELECT number FROM numbers(1000)")
            client.command("BACKUP DATABASE f TO Disk('backups', 'monday')")
            assert (store.data_dir / "backups" / "monday").is_dir()
            client.command("INSERT INTO f.t VALUES (500)")
            client.command(
                "BACKUP DATABASE f TO Disk('backups', 'tuesday') "
                "SETTINGS base_backup = Disk('backups', 'monday')"
            )
            client.command("DROP DATABASE f SYNC")
            client.command("RESTORE DATABASE f FROM Disk('backups', 'tuesday')")
            assert client.command("SELECT sum(a) FROM f.t") == 500_000
        # Copied while stopped, the directory is a store of its own.
        store.stop()
        copy = store.data_dir.parent / "copy"
        subprocess.run(["cp", "-a", store.data_dir, copy], check=True)
        with RunningStore(copy) as copied, copied.client() as client:
            assert client.command("SELECT sum(a) FROM f.t") == 500_000


def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = [
        "--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "key.pem"),
    ]  # fmt: skip
    with running_store(*options) as store:
        assert store.url.startswith("https://")
        with store.client(secure=True, ca_cert=str(tmp_path / "ca.pem")) as client:
            assert client.command("SELECT 1") == 1


def test_ctrl_c_ends_it_in_good_order(tmp_path: Path) -> None:
    with RunningStore(tmp_path / "store") as store:
        os.kill(store.pid, signal.SIGINT)
        assert store.wait() == 0
