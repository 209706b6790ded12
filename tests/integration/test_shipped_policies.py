"""Every shipped policy sees what it is for, in the real store, and nothing of what is usual."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.policies.list_store import store_lists
from exporter.policies.model import Policy, load_policies
from exporter.policies.query import policy_query
from exporter.resources import resource
from tests.support.database import Database

NOW = int(time.time()) // 60 * 60
SHIPPED = load_policies(resource("alerting/policies.yaml"))
POLICIES = {p.name: p for p in SHIPPED.policies}
USUAL = {
    "ago": 10, "device_addr": "::", "device": "", "role": "", "direction": "unknown",
    "src_addr": "10.9.9.9", "src_network": "", "src_internal": 1, "src_as": 0, "src_port": 40000,
    "dst_addr": "10.0.0.1", "dst_network": "", "dst_service": "", "dst_port": 443,
    "in_if": 0, "out_if": 0, "in_if_name": "", "proto": 17, "tcp_flags": 0,
    "bytes": 0, "packets": 1,
}  # fmt: skip

Flows = list[dict[str, Any]]

#: What is to be seen: flows just now, the key, and its value.
SEEN: dict[str, tuple[Flows, tuple[str, ...], float]] = {
    "host_bits": ([{"bytes": 450_000_000}], ("10.0.0.1", ""), 60e6),
    "host_packets": ([{"packets": 720_000}], ("10.0.0.1", ""), 12_000),
    "service_sources": (
        [{"src_addr": f"10.1.0.{n}", "dst_service": "aggregation"} for n in range(60)],
        ("10.0.0.1", "", "aggregation"),
        60,
    ),
    "port_scan": (
        [{"dst_port": n, "proto": 6, "tcp_flags": 2} for n in range(1, 301)],
        ("10.9.9.9", "10.0.0.1"),
        300,
    ),
    "address_sweep": (
        [
            {"dst_addr": f"10.1.{n // 250}.{n % 250}", "proto": 6, "tcp_flags": 2}
            for n in range(300)
        ],
        ("10.9.9.9", ""),
        300,
    ),
    "syn_flood": (
        [{"src_port": n, "proto": 6, "tcp_flags": 2} for n in range(36_000)],
        ("10.0.0.1", ""),
        600,
    ),
    "amplification": (
        [
            {"src_addr": f"198.51.100.{n}", "src_port": 53 if n % 2 else 123, "bytes": 7_500_000}
            for n in range(100)
        ],
        ("10.0.0.1", ""),
        100e6,
    ),
    "gateway_sources": (
        [{"src_addr": f"10.2.0.{n}", "dst_network": "nat"} for n in range(25)],
        ("10.0.0.1", "", "nat"),
        25,
    ),
    "internal_sources": (
        [{"src_addr": f"10.2.0.{n}", "dst_network": "vms"} for n in range(60)],
        ("10.0.0.1", "", "vms"),
        60,
    ),
    # Twenty nodes to one another, none of them much by itself.
    "network_internal_bits": (
        [
            {
                "src_addr": f"10.0.7.{a}",
                "dst_addr": f"10.0.7.{b}",
                "src_network": "workers",
                "dst_network": "workers",
                "bytes": 450_000_000,
            }
            for a in range(20)
            for b in range(20)
            if a != b
        ],
        ("workers",),
        380 * 60e6,
    ),
    "service_dip": (
        [{"dst_service": "ingest", "bytes": 15_000_000}],
        ("10.0.0.1", "", "ingest"),
        2e6,
    ),
    "service_bits": (
        [
            {"dst_service": "ingest", "dst_addr": f"10.0.1.{n}", "bytes": 375_000_000}
            for n in range(4)
        ],
        ("ingest",),
        40e6,
    ),
    "interface_in_bits": (
        [{"device": "edge1", "in_if": 1, "in_if_name": "transit", "bytes": 3_750_000_000}],
        ("edge1", "1", "transit"),
        100e6,
    ),
    "interface_out_bits": (
        [{"device": "edge1", "out_if": 2, "bytes": 3_750_000_000}],
        ("edge1", "2", ""),
        100e6,
    ),
    "source_as_bits": ([{"src_as": 123456, "bytes": 3_750_000_000}], ("123456",), 100e6),
    "network_pair_bits": (
        [{"src_network": "vms", "dst_network": "production", "bytes": 750_000_000}],
        ("vms", "production"),
        20e6,
    ),
    "new_address": ([{"src_network": "vms"}], ("10.9.9.9", "", "vms"), 1),
    "interface_in_share": (
        [{"device": "edge1", "in_if": 1, "bytes": 33_750_000_000}],
        ("edge1", "1", ""),
        90,
    ),
    "interface_out_share": (
        [{"device": "edge1", "out_if": 2, "bytes": 33_750_000_000}],
        ("edge1", "2", ""),
        90,
    ),
    "source_as_share": ([{"src_as": 123456, "bytes": 22_000_000}], ("123456",), 55),
    "listed_network": (
        [
            {"dst_addr": "203.0.113.200", "bytes": 30_000},
            {"dst_addr": "203.0.113.201", "bytes": 7_500},
        ],
        ("10.9.9.9", ""),
        1000,
    ),
    "listed_name": (
        [{"dns_name": "eu.pool.example"}, {"dns_name": "xmr.pool.example"}] * 2,
        ("10.9.9.9", ""),
        4,
    ),
    "client_names": (
        [{"dns_name": f"{n}.example.net"} for n in range(600)],
        ("10.9.9.9", ""),
        600,
    ),
}


@pytest.fixture
def flows(database: Database) -> Iterator[Client]:
    """An empty table but for what is usual: some clients of a service, connections answered."""
    client = database.connect()
    client.command("TRUNCATE TABLE flows")
    client.command("TRUNCATE TABLE hosts_seen")
    client.command("TRUNCATE TABLE dns_queries")
    # The second interface was slower once; nothing is known of the others.
    client.command(
        "INSERT INTO interface_speeds VALUES ('edge1', 1, 1000000000, 10), "
        "('edge1', 2, 1000000000, 20), ('edge1', 2, 100000000, 10), ('core', 1, 1000000000, 10)"
    )
    usual: Flows = [
        {
            "dst_addr": f"10.5.0.{n}", "src_addr": f"10.6.0.{n}", "dst_service": "https",
            "src_network": "office", "dst_network": "production" if n % 2 else "office",
            "bytes": 1_000_000, "packets": 1_000, "proto": 6, "tcp_flags": 0x1B,
            "src_as": 64500 + n, "device": "core", "in_if": 1 + n, "out_if": 1,
        }
        for n in range(18)
    ]  # fmt: skip
    insert(client, *usual)
    insert(client, *({**row, "ago": 3 * 86400} for row in usual))
    yield client
    client.close()


def insert(client: Client, *rows: dict[str, Any]) -> None:
    """Flows received ``ago`` seconds before NOW, or, with a ``dns_name``, DNS queries."""
    queries = [row for row in rows if "dns_name" in row]
    if queries:
        received = f"fromUnixTimestamp64Milli({(NOW - 10) * 1000})"
        values = ", ".join(
            f"({received}, toIPv6('10.9.9.9'), '{query['dns_name']}')" for query in queries
        )
        client.command(
            f"INSERT INTO dns_queries (time_received, src_addr, dns_name) VALUES {values}"
        )
        return
    table = []
    for row in rows:
        full = USUAL | row
        texts = [f"fromUnixTimestamp64Milli({(NOW - full.pop('ago')) * 1000})"]
        for name, value in full.items():
            quoted = f"'{value}'" if isinstance(value, str) else str(value)
            texts.append(f"toIPv6({quoted})" if name.endswith("_addr") else quoted)
        table.append(f"({', '.join(texts)})")
    names = ", ".join(["time_received", *list(USUAL)[1:]])
    client.command(f"INSERT INTO flows ({names}) VALUES {', '.join(table)}")


def values(client: Client, policy: Policy, ago: int = 0) -> dict[tuple[str, ...], float]:
    """Keys that the policy picks up, with their values."""
    store_lists(client, policy, SHIPPED.loaded_lists)
    query = policy_query(policy, (NOW - ago) * 1000, lists=SHIPPED.loaded_lists)
    rows = client.query(query.sql, parameters=query.parameters).result_rows
    return {tuple(row[1:-2]): row[-2] for row in rows}


def test_what_every_policy_is_for_is_tested_and_told() -> None:
    assert set(SEEN) == set(POLICIES)
    page = Path(__file__).parents[2] / "docs" / "reference" / "policies.md"
    shipped = page.read_text().partition("## Policies that are shipped")[2].partition("\n## ")[0]
    for policy in POLICIES.values():
        assert f"| `{policy.name}` | {policy.description} |" in shipped


@pytest.mark.parametrize("name", POLICIES)
def test_a_shipped_policy_sees_what_it_is_for_and_nothing_else(flows: Client, name: str) -> None:
    policy = POLICIES[name]
    assert values(flows, policy) == {}
    rows, key, value = SEEN[name]
    insert(flows, *rows)
    found = values(flows, policy)
    assert found == {key: pytest.approx(value, rel=0.02)}
    above = policy.bounds.above
    assert above is None or above.static is None or value >= above.static


@pytest.mark.parametrize("name", ["host_bits", "network_internal_bits", "service_bits"])
def test_what_the_agents_of_both_ends_report_counts_once(flows: Client, name: str) -> None:
    agents = {"10.0.7.1": "agent-a", "10.0.7.2": "agent-b"}
    flow = {
        "src_addr": "10.0.7.1", "dst_addr": "10.0.7.2", "src_network": "workers", "role": "host",
        "dst_network": "workers", "dst_service": "x", "bytes": 3_750_000_000,
    }  # fmt: skip
    for (addr, device), direction in zip(agents.items(), ("egress", "ingress"), strict=True):
        told = {"device": device, "device_addr": addr, "direction": direction}
        insert(flows, {**flow, **told})
    (value,) = values(flows, POLICIES[name]).values()
    seconds = POLICIES[name].window
    assert value == pytest.approx(3_750_000_000 * 8 / seconds)


def test_an_interface_counts_what_each_device_reports(flows: Client) -> None:
    flow = {"in_if": 1, "role": "host", "bytes": 3_750_000_000, "src_addr": "10.0.7.1"}
    for device, direction in (("a", "egress"), ("b", "ingress")):
        insert(flows, {**flow, "device": device, "direction": direction})
    assert len(values(flows, POLICIES["interface_in_bits"])) == 2


def test_an_address_is_new_for_an_hour(flows: Client) -> None:
    policy = POLICIES["new_address"]
    insert(flows, {"src_network": "vms"}, {"src_network": "vms", "ago": 3500})
    assert values(flows, policy) == {("10.9.9.9", "", "vms"): 1.0}
    insert(flows, {"src_network": "vms", "ago": 3700})
    assert values(flows, policy) == {}


def test_not_everybody_is_new_on_the_first_day_of_a_store(flows: Client) -> None:
    flows.command("TRUNCATE TABLE hosts_seen")
    insert(flows, {"src_network": "vms"}, {"src_network": "vms", "src_addr": "10.9.9.8"})
    assert values(flows, POLICIES["new_address"]) == {}
