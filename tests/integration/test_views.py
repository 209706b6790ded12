"""The views for common questions, on flows that are known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.store.client import connect
from tests.support.store import RunningStore
from tests.support.writing import migrated

A, B, C = "10.0.0.1", "10.0.0.2", "192.0.2.9"


@pytest.fixture(scope="module")
def database(store: RunningStore) -> Iterator[Client]:
    """Connected to a migrated database."""
    with migrated(store) as settings, connect(settings) as client:
        yield client


@pytest.fixture
def client(database: Client) -> Client:
    """The same without flows."""
    for table in ("flows", "flows_1m", "hosts_1h", "devices", "as_names"):
        database.command(f"TRUNCATE TABLE {table}")
    return database


def add(client: Client, **values: Any) -> None:
    """One flow, of now and of TCP from A to B where not told otherwise."""
    flow = {
        "time_received": "now64(3)", "src_addr": A, "dst_addr": B, "proto": 6,
        "src_port": 50000, "dst_port": 443, "device": "r1", "device_addr": "10.9.9.9",
        "bytes": 100, "packets": 1, "sampling_rate": 1,
    } | values  # fmt: skip
    texts = [value if name == "time_received" else repr(value) for name, value in flow.items()]
    client.command(f"INSERT INTO flows ({', '.join(flow)}) SELECT {', '.join(texts)}")


def rows(client: Client, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(query).result_rows]


def test_traffic_has_names(client: Client) -> None:
    client.command("INSERT INTO as_names VALUES (64496, 'Example')")
    add(client, dst_as=64496)
    add(client, proto=17, src_port=53, dst_port=40000)
    assert rows(
        client,
        "SELECT proto_name, src_port_name, dst_port_name, dst_as_name, bytes FROM traffic "
        "ORDER BY proto",
    ) == [("TCP", "", "https", "Example", 100), ("UDP", "domain", "", "", 100)]
    assert rows(
        client, "SELECT proto_name, port_name, sum(bytes) FROM traffic_1m GROUP BY ALL ORDER BY 1"
    ) == [("TCP", "https", 100), ("UDP", "domain", 100)]


def test_names_are_found_from_any_database(client: Client) -> None:
    add(client)
    view = f"{client.database}.traffic"
    client.database = "default"
    assert rows(client, f"SELECT proto_name FROM {view}") == [("TCP",)]
    client.database = view.split(".")[0]


def test_an_address_is_seen_from_its_own_end(client: Client) -> None:
    add(client, bytes=10)
    add(client, bytes=30, src_addr=B, dst_addr=A, src_port=443, dst_port=50000)
    add(client, bytes=5, src_addr=B, dst_addr=C)
    assert rows(
        client,
        "SELECT way, IPv6NumToString(peer), port, peer_port, sum(bytes) FROM host_traffic "
        f"WHERE addr = '{A}' GROUP BY ALL ORDER BY way",
    ) == [
        ("received", f"::ffff:{B}", 50000, 443, 30),
        ("sent", f"::ffff:{B}", 50000, 443, 10),
    ]


def test_the_address_reaches_both_halves_before_rows_are_read(client: Client) -> None:
    add(client)
    plan = "\n".join(
        str(row[0])
        for row in client.query(
            f"EXPLAIN indexes = 1 SELECT sum(bytes) FROM host_traffic WHERE addr = '{C}'"
        ).result_rows
    )
    assert "Name: dst_addr" in plan  # the bloom filter of the destination
    assert "src_addr in" in plan or "(src_addr" in plan


def agents(client: Client, *addresses: str) -> None:
    """Makes agents known, as any flow of theirs does; these are not between A and B."""
    for address in addresses:
        add(client, device=f"agent {address}", device_addr=address, role="host",
            direction="egress", src_addr=address, dst_addr="198.51.100.1", bytes=0)  # fmt: skip


COUNTED = f"SELECT device, bytes FROM flows_once WHERE src_addr = '{A}' AND dst_addr = '{B}'"


def test_of_two_agents_the_receiving_one_counts(client: Client) -> None:
    agents(client, A, B)
    add(client, device="at A", device_addr=A, role="host", direction="egress", bytes=100)
    add(client, device="at B", device_addr=B, role="host", direction="ingress", bytes=98)
    add(client, device="router", role="router", bytes=90)
    assert rows(client, COUNTED) == [("at B", 98)]


def test_an_agent_alone_counts_at_either_end(client: Client) -> None:
    agents(client, A)
    add(client, device="at A", device_addr=A, role="host", direction="egress", bytes=100)
    add(client, device="router", role="router", bytes=90)
    assert rows(client, COUNTED) == [("at A", 100)]


def test_agents_that_tell_no_direction_are_told_apart_by_address(client: Client) -> None:
    agents(client, A, B)
    add(client, device="at A", device_addr=A, role="host", bytes=100)
    add(client, device="at B", device_addr=B, role="host", bytes=98)
    assert rows(client, COUNTED) == [("at B", 98)]


def test_without_agents_everything_counts(client: Client) -> None:
    add(client, device="r1", role="router", direction="ingress")
    add(client, device="r2", role="router", direction="ingress")
    assert rows(client, f"{COUNTED} ORDER BY device") == [("r1", 100), ("r2", 100)]


CONVERSATIONS = (
    "SELECT device, bytes, packets, flows, observers FROM conversations("
    "since = '2000-01-01 00:00:00', until = '2100-01-01 00:00:00') ORDER BY bytes"
)


def test_a_conversation_is_counted_by_one_of_its_observers(client: Client) -> None:
    for _ in range(2):
        add(client, device="r1", device_addr="10.9.9.1", direction="ingress")
        add(client, device="r1", device_addr="10.9.9.1", direction="egress")
        add(client, device="r2", device_addr="10.9.9.2", direction="egress", packets=50)
    add(client, src_port=50001, device="r2", device_addr="10.9.9.2", bytes=7)
    assert rows(client, CONVERSATIONS) == [("r2", 7, 1, 1, 1), ("r1", 200, 2, 2, 3)]


def test_an_unsampled_observer_is_believed_first(client: Client) -> None:
    add(client, device="sampled", device_addr="10.9.9.1", direction="ingress",
        sampling_rate=1000, bytes=5000)  # fmt: skip
    add(client, device="exact", device_addr="10.9.9.2", direction="egress", bytes=4321)
    assert rows(client, CONVERSATIONS) == [("exact", 4321, 1, 1, 2)]


def test_of_equal_observers_the_one_that_saw_most_counts(client: Client) -> None:
    add(client, device="r1", device_addr="10.9.9.1", packets=9, bytes=900)
    add(client, device="r2", device_addr="10.9.9.2", packets=10, bytes=1000)
    assert rows(client, CONVERSATIONS) == [("r2", 1000, 10, 1, 2)]


def test_conversations_keep_to_their_time(client: Client) -> None:
    add(client, time_received="now64(3) - 7200")
    assert rows(client, CONVERSATIONS) == [("r1", 100, 1, 1, 1)]
    since = "formatDateTime(now64(3) - 3600, '%F %T')"
    start = rows(client, f"SELECT {since}")[0][0]
    assert rows(client, CONVERSATIONS.replace("2000-01-01 00:00:00", start)) == []


def test_fan_in_counts_sources_once_over_hours(client: Client) -> None:
    hour = int(time.time()) // 3600 * 3600
    at = f"toDateTime({hour}, 'UTC') - INTERVAL {{}} MINUTE"
    for minutes in (10, 70, 130):
        add(client, time_received=at.format(minutes), src_addr=A, dst_addr=C)
    add(client, time_received=at.format(10), src_addr=B, dst_addr=C)
    add(client, time_received=at.format(190), src_addr="10.0.0.3", dst_addr=C)
    [(since, until)] = rows(
        client, f"SELECT toString(toDateTime({hour - 3 * 3600}, 'UTC')), "
        f"toString(toDateTime({hour}, 'UTC'))",
    )  # fmt: skip
    found = rows(
        client,
        "SELECT replaceOne(toString(addr), '::ffff:', ''), sources, flows, bytes "
        f"FROM fan_in(since = '{since}', until = '{until}')",
    )
    assert found == [(C, 2, 4, 400)], "who only sends has no sources, and the fourth hour is out"
