"""Asks ClickHouse for every policy's values, on time, and keeps them for the metrics.

One thread evaluates one policy after the other. A policy whose turn comes while its predecessors
are slow is evaluated once, late; the turns it missed are counted, never made up for, so that
evaluation cannot pile up.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from exporter.policies.asking import Asker
from exporter.policies.gone import GoneNames, Names
from exporter.policies.keys import FollowedKeys, Key
from exporter.policies.list_store import ListKeeper, ListState
from exporter.policies.lists import LoadedList
from exporter.policies.model import Policy, PolicySet
from exporter.policies.speeds import SpeedKeeper, Speeds
from exporter.store.client import StoreError
from exporter.store.session import Client

log = logging.getLogger(__name__)

#: Turns without a good evaluation after which the last values are no longer told.
_STALE_TURNS: Final = 3

#: A query must come back with this much of the interval to spare, or it is reported as slow.
_SLOW_SHARE: Final = 0.5

#: Keys that had traffic in this time before a start are followed again from the start.
_RESTORED_SECONDS: Final = 3600

#: ClickHouse's code of a query that took longer than ``max_execution_time``.
_TIMEOUT_EXCEEDED: Final = 159

#: Why evaluations fail; each is told from the start, so that its first increase is seen.
REASONS: Final = ("timeout", "refused", "unreachable", "other")

#: The driver puts a query's whole URL into the errors of its connection.
_URL: Final = re.compile(r" with url: \S+")


@dataclass(slots=True)
class PolicyState:
    """A policy, the keys it follows and how its evaluation fares.

    ``window_end`` is the end of the last window that was tried, ``good_end`` of the last that was
    evaluated, ``evaluated_at`` when that was: all in seconds since the epoch. ``unobserved`` are
    keys about whose dip nothing can be said, because a device that reports them is silent.
    """

    policy: Policy
    keys: FollowedKeys
    window_end: float = 0.0
    good_end: float = 0.0
    evaluated_at: float = 0.0
    duration_seconds: float = 0.0
    evaluations: int = 0
    skipped: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    last_error: str = ""
    restored: bool = False
    unobserved: list[Key] = field(default_factory=list)

    @classmethod
    def of(cls, policy: Policy) -> PolicyState:
        """Before the first evaluation."""
        return cls(policy, FollowedKeys(policy))

    def is_current(self, now: float) -> bool:
        """Whether the values are recent enough to be told (``now``: seconds since the epoch)."""
        return self.evaluations > 0 and abs(now - self.evaluated_at) <= (
            _STALE_TURNS * self.policy.interval
        )


class PolicyEvaluator:
    """Evaluates policies in a thread of its own between :meth:`start` and :meth:`stop`.

    ``client_factory`` opens a clickhouse-connect client; a client that failed is closed and
    opened anew at the next evaluation. ``delay_seconds`` is how long flows take from their
    reception to the table: a window is read that long after its end. ``speeds`` tells what is
    known of interfaces.
    """

    def __init__(
        self,
        client_factory: Callable[[], Client],
        policies: PolicySet,
        *,
        delay_seconds: float,
        query_timeout_seconds: float,
        speeds: Callable[[], Speeds] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._delay = delay_seconds
        self._timeout = query_timeout_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._states = {p.name: PolicyState.of(p) for p in policies.policies}
        self._lists = ListKeeper(policies.lists, clock)
        self._gone = GoneNames()
        self._asker = Asker(
            client_factory, query_timeout_seconds, self._lists, SpeedKeeper(speeds, clock)
        )
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin with the window that ended last."""
        self._stopping = False
        self._wake.clear()
        self._thread = threading.Thread(target=self._run, name="policies", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the query that runs, if one does."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(self._timeout + 5.0)
            self._thread = None
        self._asker.disconnect()

    def reload(self, policies: PolicySet) -> None:
        """Take over ``policies``; what an unchanged query follows is kept."""
        with self._lock:
            states: dict[str, PolicyState] = {}
            for policy in policies.policies:
                state = self._states.get(policy.name)
                if state is None or _asks_otherwise(state.policy, policy):
                    state = PolicyState.of(policy)
                else:
                    state.policy = policy
                    state.keys.limit_to(policy)
                states[policy.name] = state
            self._states = states
            self._lists.replace(policies.lists)
        self._wake.set()

    def use_names(self, known: Names) -> None:
        """From now on flows get these names, by column: keys of others that they had until now are
        followed no longer, unless a policy pins them."""
        with self._lock:
            went = self._gone.replace(known, self._clock())
            for state in self._states.values():
                state.keys.forget(went)

    def list_states(self) -> dict[str, ListState]:
        """The lists by name; read them under :meth:`lock`."""
        return self._lists.states

    def states(self) -> list[PolicyState]:
        """All policies in the order of the file; read them under :meth:`lock`."""
        return list(self._states.values())

    def find_policy(self, name: str) -> Policy | None:
        """The policy of this name, if there is one."""
        state = self._states.get(name)
        return state.policy if state else None

    def lists(self) -> dict[str, LoadedList]:
        """The lists of the filters, by name, as they are now."""
        return self._lists.lists

    @property
    def lock(self) -> threading.Lock:
        """Held while states change."""
        return self._lock

    def now(self) -> float:
        """The evaluator's clock, seconds since the epoch."""
        return self._clock()

    def evaluate_due(self) -> float:
        """Evaluate every policy whose turn has come; the seconds until the next turn."""
        with self._lock:
            self._lists.refresh()
        for name in list(self._states):
            if self._stopping:
                break
            state = self._states.get(name)
            if state is not None:
                self._take_turn(state)
        now = self._clock()
        turns = [
            self._last_end(state.policy, now) + state.policy.interval + self._delay
            for state in self.states()
        ]
        return max(min(turns, default=now + 60.0) - now, 0.0)

    def _run(self) -> None:
        while not self._stopping:
            wait = self.evaluate_due()
            self._wake.wait(wait)
            self._wake.clear()

    def _last_end(self, policy: Policy, now: float) -> float:
        """The end of the latest window of ``policy`` whose flows are all in the table."""
        return (now - self._delay) // policy.interval * policy.interval

    def _take_turn(self, state: PolicyState) -> None:
        policy = state.policy
        end = self._last_end(policy, self._clock())
        # A clock that was set back by more than a turn is believed: it may be right only now.
        if 0 <= state.window_end - end <= policy.interval:
            return
        missed = int((end - state.window_end) // policy.interval) - 1 if state.window_end else 0
        missed = max(missed, 0)
        started = time.monotonic()
        try:
            if not state.restored:
                self._restore(state, end)
            rows = self._asker.values(policy, end, state.keys.hashes())
            fresh = self._asker.fresh_devices(policy, end) if policy.watches_dips else None
        except Exception as error:  # a client fails in many ways, and none may end the thread
            self._asker.disconnect()
            with self._lock:
                reason = _reason(error)
                state.failures[reason] = state.failures.get(reason, 0) + 1
                state.skipped += missed
                state.window_end = end
                state.duration_seconds = time.monotonic() - started
                self._log_failure(state, error)
            return
        with self._lock:
            state.keys.update(self._gone.left_out(rows, end - policy.window), end)
            state.unobserved = [] if fresh is None else state.keys.unobserved(fresh)
            state.skipped += missed
            state.window_end = state.good_end = end
            state.evaluated_at = self._clock()
            state.evaluations += 1
            state.duration_seconds = time.monotonic() - started
            state.last_error = ""
        if state.duration_seconds > _SLOW_SHARE * policy.interval:
            log.warning(
                "policy %s took %.1f s of its interval of %d s",
                policy.name, state.duration_seconds, policy.interval,
            )  # fmt: skip

    def _restore(self, state: PolicyState, end: float) -> None:
        """Follow again what was followed before a restart, or a stop would go unnoticed."""
        policy = state.policy
        span = min(policy.expiry, _RESTORED_SECONDS)
        if (
            span > policy.window
            and policy.measured.has_past
            and (policy.watches_dips or policy.pin)
        ):
            rows = self._asker.values(policy.model_copy(update={"window": span}), end, ())
            with self._lock:
                state.keys.update(self._gone.left_out(rows, end - span), end - policy.interval)
        state.restored = True

    @staticmethod
    def _log_failure(state: PolicyState, error: Exception) -> None:
        text = _URL.sub("", str(error)) or type(error).__name__
        message = " ".join(text.split())[:500]
        if message != state.last_error:
            log.warning("policy %s cannot be evaluated: %s", state.policy.name, message)
        state.last_error = message


def _asks_otherwise(old: Policy, new: Policy) -> bool:
    """Whether values of ``old`` mean something else than those of ``new``."""
    return any(
        getattr(old, name) != getattr(new, name)
        for name in ("counted", "dimensions", "filter", "measure", "window")
    )


def _reason(error: Exception) -> str:
    """A bounded word for the ways in which an evaluation fails."""
    code = getattr(error, "code", None)
    if code == _TIMEOUT_EXCEEDED or "timed out" in str(error):
        return "timeout"
    if code is not None:
        return "refused"
    known = isinstance(error, StoreError | ClickHouseError | OSError)
    return "unreachable" if known else "other"
