"""What one round of the shipped policies costs the store, at the end of a day of flows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.model import load_policies
from exporter.resources import resource
from exporter.store.client import connect
from tests.bench.day import Day
from tests.bench.processes import cpu_seconds

#: All policies of a minute, one after the other.
GOAL_SECONDS: Final = 10.0
_TIMEOUT_SECONDS: Final = 60.0
#: As the interfaces of :mod:`tests.bench.traffic` are named, each of 10 Gbit/s.
_SPEEDS: Final = {(f"edge{n:02d}", index): 10**10 for n in range(12) for index in range(16)}


@dataclass(frozen=True)
class Evaluation:
    """Seconds by policy, CPU seconds of the store's process in all, and by how many bytes its
    resident memory rose at most; ``keys`` are followed afterwards."""

    seconds: dict[str, float]
    cpu: float
    peak_bytes: int
    keys: int


def measure(day: Day) -> Evaluation:
    """The second round: the first one restores keys, once after a start."""
    now = float(day.end - 60)
    evaluator = PolicyEvaluator(
        lambda: connect(day.settings),
        load_policies(resource("alerting/policies.yaml")),
        delay_seconds=0,
        query_timeout_seconds=_TIMEOUT_SECONDS,
        speeds=lambda: _SPEEDS,
        clock=lambda: now,
    )
    try:
        evaluator.evaluate_due()
        now = float(day.end)
        pid = day.store.pid
        before, cpu = _reset_peak(pid), cpu_seconds(pid)
        evaluator.evaluate_due()
        used, peak = cpu_seconds(pid) - cpu, _memory(pid, "VmHWM") - before
    finally:
        evaluator.stop()
    states = evaluator.states()
    for state in states:
        if state.last_error or state.evaluations != 2:
            raise AssertionError(f"{state.policy.name}: {state.last_error or 'was not evaluated'}")
    return Evaluation(
        {state.policy.name: state.duration_seconds for state in states},
        used,
        peak,
        sum(len(state.keys) for state in states),
    )


def _reset_peak(pid: int) -> int:
    """Let the peak of the resident memory begin anew; its bytes now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    time.sleep(0.1)
    return _memory(pid, "VmRSS")


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"{pid} tells no {name}")
