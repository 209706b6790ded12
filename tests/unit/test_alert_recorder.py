"""What the recorder counts, shows on and brings to the table, with a store that comes and goes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from exporter.incidents import recorder as module
from exporter.incidents.alert import Observation
from exporter.incidents.evidence import Case
from exporter.incidents.recorder import COLUMNS, AlertRecorder
from tests.support.stack import until

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Table:
    """Stands for ClickHouse's table ``alerts``; away while ``away`` is set."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, datetime], dict[str, Any]] = {}
        self.inserts = 0
        self.away = threading.Event()

    def query(self, *_: object, **__: object) -> Any:
        self._reach()
        rows = [
            (
                row["fingerprint"], _ms(row["starts_at"]),
                _ms(row["ends_at"]) if row["ends_at"] else None, _ms(row["updated_at"]),
                row["status"] == "resolved", row["labels"], row["annotations"],
                row["generator_url"], row["source"],
            )
            for row in self.rows.values()
        ]  # fmt: skip
        return SimpleNamespace(result_rows=rows)

    def insert(
        self, table: str, data: Sequence[Sequence[Any]], column_names: Sequence[str], **_: object
    ) -> None:
        self._reach()
        assert table == "alerts"
        assert tuple(column_names) == COLUMNS
        self.inserts += 1
        for values in data:
            row = dict(zip(COLUMNS, values, strict=True))
            self.rows[row["fingerprint"], row["starts_at"]] = row

    def close(self) -> None:
        pass

    def _reach(self) -> None:
        if self.away.is_set():
            raise OSError("nobody is there")


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


class Recorded:
    """A recorder of ``table``, with what it told and counts."""

    def __init__(self, table: Table) -> None:
        self.told: list[Case] = []
        self.now = T0
        self.recorder = AlertRecorder(
            lambda: table, on_firing=self.told.append, clock=lambda: self.now
        )
        self._registry = CollectorRegistry()
        self._registry.register(self.recorder)

    def __enter__(self) -> Recorded:
        self.recorder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.recorder.stop()

    def count(self, name: str) -> float | None:
        return self._registry.get_sample_value(f"flow_exporter_alert_history_{name}")


def firing(name: str, now: datetime = T0, **labels: str) -> Observation:
    return Observation(
        name, {"alertname": name} | labels, {}, T0, now + timedelta(minutes=4), False, "",
        "prometheus", now,
    )  # fmt: skip


def test_every_alert_is_counted_once_and_none_as_dropped() -> None:
    table = Table()
    with Recorded(table) as recorded:
        for _ in range(3):
            assert recorded.recorder.offer([firing("a"), firing("b")])
        until("both", 30, lambda: recorded.count("rows_written_total") == 2)
        assert recorded.count("queue_alerts") == 0
        # What is written is not written again with the next.
        later = T0 + timedelta(minutes=1)
        assert recorded.recorder.offer([firing("a", later), firing("c", later)])
        until("the third", 30, lambda: len(table.rows) == 3)
    assert [row["alertname"] for row in table.rows.values()] == ["a", "b", "c"]
    assert recorded.count("rows_written_total") == 3
    assert recorded.count("dropped_total") == 0
    assert recorded.count("failures_total") == 0


def test_failures_are_counted_and_nothing_is_lost_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    table = Table()
    table.away.set()
    with Recorded(table) as recorded:
        assert recorded.recorder.offer([firing("a")])
        until("tries", 30, lambda: (recorded.count("failures_total") or 0) >= 3)
        assert recorded.count("rows_written_total") == 0
        table.away.clear()
        until("the row", 30, lambda: recorded.count("rows_written_total") == 1)
    assert recorded.count("dropped_total") == 0
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "alert history cannot be written: nobody is there"
    ]


def test_what_is_queued_at_the_end_is_written() -> None:
    table = Table()
    recorded = Recorded(table)
    with recorded:
        recorded.recorder.offer([firing(str(number)) for number in range(100)])
    assert len(table.rows) == 100
    assert recorded.count("rows_written_total") == 100


def test_alerts_beyond_the_bound_are_counted_and_the_others_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.incidents.history._MAX_ROWS", 5)
    table = Table()
    with Recorded(table) as recorded:
        recorded.recorder.offer([firing(str(number)) for number in range(8)])
        until("the rows", 30, lambda: recorded.count("rows_written_total") == 5)
    assert recorded.count("dropped_total") == 3
    assert len(table.rows) == 5


def test_a_post_is_taken_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_QUEUED", 5)
    table = Table()
    recorded = Recorded(table)  # not started: nobody takes in what is queued
    assert recorded.recorder.offer([firing(name) for name in "abc"])
    assert not recorded.recorder.offer([firing(name) for name in "def"])
    assert recorded.count("queue_alerts") == 3
    assert recorded.recorder.offer([firing(name) for name in "gh"])
    assert recorded.count("queue_alerts") == 5


def test_others_are_told_of_a_firing_alert_of_a_policy_once_in_each_run() -> None:
    table = Table()
    for run in range(2):
        with Recorded(table) as recorded:
            recorded.now = T0 + timedelta(minutes=10 * run)
            for minute in range(0, 8, 2):
                now = recorded.now + timedelta(minutes=minute)
                recorded.recorder.offer([firing("of", now, policy="p"), firing("none", now)])
                until("taken in", 30, lambda: recorded.count("queue_alerts") == 0)
        assert [(case.fingerprint, case.starts_at) for case in recorded.told] == [("of", T0)]
        assert recorded.told[0].labels["policy"] == "p"
    assert len(table.rows) == 2


def test_an_alert_that_ended_before_it_was_written_is_shown_to_nobody() -> None:
    table = Table()
    recorded = Recorded(table)
    ended = Observation(
        "a", {"policy": "p"}, {}, T0, T0 + timedelta(minutes=1), True, "", "prometheus", T0
    )
    recorded.recorder.offer([ended])
    with recorded:
        until("the row", 30, lambda: recorded.count("rows_written_total") == 1)
    assert recorded.told == []
    (row,) = table.rows.values()
    assert (row["status"], row["ends_at"]) == ("resolved", T0 + timedelta(minutes=1))


def test_an_alert_that_fired_before_a_restart_ends_when_nobody_tells_it_again() -> None:
    table = Table()
    with Recorded(table) as recorded:
        recorded.recorder.offer([firing("a", policy="p")])
        until("the row", 30, lambda: recorded.count("rows_written_total") == 1)
    with Recorded(table) as again:
        again.now = T0 + timedelta(minutes=5)
        again.recorder.offer([firing("b", again.now)])
        until("the other", 30, lambda: again.count("rows_written_total") == 1)
        again.now = T0 + timedelta(minutes=21)  # a quarter of an hour after it was read
        again.recorder.offer([firing("b", again.now)])
        until("the end", 30, lambda: again.count("rows_written_total") == 3)
    statuses = {row["alertname"]: row["status"] for row in table.rows.values()}
    assert statuses == {"a": "resolved", "b": "firing"}
