"""Turns of the evaluator that fail: counted by reason, told once, never made up for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.model import PolicySet
from tests.support.evaluated import NOW, Clock, Evaluated, policy


class Store:
    """Stands for ClickHouse: gives ``rows``, or fails with ``error``."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.rows: list[tuple[Any, ...]] = []
        #: Start and end of each window that was asked for, in seconds from NOW.
        self.windows: list[tuple[float, float]] = []
        self.opened = 0
        self.closed = 0

    def connect(self) -> Store:
        self.opened += 1
        return self

    def query(
        self,
        sql: str,
        parameters: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Any:
        if self.error is not None:
            raise self.error
        if "DISTINCT" in sql:  # which devices report
            return SimpleNamespace(result_rows=[])
        assert parameters is not None
        start, end = (parameters[name] / 1000 - NOW for name in ("start_ms", "end_ms"))
        self.windows.append((start, end))
        return SimpleNamespace(result_rows=self.rows)

    def close(self) -> None:
        self.closed += 1


def evaluated_by(store: Store, **changes: Any) -> Evaluated:
    return Evaluated(store, policy(**changes))  # type: ignore[arg-type]


def refused(code: int) -> DatabaseError:
    error = DatabaseError(f"Code: {code}. DB::Exception: no")
    error.code = code
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refused(159), "timeout"),
        (OperationalError("Read timed out. (read timeout=60)"), "timeout"),
        (refused(241), "refused"),
        (OperationalError("connection refused"), "unreachable"),
        (ConnectionResetError("gone"), "unreachable"),
        (ValueError("a fault of ours"), "other"),
    ],
)
def test_failures_are_counted_by_reason(error: Exception, reason: str) -> None:
    store = Store()
    evaluated = evaluated_by(store)
    for failed in (1.0, 2.0):
        store.error = error
        evaluated.evaluate(after=60)
        evaluated.evaluate(after=1)  # its turn is over
        assert evaluated.failures() == {(("policy", "p"), ("reason", reason)): failed}
        evaluated.clock.now -= 1
    assert store.opened == store.closed == 2
    store.error = None
    evaluated.evaluate(after=60)
    assert store.opened == 3
    assert evaluated.samples("flow_exporter_policy_evaluations_total") == {(("policy", "p"),): 1.0}


def test_turns_missed_while_evaluation_fails_are_counted_once() -> None:
    store = Store()
    evaluated = evaluated_by(store)
    evaluated.evaluate()
    store.error = OSError("away")
    evaluated.evaluate(after=180)
    store.error = None
    evaluated.evaluate(after=120)
    skipped = evaluated.samples("flow_exporter_policy_evaluation_skipped_total")
    assert skipped == {(("policy", "p"),): 3.0}
    assert store.windows == [(-60, 0), (240, 300)]


def test_what_fails_again_and_again_is_told_once_until_it_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    evaluated = evaluated_by(store)
    fault = "refused with url: http://ch:8123/?secret=1"
    for error in (fault, fault, "another", None, "another"):
        store.error = None if error is None else OSError(error)
        evaluated.evaluate(after=60)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "policy p cannot be evaluated: refused",
        "policy p cannot be evaluated: another",
        "policy p cannot be evaluated: another",
    ]


def test_what_was_there_before_a_start_is_asked_for_once_and_until_it_is_answered() -> None:
    store = Store()
    store.rows = [(1, "10.0.0.1", 75.0, [])]
    evaluated = evaluated_by(
        store, bounds={"below": {"baseline_ratio": 0.5}}, window="5m", expiry="30m"
    )
    store.error = OSError("away")
    evaluated.evaluate()
    assert store.windows == []
    store.error = None
    evaluated.evaluate(after=60)
    assert store.windows == [(60 - 1800, 60), (-240, 60)]
    evaluated.evaluate(after=60)
    assert store.windows[2:] == [(-180, 120)]


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"bounds": {"below": {"static": 5}}, "expiry": "1d"}, -3600),
        ({"pin": [{"dst_addr": "10.0.0.1"}], "expiry": "1d"}, -3600),
        ({"expiry": "1d"}, -60),  # nobody misses what stopped
    ],
)
def test_so_far_back_a_start_looks(changes: dict[str, Any], first: float) -> None:
    store = Store()
    evaluated_by(store, **changes).evaluate()
    assert store.windows[0] == (first, 0)


def test_a_key_that_falls_below_the_minimum_is_followed_until_it_expires() -> None:
    store = Store()
    evaluated = evaluated_by(store, minimum=50, expiry="3m")
    store.rows = [(1, "10.0.0.1", 75.0, [])]
    evaluated.evaluate()
    store.rows = [(1, "10.0.0.1", 5.0, [])]
    told = []
    for _ in range(3):
        evaluated.evaluate(after=60)
        told.append(evaluated.values("dst_addr"))
    assert told == [{("10.0.0.1",): 5.0}, {("10.0.0.1",): 5.0}, {}]


def test_a_key_of_a_clock_that_was_ahead_expires_like_others() -> None:
    store = Store()
    evaluated = evaluated_by(store, expiry="3m")
    store.rows = [(1, "10.0.0.1", 75.0, [])]
    evaluated.evaluate(after=7200)
    store.rows = []
    told = []
    for after in (-7200, 60, 60, 60):
        evaluated.evaluate(after=after)
        told.append(evaluated.values("dst_addr"))
    assert told == [{("10.0.0.1",): 0.0}] * 3 + [{}]


def test_a_window_is_read_once_its_flows_are_in_the_table() -> None:
    store = Store()
    clock = Clock()
    evaluator = PolicyEvaluator(
        store.connect,
        PolicySet(policies=[policy()]),
        delay_seconds=20,
        query_timeout_seconds=60,
        clock=clock,
    )
    clock.now = NOW + 19.0
    assert evaluator.evaluate_due() == 1
    clock.now = NOW + 20.0
    assert evaluator.evaluate_due() == 60
    clock.now = NOW + 79.0
    assert evaluator.evaluate_due() == 1
    assert store.windows == [(-120, -60), (-60, 0)]
