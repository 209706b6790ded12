"""The writer against the real store, also while the store is away, killed or refuses."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from exporter.batch import DictColumn, DnsBatch, FlowBatch
from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.insert import Encoding
from exporter.store.migrate import Migrator
from exporter.store.writer import Writer, WriterStoppedError
from tests.support.batches import random_batch
from tests.support.flows import random_flows
from tests.support.stack import free_port, soon
from tests.support.store import RunningStore, running_store
from tests.support.writing import LostAnswers, metric, migrated, settings_for, sums, total


@pytest.fixture
def settings(store: RunningStore) -> Iterator[ClickHouse]:
    with migrated(store) as settings:
        yield settings


def test_flows_come_out_as_they_went_in(settings: ClickHouse) -> None:
    batches = [random_batch(700, seed) for seed in range(5)]
    writer = Writer(settings)
    writer.start()
    for batch in batches:
        writer.write(batch)
    assert writer.stop() == 0
    assert sums(settings) == total(*batches)
    assert sums(settings, "flows_1m") == total(*batches)
    assert metric(writer, "rows_total") == 3500
    assert metric(writer, "queue_rows") == 0
    assert metric(writer, "batch_rows_sum") == 3500
    assert metric(writer, "last_success_timestamp_seconds") == pytest.approx(time.time(), abs=600)


def test_inserts_are_as_large_as_configured(settings: ClickHouse) -> None:
    writer = Writer(settings.model_copy(update={"batch_seconds": 30.0}))
    for seed in range(25):  # before the start, so that all is there when the first batch is taken
        writer.write(random_batch(100, seed))
    writer.start()
    soon(lambda: metric(writer, "rows_total") == 2000)
    assert metric(writer, "batch_rows_count") == 2
    assert metric(writer, "queue_rows") == 500
    assert writer.stop() == 0
    assert metric(writer, "batch_rows_count") == 3


def test_few_flows_do_not_wait_longer_than_configured(settings: ClickHouse) -> None:
    writer = Writer(settings)
    assert not writer.alive
    writer.start()
    writer.write(random_batch(1))
    soon(lambda: metric(writer, "rows_total") == 1)
    assert writer.alive
    assert writer.stop() == 0
    assert not writer.alive


def test_an_insert_of_many_flows_has_a_slot_of_its_own(settings: ClickHouse) -> None:
    rows = 120_000
    noon = int(time.time() * 1000) // 86_400_000 * 86_400_000 - 43_200_000

    def received(begin: int, milliseconds: int, count: int) -> FlowBatch:
        """Flows received evenly over that time."""
        times = begin + np.arange(count) * milliseconds // count
        return FlowBatch(count, {"time_received": times, "bytes": np.ones(count, np.uint64)})

    inserts = [
        received(noon + 7_123, 4_000, rows),
        received(noon + 11_456, 4_000, rows),
        received(noon + 20_000, 4_000, 10),  # few of them share the usual slots
        received(noon + 600_000, 3_600_000, rows),  # and so do those of an hour
    ]
    encoding = Encoding()
    with connect(settings) as client:
        for number, batch in enumerate(inserts):
            encoding.encode([batch], f"token {number}").send(client)
        slots = client.query(
            "SELECT toUnixTimestamp64Milli(time_slot) AS slot, count() FROM flows "
            "GROUP BY slot ORDER BY slot"
        ).result_rows
    hour = [(noon + minutes * 60_000, rows // 12) for minutes in range(10, 70, 5)]
    assert slots == [(noon, 10), (noon + 7_123, rows), (noon + 11_456, rows), *hour]


def test_drawn_flows_lie_together_and_stand_for_all(settings: ClickHouse) -> None:
    rows = 120_000
    flows = random_flows(rows, family=4, seed=1)
    flows.columns["time_received"] = np.full(rows, int(time.time() * 1000), np.int64)
    with connect(settings) as client:
        Encoding().encode([flows], "token").send(client)
        stood_for, told, drawn = client.query(
            "SELECT sum(weight), countIf(drawn != (weight > 0)), sum(drawn) FROM flows"
        ).result_rows[0]
        plan = client.query("EXPLAIN indexes = 1 SELECT sum(bytes) FROM flows WHERE drawn")
        client.command(
            "INSERT INTO flows (time_received, bytes)"
            " SELECT now(), if(number < 50, 1000000 + number, 0) FROM numbers(100000)"
        )
        by_others = client.command("SELECT sum(weight) FROM flows WHERE bytes = 0")
        large = client.query(
            "SELECT DISTINCT weight FROM flows WHERE bytes BETWEEN 1000000 AND 1000049"
            " AND packets = 0"
        ).result_rows
    assert told == 0
    assert abs(stood_for / rows - 1) < 0.1
    read = [line for (line,) in plan.result_rows if "Granules" in line]
    granules, of_all = map(int, read[-1].split(":")[1].split("/"))
    assert granules <= drawn / 8192 + 2 < of_all
    assert abs(int(by_others) / 100_000 - 1) < 0.2
    assert large == [(1,)]


def test_addresses_of_either_family_come_out_as_they_went_in(settings: ClickHouse) -> None:
    """A column of nothing but IPv4 is sent as such, one with any other address as IPv6."""
    four, none, six = "::ffff:192.0.2.1", "::", "2001:db8::1"
    inserts = [[four, "::ffff:0.0.0.0"], [four, six, none], [six, six], [none]]
    encoding = Encoding()
    with connect(settings) as client:
        for number, texts in enumerate(inserts):
            addresses = np.array([list(ip_address(text).packed) for text in texts], np.uint8)
            flows = FlowBatch(
                len(texts),
                {
                    "time_received": np.full(len(texts), int(time.time() * 1000), np.int64),
                    "device": DictColumn.constant(str(number), len(texts)),
                    "src_addr": addresses,
                    "dst_addr": addresses[:1].repeat(len(texts), 0),
                },
            )
            encoding.encode([flows], f"token {number}").send(client)
        for number, texts in enumerate(inserts):
            found = client.query(
                "SELECT toString(src_addr), toString(dst_addr) FROM flows "
                "WHERE device = {d:String}",
                {"d": str(number)},
            ).result_rows
            assert sorted(found) == sorted((text, texts[0]) for text in texts)


def test_flows_come_as_the_table_orders_them(settings: ClickHouse) -> None:
    """ClickHouse then need not sort them, which is a third of what an insert costs."""
    noon = int(time.time() * 1000) // 86_400_000 * 86_400_000 - 43_200_000
    random = np.random.default_rng(1)

    def received(rows: int, minutes: int, seed: int) -> FlowBatch:
        batch = random_flows(rows, family=0, seed=seed)
        batch.columns["time_received"] = noon + random.integers(0, minutes * 60_000, rows)
        return batch

    large = [received(30_000, 2, seed) for seed in range(4)]
    small = [received(500, 20, 5), received(1, 1, 6), received(700, 20, 7)]
    encoding = Encoding()
    with connect(settings) as client:
        # Views see what is inserted here, and sort theirs.
        for view in client.query(
            "SELECT name FROM system.tables WHERE engine = 'MaterializedView' "
            "AND database = currentDatabase()"
        ).result_columns[0]:
            client.command(f"DROP VIEW {view}")
        before = blocks(client)
        for number, batches in enumerate([large, small]):
            encoding.encode(batches, f"token {number}").send(client)
        after = blocks(client)
    assert after["MergeTreeDataWriterBlocks"] == before["MergeTreeDataWriterBlocks"] + 2
    sorted_already = "MergeTreeDataWriterBlocksAlreadySorted"
    assert after[sorted_already] == before[sorted_already] + 2


def blocks(client: Client) -> dict[str, int]:
    """How many blocks the engine has written, and how many of them were in order."""
    events = "SELECT event, value FROM system.events WHERE event LIKE 'MergeTreeDataWriterBlocks%'"
    found = {name: int(value) for name, value in client.query(events).result_rows}
    return {"MergeTreeDataWriterBlocks": 0, "MergeTreeDataWriterBlocksAlreadySorted": 0, **found}


def test_an_insert_whose_answer_is_lost_counts_once(settings: ClickHouse) -> None:
    batches = [random_batch(1000, seed) for seed in range(3)]
    writer = Writer(settings, lambda: LostAnswers(settings, lost=2))
    writer.start()
    for batch in batches:
        writer.write(batch)
    soon(lambda: metric(writer, "rows_total") == 3000)
    assert writer.stop() == 0
    assert metric(writer, "retries_total") == 2
    assert metric(writer, "failures_total", reason="unreachable") == 2
    for table in ("flows", "flows_1m", "flows_1h"):
        assert sums(settings, table) == total(*batches), table


def test_equal_batches_are_both_stored(settings: ClickHouse) -> None:
    batch = random_batch(1000)
    writer = Writer(settings)
    writer.start()
    writer.write(batch)
    soon(lambda: metric(writer, "rows_total") == 1000)
    writer.write(batch)
    assert writer.stop() == 0
    assert sums(settings) == total(batch, batch)


def test_nothing_is_lost_or_doubled_when_the_store_is_killed_and_comes_back() -> None:
    with running_store() as store:
        settings = settings_for(store, batch_rows=2000, batch_seconds=0.05, queue_batches=100)
        Migrator(settings, resource("clickhouse/migrations")).apply()
        writer = Writer(settings)
        writer.start()
        batches = [random_batch(500, seed) for seed in range(120)]
        for number, batch in enumerate(batches):
            killed = number in (30, 80)
            before = writer.stats.failures.total()
            if killed:
                store.kill()  # perhaps in the middle of an insert
            writer.write(batch)
            if killed:
                soon(lambda before=before: writer.stats.failures.total() > before)
                store.start()
            time.sleep(0.01)
        assert writer.stop(120) == 0
        assert metric(writer, "retries_total") > 0
        assert sums(settings) == total(*batches)
        assert sums(settings, "flows_1m") == total(*batches)


def test_without_clickhouse_the_buffer_is_bounded_and_the_loss_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = ClickHouse(
        url=f"http://127.0.0.1:{free_port(socket.SOCK_STREAM)}",
        batch_rows=100,
        batch_seconds=0.05,
        queue_batches=3,
    )
    writer = Writer(settings)
    writer.start()
    written = []

    def produce() -> None:
        with contextlib.suppress(WriterStoppedError):
            while True:
                writer.write(random_batch(50))
                written.append(50)

    producer = threading.Thread(target=produce)
    producer.start()
    soon(lambda: metric(writer, "queue_rows") == 300)
    soon(lambda: writer.stats.failures["unreachable"] >= 2)
    assert producer.is_alive()
    # What is being inserted, and what waits.
    assert sum(written) <= 100 + 300
    began = time.monotonic()
    lost = writer.stop(timeout=0.5)
    assert time.monotonic() - began < 20  # not for ever
    producer.join(30)
    assert not producer.is_alive()
    assert lost == sum(written)
    assert metric(writer, "lost_rows_total") == lost + 50  # and the one that found no room
    assert metric(writer, "blocked_seconds_total") > 0
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1  # once a minute, not once an attempt
    assert "cannot be reached: Connection refused." in warnings[0]


def test_a_wrong_password_is_told_and_may_be_mended(
    settings: ClickHouse, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong")
    batch = random_batch(10)
    writer = Writer(settings.model_copy(update={"password_file": str(password)}))
    writer.start()
    writer.write(batch)
    soon(lambda: "wrong user or password" in caplog.text)
    assert str(password) in caplog.text
    password.write_text(Path(settings.password_file).read_text())
    soon(lambda: metric(writer, "rows_total") == 10)
    assert writer.stop() == 0
    assert sums(settings) == total(batch)


def test_flows_wait_for_tables_that_are_missing(
    store: RunningStore, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(store)
    batch = random_batch(10)
    writer = Writer(settings)
    writer.start()
    writer.write(batch)
    soon(lambda: "flow-exporter migrate" in caplog.text)
    Migrator(settings, resource("clickhouse/migrations")).apply()
    soon(lambda: metric(writer, "rows_total") == 10)
    assert writer.stop() == 0
    assert sums(settings) == total(batch)


def test_refused_flows_hold_up_no_others(
    settings: ClickHouse, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(settings) as client:
        client.command("ALTER TABLE flows DROP COLUMN rtt")
    refused, fine = random_batch(1000, seed=1), random_batch(1000, seed=2)
    del fine.columns["rtt"]
    writer = Writer(settings)
    reason = {"reason": "no_such_column_in_table"}
    assert metric(writer, "refused_rows_total", **reason) == 0  # there before it grows
    writer.start()
    writer.write(refused)
    writer.write(fine)
    assert writer.stop() == 0
    assert sums(settings) == total(fine)
    assert metric(writer, "retries_total") == 0
    assert metric(writer, "refused_rows_total", **reason) == 1000
    assert "No such column rtt" in caplog.text


def test_a_faulty_batch_does_not_end_the_writer(settings: ClickHouse) -> None:
    writer = Writer(settings)
    writer.start()
    writer.write(FlowBatch(1000, {"bytes": np.zeros(3, np.uint64)}))
    fine = random_batch(1000)
    writer.write(fine)
    assert writer.stop() == 0
    assert metric(writer, "refused_rows_total", reason="encoding") == 1000
    assert sums(settings) == total(fine)


def test_after_the_stop_nothing_is_taken(settings: ClickHouse) -> None:
    writer = Writer(settings)
    writer.start()
    assert writer.stop() == 0
    with pytest.raises(WriterStoppedError):
        writer.write(random_batch(7))
    assert metric(writer, "lost_rows_total") == 7


def test_queries_are_stored_beside_flows(settings: ClickHouse) -> None:
    writer = Writer(settings.model_copy(update={"batch_seconds": 0.05}))
    writer.start()
    flows = [random_batch(1000, seed) for seed in range(4)]
    addresses = np.arange(160, dtype=np.uint8).reshape(10, 16)
    answers = [(), (bytes(range(16)), bytes(16))] * 5
    queries = DnsBatch(
        10,
        {
            "time_received": np.full(10, int(time.time() * 1000), np.int64),
            "source": DictColumn.constant("dnstap", 10),
            "src_addr": addresses,
            "dns_name": DictColumn.encode([f"{n}.example" for n in range(10)]),
            "dns_latency": np.full(10, 0.25, np.float32),
            "answers": DictColumn.encode(answers),
        },
    )
    for batch in (flows[0], queries, *flows[1:]):
        writer.write(batch)
    assert writer.stop() == 0
    assert sums(settings) == total(*flows)
    assert metric(writer, "rows_total") == 4000
    assert metric(writer, "rows_total", table="dns_queries") == 10
    with connect(settings) as client:
        rows = client.query(
            "SELECT reinterpretAsFixedString(src_addr), dns_name, dns_latency, dns_rcode, "
            "arrayMap(a -> reinterpretAsFixedString(a), answers) FROM dns_queries "
            "WHERE source = 'dnstap' ORDER BY dns_name"
        ).result_rows
    assert rows == [
        (addresses[n].tobytes(), f"{n}.example", 0.25, "", list(answers[n])) for n in range(10)
    ]
