"""``flow-exporter check`` on databases that somebody changed by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse, Retention
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from exporter.store.schema_check import schema_differences
from tests.support.store import RunningStore
from tests.support.writing import migrated

MIGRATIONS = resource("clickhouse/migrations")


@pytest.fixture(scope="module")
def settings(store: RunningStore) -> Iterator[ClickHouse]:
    """A migrated database, which each test leaves as it was."""
    with migrated(store) as settings:
        yield settings


@pytest.fixture
def own(store: RunningStore) -> Iterator[ClickHouse]:
    """A migrated database of the test's own."""
    with migrated(store) as settings:
        yield settings


def differences(client: Client, settings: ClickHouse) -> list[str]:
    migrations = Migrator(settings, MIGRATIONS).migrations
    return [str(found) for found in schema_differences(client, settings, migrations)]


def test_a_fresh_database_is_as_it_should_be(settings: ClickHouse) -> None:
    with connect(settings) as client:
        client.command("CREATE TABLE somebody_elses (x Int8) ENGINE = Memory")
        assert differences(client, settings) == []


# What was done by hand, and what is said of it; "{}" is the database.
CHANGES = {
    "ALTER TABLE flows DROP COLUMN rtt":
        "flows.rtt: is missing: ALTER TABLE {}.flows ADD COLUMN `rtt` Float32 "
        "COMMENT 'TCP round-trip time.' CODEC(ZSTD(1)) AFTER dns_latency",
    "ALTER TABLE flows ADD COLUMN colour String":
        "flows.colour: is not known: ALTER TABLE {}.flows DROP COLUMN colour",
    "ALTER TABLE flows MODIFY COLUMN src_vlan UInt32":
        "flows.src_vlan: type is UInt32, should be UInt16: "
        "ALTER TABLE {}.flows MODIFY COLUMN `src_vlan` UInt16 "
        "COMMENT 'VLAN id on the input side.' CODEC(ZSTD(1))",
    "ALTER TABLE flows MODIFY COLUMN bytes CODEC(LZ4)":
        "flows.bytes: codec is LZ4, should be T64, ZSTD(1): ALTER TABLE {}.flows "
        "MODIFY COLUMN `bytes` UInt64 COMMENT 'Estimate: reported bytes times sampling rate.' "
        "CODEC(T64, ZSTD(1))",
    "ALTER TABLE flows COMMENT COLUMN tos 'it''s (odd), isn''t it'":
        "flows.tos: comment is 'it\\'s (odd), isn\\'t it', should be "
        "'IPv4 type of service or IPv6 traffic class.': ALTER TABLE {}.flows MODIFY COLUMN "
        "`tos` UInt8 COMMENT 'IPv4 type of service or IPv6 traffic class.' CODEC(ZSTD(1))",
    "ALTER TABLE flows MODIFY COLUMN tos UInt8 AFTER ttl":
        "flows: column 20 is icmp_type, should be tos: ALTER TABLE {}.flows MODIFY COLUMN `tos` "
        "UInt8 COMMENT 'IPv4 type of service or IPv6 traffic class.' CODEC(ZSTD(1)) "
        "AFTER tcp_flags",
    "ALTER TABLE flows DROP INDEX tls_sni":
        "flows: index tls_sni is missing: ALTER TABLE {}.flows ADD INDEX tls_sni tls_sni "
        "TYPE bloom_filter(0.01) GRANULARITY 4",
    "ALTER TABLE flows_1m MODIFY TTL time + INTERVAL 3 DAY":
        "flows_1m: TTL is time + toIntervalDay(3), should be 90 days: run `flow-exporter migrate`",
    "ALTER TABLE flows_1m MODIFY TTL time + INTERVAL 3 HOUR":
        "flows_1m: TTL is time + toIntervalHour(3), should be 90 days: "
        "run `flow-exporter migrate`",
    "ALTER TABLE flows_1h REMOVE TTL":
        "flows_1h: TTL is none, should be 730 days: run `flow-exporter migrate`",
    "ALTER TABLE flows MODIFY SETTING non_replicated_deduplication_window = 5":
        "flows: setting non_replicated_deduplication_window is 5, should be 1000: "
        "ALTER TABLE {}.flows MODIFY SETTING non_replicated_deduplication_window = 1000",
    "ALTER TABLE alerts MODIFY COMMENT 'mine'":
        "alerts: comment is 'mine', should be 'One row per alert and start; read with FINAL.': "
        "ALTER TABLE {}.alerts MODIFY COMMENT 'One row per alert and start; read with FINAL.'",
    "DROP VIEW flows_1m_from_flows":
        "flows_1m_from_flows: the materialised view is missing: "
        "run `flow-exporter migrate --again`",
    "DROP TABLE port_names":
        "port_names: the table is missing: run `flow-exporter migrate --again`",
    "CREATE OR REPLACE VIEW traffic_1m AS SELECT 1 AS x FROM flows_1m COMMENT 'x'":
        "traffic_1m: the query has `SELECT 1 AS x FROM flows_1m`, should have "
    "`SELECT *, joinGet('protocol_names', 'name', proto) AS proto_`: "
    "DROP VIEW {}.traffic_1m, then run `flow-exporter migrate --again`",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_by_hand_is_told_with_a_remedy(settings: ClickHouse, change: str) -> None:
    with connect(settings) as client:
        client.command(change)
        found = differences(client, settings)
        assert found == [CHANGES[change].replace("{}", settings.database)]
        # The remedy helps.
        remedy = found[0].rpartition(": ")[2] if "run `" in found[0] else found[0]
        if "ALTER TABLE" in remedy:
            client.command(remedy[remedy.index("ALTER TABLE") :])
        elif "DROP VIEW" in remedy:
            client.command(remedy.split(",")[0])
        migrator = Migrator(settings, MIGRATIONS)
        if "migrate" in remedy:
            migrator.apply(again="--again" in remedy)
            migrator.set_retention()
        assert differences(client, settings) == []


def test_another_order_of_rows_needs_another_table(own: ClickHouse) -> None:
    with connect(own) as client:
        client.command("DROP TABLE hosts_seen")
        client.command("CREATE TABLE hosts_seen (addr IPv6) ENGINE = MergeTree ORDER BY tuple()")
        told = "\n".join(differences(client, own))
    assert "hosts_seen: ENGINE is MergeTree, should be AggregatingMergeTree: which no ALTER" in told
    assert "hosts_seen: ORDER BY is tuple(), should be addr" in told
    assert "hosts_seen.last_seen: is missing: ALTER TABLE" in told


def test_configured_times_are_what_should_be(settings: ClickHouse) -> None:
    kept = settings.model_copy(update={"retention": {"flows": Retention(days=7)}})
    with connect(settings) as client:
        assert differences(client, kept) == [
            "flows: TTL is toDateTime(time_received) + toIntervalDay(30), should be 7 days: "
            "run `flow-exporter migrate`"
        ]


def test_the_command_tells_and_fails(store: RunningStore, own: ClickHouse, tmp_path: Path) -> None:
    file = tmp_path / "flow-exporter.yaml"
    file.write_text(f"clickhouse: {{url: '{own.url}', database: {own.database}}}\n")

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "exporter", "check", "-c", str(file)],
            capture_output=True, text=True, check=False,
            env=os.environ | {"FLOW_CLICKHOUSE_PASSWORD": store.password},
        )  # fmt: skip

    good = check()
    assert good.returncode == 0, good.stderr
    assert "ok: schema: " in good.stdout
    with connect(own) as client:
        client.command("ALTER TABLE flows DROP COLUMN rtt")
    bad = check()
    assert bad.returncode == 1
    assert bad.stderr.startswith(f"error: {own.database}.flows.rtt: is missing: ALTER TABLE")
