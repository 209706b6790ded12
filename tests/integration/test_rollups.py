"""What the materialised views make of flows, on the real engine."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from exporter.batch import Array, DictColumn, FlowBatch
from exporter.store.client import connect
from exporter.store.native import present_columns
from tests.support.batches import encode_native, random_batch
from tests.support.store import RunningStore
from tests.support.writing import migrated

#: A full hour, recent enough for no TTL to bite.
HOUR = int(time.time()) // 3600 * 3600 - 7200


@pytest.fixture
def client(store: RunningStore) -> Iterator[Client]:
    with migrated(store) as settings, connect(settings) as client:
        yield client


def addresses(*texts: str) -> Array:
    packed = [ipaddress.ip_address(t if ":" in t else f"::ffff:{t}").packed for t in texts]
    return np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16)


def flow(
    received: float,
    start: float,
    end: float,
    size: int,
    packets: int,
    **columns: Array | DictColumn,
) -> FlowBatch:
    """One flow; times in seconds after HOUR."""
    times = {"time_received": received, "time_flow_start": start, "time_flow_end": end}
    held: dict[str, Array | DictColumn] = {
        name: np.array([int((HOUR + value) * 1000)], np.int64) for name, value in times.items()
    }
    held["bytes"] = np.array([size], np.uint64)
    held["packets"] = np.array([packets], np.uint64)
    return FlowBatch(1, held | columns)


def insert(client: Client, *batches: FlowBatch, token: str = "") -> None:
    names = ", ".join(column.name for column in present_columns(batches))
    statement = f"INSERT INTO flows ({names}) FORMAT Native\n".encode()
    settings = {"insert_deduplication_token": token} if token else {}
    client.raw_insert("", insert_block=statement + encode_native(batches), settings=settings)


def minutes(client: Client) -> list[tuple[int, int, int, int]]:
    """Minute after HOUR, bytes, packets, flows."""
    rows = client.query(
        "SELECT toInt64(toUnixTimestamp(time)), sum(bytes), sum(packets), sum(flows) "
        "FROM flows_1m GROUP BY time ORDER BY time"
    ).result_rows
    return [((time - HOUR) // 60, *measures) for time, *measures in rows]


def test_a_long_flow_is_divided_among_its_minutes(client: Client) -> None:
    insert(client, flow(200, start=30, end=150, size=1200, packets=12))
    assert minutes(client) == [(0, 300, 3, 0), (1, 600, 6, 0), (2, 300, 3, 1)]


def test_a_flow_that_ends_with_a_minute_leaves_nothing_in_the_next(client: Client) -> None:
    insert(client, flow(130, start=60, end=120, size=700, packets=7))
    assert minutes(client) == [(1, 700, 7, 1)]


def test_a_single_packet_counts_where_it_was(client: Client) -> None:
    insert(client, flow(61, start=59.999, end=59.999, size=40, packets=1))
    assert minutes(client) == [(0, 40, 1, 1)]


def test_a_wrong_clock_does_not_scatter_rows(client: Client) -> None:
    insert(client, flow(90, start=-9e8, end=-8e8, size=3_600, packets=3_600))
    insert(client, flow(90, start=9e8, end=9e8, size=1, packets=1))
    rows = minutes(client)
    assert rows[-1][0] == 1
    assert rows[0][0] >= 1 - 60
    assert [sum(column) for column in zip(*rows, strict=True)][1:] == [3601, 3601, 2]


def test_a_flood_of_long_flows_makes_few_rows(client: Client) -> None:
    one = flow(3600, 0, 3600, 600, 8)
    insert(client, one)
    assert len(minutes(client)) == 60
    client.command("TRUNCATE TABLE flows_1m")
    many = one.take(np.zeros(5000, np.int64))
    many.columns["in_if"] = np.arange(5000, dtype=np.uint32)
    insert(client, many)
    assert minutes(client) == [
        (minute, 750_000, 10_000, 5000 if minute == 59 else 0) for minute in (56, 57, 58, 59)
    ]


def test_sums_are_exact_in_every_rollup(client: Client) -> None:
    batches = [random_batch(5000, seed) for seed in range(3)]
    for batch in batches:
        random = np.random.default_rng(len(batch))
        batch.columns["time_flow_end"] = batch.array("time_received") - random.integers(
            0, 60_000, len(batch)
        )
        batch.columns["time_flow_start"] = batch.array("time_flow_end") - random.integers(
            0, 900_000, len(batch)
        )
        insert(client, batch)
    total = tuple(
        sum(int(batch.array(name).sum()) for batch in batches) for name in ("bytes", "packets")
    )
    expected = [(*total, 15_000)]
    for table in ("flows_1m", "flows_1h", "networks_1h"):
        sums = client.query(f"SELECT sum(bytes), sum(packets), sum(flows) FROM {table}")
        assert sums.result_rows == expected, table
    for side in ("sent", "received"):
        sums = client.query(
            f"SELECT sum(bytes_{side}), sum(packets_{side}), sum(flows_{side}) FROM hosts_1h"
        )
        assert sums.result_rows == expected, side


def test_the_largest_counters_do_not_overflow_their_share(client: Client) -> None:
    insert(client, flow(3600, start=1, end=3590, size=2**63 + 12345, packets=2**53 + 1))
    sums = client.query("SELECT sum(bytes), sum(packets) FROM flows_1m").result_rows
    assert sums == [(2**63 + 12345, 2**53 + 1)]


def test_an_insert_repeated_with_its_token_counts_once_everywhere(client: Client) -> None:
    batch = random_batch(1000)
    measured = (
        "SELECT 'flows', count() AS n, sum(bytes) AS b FROM flows "
        "UNION ALL SELECT '1m', sum(flows), sum(bytes) FROM flows_1m "
        "UNION ALL SELECT '1h', sum(flows), sum(bytes) FROM flows_1h "
        "UNION ALL SELECT 'sent', sum(flows_sent), sum(bytes_sent) FROM hosts_1h "
        "UNION ALL SELECT 'received', sum(flows_received), sum(bytes_received) FROM hosts_1h "
        "UNION ALL SELECT 'networks', sum(flows), sum(bytes) FROM networks_1h "
        "UNION ALL SELECT 'dns', count(), 0 FROM dns_queries"
    )
    insert(client, batch, token="t1")
    once = sorted(client.query(measured).result_rows)
    insert(client, batch, token="t1")
    assert sorted(client.query(measured).result_rows) == once
    insert(client, batch, token="t2")
    twice = sorted(client.query(measured).result_rows)
    assert twice == [(name, 2 * flows, 2 * size) for name, flows, size in once]


def test_unique_counts_are_merged_not_added(client: Client) -> None:
    for minute in (0, 1, 2):
        batch = flow(60 * minute + 30, 60 * minute, 60 * minute + 20, 1, 1)
        sources = addresses(*(f"198.51.100.{i}" for i in range(50)))
        many = batch.take(np.zeros(50, np.int64))
        many.columns["src_addr"] = sources
        many.columns["dst_addr"] = np.repeat(addresses("10.0.0.1"), 50, axis=0)
        insert(client, many)
    for table in ("flows_1m", "flows_1h"):
        merged = client.query(
            f"SELECT uniqCombinedMerge(12)(unique_src_addr), "
            f"uniqCombinedMerge(12)(unique_dst_addr) FROM {table}"
        ).result_rows
        assert merged == [(50, 1)], table
    to_host = client.query(
        "SELECT uniqCombinedMerge(12)(unique_src_addr), sum(flows_received) FROM hosts_1h "
        "WHERE addr = '10.0.0.1'"
    ).result_rows
    assert to_host == [(50, 150)]


def test_the_service_port_is_kept_and_found_by_name(client: Client) -> None:
    ports = {"src_port": np.array([51000], np.uint16), "dst_port": np.array([14999], np.uint16)}
    insert(client, flow(30, 0, 10, 100, 1, service=DictColumn.constant("aggregation", 1), **ports))
    back = {"src_port": np.array([14999], np.uint16), "dst_port": np.array([51000], np.uint16)}
    insert(client, flow(30, 0, 10, 50, 1, service=DictColumn.constant("aggregation", 1), **back))
    rows = client.query("SELECT port, service, sum(bytes) FROM flows_1h GROUP BY ALL").result_rows
    assert rows == [(14999, "aggregation", 150)]


def test_internal_hosts_are_remembered_by_what_they_sent(client: Client) -> None:
    inside, outside = addresses("10.1.2.3"), addresses("203.0.113.9")
    office, ours = DictColumn.constant("office", 1), np.array([1], np.uint8)
    other = addresses("10.9.9.9")
    insert(client, flow(10, 0, 5, 1, 1, src_addr=inside, dst_addr=other, src_internal=ours))
    insert(client, flow(500, 0, 5, 1, 1, src_addr=inside, dst_addr=outside, src_internal=ours))
    insert(client, flow(20, 0, 5, 1, 1, src_addr=outside, dst_addr=inside))
    named = {"src_addr": addresses("2001:db8::5"), "src_network": office, "src_internal": ours}
    insert(client, flow(30, 0, 5, 1, 1, **named))
    rows = client.query(
        "SELECT toString(addr), max(network), toUnixTimestamp(min(first_seen)), "
        "toUnixTimestamp(max(last_seen)) FROM hosts_seen GROUP BY addr ORDER BY addr"
    ).result_rows
    assert rows == [
        ("::ffff:10.1.2.3", "", HOUR + 10, HOUR + 500),
        ("2001:db8::5", "office", HOUR + 30, HOUR + 30),
    ]


def test_names_in_flows_become_dns_queries(client: Client) -> None:
    asked = DictColumn.encode(["pool.example"])
    insert(client, flow(10, 0, 5, 1, 1, src_addr=addresses("10.1.2.3"), dns_name=asked))
    insert(client, flow(10, 0, 5, 1, 1, src_addr=addresses("10.1.2.4")))
    rows = client.query("SELECT toString(src_addr), dns_name, source FROM dns_queries")
    assert rows.result_rows == [("::ffff:10.1.2.3", "pool.example", "unknown")]


def test_answers_tell_which_addresses_a_name_had_in_an_hour(client: Client) -> None:
    for second, name, answers in (
        (300, "gcr.io", ["192.0.2.1", "192.0.2.2"]),
        (3000, "gcr.io", ["192.0.2.2"]),
        (3100, "other.io", ["192.0.2.9"]),
        (3600, "gcr.io", ["2001:db8::1"]),
        (3700, "gcr.io", []),
    ):
        client.command(
            "INSERT INTO dns_queries (time_received, dns_name, answers) "
            "SELECT toDateTime64({at:UInt32}, 3), {name:String}, {answers:Array(IPv6)}",
            {"at": HOUR + second, "name": name, "answers": answers},
        )
    asked = (
        "SELECT toString(addr), toInt64(toUnixTimestamp(min(first_seen))), "
        "toInt64(toUnixTimestamp(max(last_seen))), sum(answers) "
        "FROM names_seen WHERE dns_name = 'gcr.io' AND time = toDateTime({hour:UInt32}) "
        "GROUP BY addr ORDER BY addr"
    )
    assert client.query(asked, {"hour": HOUR}).result_rows == [
        ("::ffff:192.0.2.1", HOUR + 300, HOUR + 300, 1),
        ("::ffff:192.0.2.2", HOUR + 300, HOUR + 3000, 2),
    ]
    assert client.query(asked, {"hour": HOUR + 3600}).result_rows == [
        ("2001:db8::1", HOUR + 3600, HOUR + 3600, 1)
    ]


def test_devices_and_interfaces_are_listed(client: Client) -> None:
    device = {
        "device": DictColumn.constant("r1", 1),
        "device_addr": addresses("192.0.2.1"),
        "site": DictColumn.constant("fra1", 1),
        "in_if": np.array([3], np.uint32),
        "out_if": np.array([4], np.uint32),
        "in_if_name": DictColumn.constant("xe-0/0/3", 1),
    }
    insert(client, flow(30, 0, 10, 1, 1, **device))
    insert(client, flow(330, 300, 310, 1, 1, **device))
    devices = client.query(
        "SELECT device, toString(device_addr), site, toUnixTimestamp(first_seen), "
        "toUnixTimestamp(last_seen) FROM devices FINAL"
    ).result_rows
    assert devices == [("r1", "::ffff:192.0.2.1", "fra1", HOUR, HOUR + 300)]
    interfaces = client.query(
        "SELECT device, interface, name FROM interfaces FINAL ORDER BY interface"
    ).result_rows
    assert interfaces == [("r1", 3, "xe-0/0/3"), ("r1", 4, "")]


def test_the_last_state_of_an_alert_wins(client: Client) -> None:
    for state in ("('2026-01-01 00:00:05', 'firing', NULL)",
                  "('2026-01-01 00:09:00', 'resolved', '2026-01-01 00:08:00')",
                  "('2026-01-01 00:00:06', 'firing', NULL)"):  # fmt: skip
        client.command(
            "INSERT INTO alerts (updated_at, status, ends_at, fingerprint, starts_at) "
            f"SELECT *, 'f1', '2026-01-01 00:00:00' FROM VALUES('u String, s String, "
            f"e Nullable(String)', {state})"
        )
    rows = client.query("SELECT fingerprint, status FROM alerts FINAL").result_rows
    assert rows == [("f1", "resolved")]
