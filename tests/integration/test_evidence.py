"""The evidence of an alert is frozen once, when it fires, from the flows in the real store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from exporter.cli import app
from exporter.incidents import evidence
from exporter.incidents.alert import Observation
from exporter.incidents.evidence import Case
from exporter.incidents.freezer import EvidenceFreezer
from exporter.incidents.recorder import AlertRecorder
from exporter.policies.model import Policy
from exporter.policies.query import policy_query
from tests.support.database import Database
from tests.support.stack import until

NOW = datetime.now(UTC).replace(microsecond=0)
STARTED = NOW - timedelta(seconds=30)
LABELS = {
    "alertname": "FlowPolicyAbove",
    "policy": "hosts",
    "dst_addr": "10.0.1.13",
    "dst_host": "fl13",
    "severity": "warning",
}
HOSTS = Policy.model_validate(
    {
        "name": "hosts",
        "dimensions": ["dst_addr", "dst_host"],
        "filter": "proto = 6",
        "measure": "bits_per_second",
        "window": "1m",
        "bounds": {"above": {"static": 1000}},
        "breach": {"minutes": 2, "of": 5},
    }
)
FINGERPRINT = "00000000000000aa"


@pytest.fixture
def flows(database: Database) -> Iterator[Client]:
    """Fifteen quiet minutes; then AS 123456 sends much to fl13, for three minutes."""
    client = database.connect()
    for table in ("flows", "alerts", "incident_evidence"):
        client.command(f"TRUNCATE TABLE {table}")
    columns = "time_received, src_addr, src_as, dst_addr, dst_host, dst_port, proto, bytes, packets"
    for select in (
        # A flow every second of 20 hosts, 100 bytes each.
        "toIPv6(concat('10.0.2.', toString(number % 20))), 65001, toIPv6('10.0.1.13'), 'fl13', "
        "20012, 6, 100, 1 FROM numbers(900)",
        "toIPv6('203.0.113.7'), 123456, toIPv6('10.0.1.13'), 'fl13', 14999, 6, 5000, 9 "
        "FROM numbers(180)",
        # Neither another host, nor what the policy does not look at.
        "toIPv6('203.0.113.8'), 123456, toIPv6('10.0.1.14'), 'fl14', 1, 6, 99999, 9 "
        "FROM numbers(180)",
        "toIPv6('203.0.113.9'), 123456, toIPv6('10.0.1.13'), 'fl13', 1, 17, 99999, 9 "
        "FROM numbers(180)",
    ):
        client.command(
            f"INSERT INTO flows ({columns}) SELECT "
            f"fromUnixTimestamp64Milli({int(NOW.timestamp() * 1000)} - 1 - number * 1000), {select}"
        )
    yield client
    client.close()


def case(**changes: Any) -> Case:
    return Case(FINGERPRINT, changes.pop("starts_at", STARTED), LABELS | changes)


def found(client: Client, dimension: str) -> list[tuple[Any, ...]]:
    """Window, rank, value and bytes."""
    return list(
        client.query(
            "SELECT toString(window), rank, value, bytes FROM incident_evidence FINAL "
            "WHERE dimension = {dimension:String} ORDER BY window DESC, rank",
            parameters={"dimension": dimension},
        ).result_rows
    )


class Freezer:
    """A freezer that knows one policy, with its counts."""

    def __init__(self, database: Database, now: datetime = NOW, delay: float = 0) -> None:
        self.freezer = EvidenceFreezer(
            database.connect, {"hosts": HOSTS}.get, clock=lambda: now, delay_seconds=delay
        )
        self._registry = CollectorRegistry()
        self._registry.register(self.freezer)

    def __enter__(self) -> Freezer:
        self.freezer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.freezer.stop()

    def count(self, name: str) -> float | None:
        return self._registry.get_sample_value(f"flow_exporter_incident_evidence_{name}")

    def idle(self) -> bool:
        return self.count("queue_alerts") == 0


def test_the_windows_have_one_length_and_keep_away_from_the_start() -> None:
    times = evidence.windows(HOSTS, case(), NOW)
    assert times.during == STARTED - timedelta(minutes=3)
    assert times.end == NOW
    assert times.before + times.length == STARTED - timedelta(minutes=6)
    late = evidence.windows(HOSTS, case(), NOW + timedelta(hours=5))
    assert late.end == STARTED + timedelta(minutes=1)


def test_contributors_are_ranked_by_what_the_policy_measures(
    database: Database, flows: Client
) -> None:
    with Freezer(database) as freezer:
        freezer.freezer.show(case())
        until("the evidence", 120, lambda: freezer.count("taken_total"))
    # 180 s at 5,000 bytes; 210 s, each second of which has one flow of 100 bytes.
    assert found(flows, "src_as") == [
        ("during", 1, "123456", 900_000),
        ("during", 2, "65001", 21_000),
        ("before", 1, "65001", 21_000),
    ]
    assert found(flows, "dst_port")[0] == ("during", 1, "14999", 900_000)
    assert found(flows, "total") == [("during", 1, "", 921_000), ("before", 1, "", 21_000)]
    sources = found(flows, "src_addr")
    assert sources[0] == ("during", 1, "203.0.113.7", 900_000)
    assert len([row for row in sources if row[0] == "before"]) >= evidence.TOP
    assert len(sources) <= 4 * evidence.TOP
    assert found(flows, "dst_addr") == []  # the key itself
    assert found(flows, "src_country") == []  # nothing known


def test_evidence_is_taken_once(database: Database, flows: Client) -> None:
    with Freezer(database) as freezer:
        freezer.freezer.show(case())
        until("the evidence", 120, lambda: freezer.count("taken_total"))
        # A replica saw it seconds later.
        freezer.freezer.show(case(starts_at=STARTED + timedelta(seconds=7)))
        until("the other looked at", 30, freezer.idle)
    with Freezer(database) as again:
        again.freezer.show(case())
        until("looked at", 30, again.idle)
    assert freezer.count("taken_total") == 1
    assert again.count("taken_total") == 0
    assert (
        len({row[0] for row in flows.query("SELECT starts_at FROM incident_evidence").result_rows})
        == 1
    )


def test_flows_that_may_not_be_in_the_table_yet_are_left_out(
    database: Database, flows: Client
) -> None:
    with Freezer(database, delay=7) as freezer:
        freezer.freezer.show(case())
        until("the evidence", 120, lambda: freezer.count("taken_total"))
    # 173 of the 180 s.
    assert found(flows, "src_as")[0] == ("during", 1, "123456", 865_000)


def test_of_two_collectors_at_the_same_time_one_is_believed(
    database: Database, flows: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, take = threading.Barrier(2, timeout=120), evidence.take

    def taken_by_both(*arguments: Any, **options: Any) -> list[tuple[Any, ...]]:
        rows = take(*arguments, **options)
        both.wait()
        return rows

    monkeypatch.setattr(evidence, "take", taken_by_both)
    late = NOW + timedelta(seconds=20)
    with Freezer(database) as one, Freezer(database, now=late) as other:
        for freezer in (one, other):
            freezer.freezer.show(case())
        for freezer in (one, other):
            until("the evidence", 120, lambda told=freezer: told.count("taken_total"))
    assert flows.query("SELECT uniqExact(captured_at) FROM incident_evidence").result_rows == [(1,)]


def test_labels_are_bound_and_what_clickhouse_refuses_is_counted(
    database: Database, flows: Client
) -> None:
    with Freezer(database) as freezer:
        freezer.freezer.show(case(dst_host="' OR 1 = 1 --"))
        freezer.freezer.show(case(dst_addr="no address"))
        until("one refused", 30, lambda: freezer.count("dropped_total"))
        freezer.freezer.show(case(policy="unknown"))
        freezer.freezer.show(Case(FINGERPRINT, STARTED, {"policy": "hosts"}))  # of no key
        freezer.freezer.show(case())
        until("the next", 30, lambda: freezer.count("taken_total"))
    assert freezer.count("taken_total") == 1
    assert freezer.count("dropped_total") == 1
    assert freezer.count("failures_total") == 1


def test_alerts_beyond_those_that_may_wait_are_counted_and_left(
    database: Database, flows: Client
) -> None:
    freezer = Freezer(database)
    for _ in range(1_002):
        freezer.freezer.show(case(dst_addr="10.0.1.13"))
    assert freezer.count("queue_alerts") == 1_000  # nobody takes them yet
    assert freezer.count("dropped_total") == 2
    with freezer:
        until("the first", 60, lambda: freezer.count("taken_total"))
    assert freezer.count("dropped_total") == 2


def test_evidence_waits_for_the_store(database: Database, flows: Client) -> None:
    with Freezer(database) as freezer:
        database.store.stop()
        try:
            freezer.freezer.show(case())
            until("a failure", 60, lambda: freezer.count("failures_total"))
        finally:
            database.store.start()
        until("the evidence", 60, lambda: freezer.count("taken_total"))
    assert freezer.count("dropped_total") == 0


def test_a_recorded_alert_is_shown_once_and_its_evidence_printed_when_its_flows_are_gone(
    database: Database, flows: Client, tmp_path: Path
) -> None:
    with Freezer(database) as freezer:
        recorder = AlertRecorder(database.connect, on_firing=freezer.freezer.show)
        recorder.start()
        try:
            for _ in range(2):
                recorder.offer([_observation()])
            until("the evidence", 120, lambda: freezer.count("taken_total"))
        finally:
            recorder.stop()
    config = tmp_path / "flow-exporter.yaml"
    clickhouse = {
        "url": database.settings.url,
        "user": database.settings.user,
        "password_file": database.settings.password_file,
    }
    config.write_text(yaml.safe_dump({"clickhouse": clickhouse}))
    days = flows.query(
        "SELECT DISTINCT partition_id FROM system.parts WHERE active AND table = 'flows'"
    )
    for (day,) in days.result_rows:  # as retention does
        flows.command(f"ALTER TABLE flows DROP PARTITION ID '{day}'")
    result = CliRunner().invoke(
        app, ["incidents", "show", FINGERPRINT, "--config", str(config)], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["src_as", "123456", "900,000", "0", "1,620", "0", "180", "0"] in lines
    assert ["total", "921,000", "21,000", "1,830", "210", "390", "210"] in lines


def _observation() -> Observation:
    return Observation(
        fingerprint=FINGERPRINT,
        labels=LABELS,
        annotations={"description": "more than usual"},
        starts_at=STARTED,
        # Of this moment: NOW is from when the tests were collected, minutes ago perhaps.
        ends_at=datetime.now(UTC) + timedelta(minutes=4),
        resolved=False,
        generator_url="",
        source="prometheus",
        seen_at=datetime.now(UTC),
    )


def test_keys_of_every_kind_are_found_again(flows: Client) -> None:
    policy = Policy.model_validate(
        {
            "name": "kinds",
            "dimensions": ["src_mac", "proto", "source", "device", "src_as"],
            "measure": "unique_dst_addr",
            "bounds": {"above": {"static": 1}},
        }
    )
    query = policy_query(policy, int(NOW.timestamp() * 1000))
    row = flows.query(query.sql, parameters=query.parameters).result_rows[0]
    labels = dict(zip(policy.dimensions, row[1:], strict=False)) | {"policy": "kinds"}
    rows = evidence.take(flows, policy, Case(FINGERPRINT, STARTED, labels), NOW)
    assert {"src_addr", "dst_addr", "dst_port", "total"} <= {row[5] for row in rows}
