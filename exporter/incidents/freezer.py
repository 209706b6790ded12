"""Freezes the evidence of alerts while their flows are still there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.incidents import evidence
from exporter.incidents.evidence import Case
from exporter.incidents.history import FOLD
from exporter.incidents.worker import FIRST_PAUSE, LONGEST_PAUSE, Worker, first_line
from exporter.policies.model import Policy
from exporter.policies.query import Lists
from exporter.store.session import Client

log = logging.getLogger(__name__)

_MAX_QUEUED: Final = 1_000

# Another collector, or this one before a restart, may have taken it; starts differ by seconds.
_TAKEN: Final = """SELECT count()
FROM incident_evidence
WHERE fingerprint = {fingerprint:String}
  AND starts_at BETWEEN fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC')
                    AND fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC')"""


class EvidenceFreezer(Worker[Case]):
    """Takes the evidence of each alert that it is shown, once, in a thread of its own.

    ``find_policy`` gives the policy of a name, ``None`` where there is none (any more): of such
    alerts, and of those that are not about one key of a policy, no evidence is taken. Flows are
    looked at that were received ``delay_seconds`` ago, by when they are in the table. When more
    than a bounded number wait, further ones are counted and left. The thread rests as long as it
    worked, so that a storm of alerts leaves ClickHouse to those who look into it. What waits when
    it is stopped is taken after the next start.
    """

    def __init__(
        self,
        client_factory: Callable[[], Client],
        find_policy: Callable[[str], Policy | None],
        *,
        lists: Callable[[], Lists] = dict,
        delay_seconds: float = 0.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__("evidence", client_factory)
        self._find_policy = find_policy
        self._lists = lists
        self._delay = timedelta(seconds=delay_seconds)
        self._clock = clock
        self._taken = 0

    def show(self, case: Case) -> None:
        """Queue an alert that fires."""
        policy = self._find_policy(case.labels.get("policy", ""))
        if policy is None or not any(name in case.labels for name in policy.dimensions):
            return
        with self._condition:
            if len(self._queue) >= _MAX_QUEUED:
                self._dropped += 1
                return
            self._queue.append(case)
            self._condition.notify_all()

    def collect(self) -> Iterator[Metric]:
        """How freezing fares."""
        with self._condition:
            queued, taken = len(self._queue), self._taken
            failures, dropped = self._failures, self._dropped
        prefix = "flow_exporter_incident_evidence"
        yield GaugeMetricFamily(
            f"{prefix}_queue_alerts", "Alerts whose evidence is still to be taken.", queued
        )
        yield CounterMetricFamily(f"{prefix}_taken", "Alerts whose evidence was stored.", taken)
        yield CounterMetricFamily(
            f"{prefix}_failures", "Tries to take or store evidence that failed.", failures
        )
        yield CounterMetricFamily(
            f"{prefix}_dropped",
            "Alerts without evidence, because too many waited or ClickHouse refused the queries.",
            dropped,
        )

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while (case := self._next()) is not None:
            started = time.monotonic()
            try:
                self._freeze(case)
            except Exception as error:  # clients fail in many ways, and none may end the thread
                self._session.close()
                refused = getattr(error, "code", None) is not None
                if refused or pause == FIRST_PAUSE:
                    log.warning("evidence of an alert was not taken: %s", first_line(error))
                with self._condition:
                    self._failures += 1
                    if refused:
                        self._dropped += 1
                    else:
                        self._queue.appendleft(case)
                rest, pause = pause, min(2 * pause, LONGEST_PAUSE)
            else:
                rest, pause = time.monotonic() - started, FIRST_PAUSE
            with self._condition:
                self._condition.wait_for(lambda: self._stopping, rest)

    def _next(self) -> Case | None:
        """The alert that has waited longest, as soon as there is one; ``None`` at the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or bool(self._queue))
            return None if self._stopping else self._queue.popleft()

    def _freeze(self, case: Case) -> None:
        policy = self._find_policy(case.labels.get("policy", ""))
        if policy is None:
            return
        client = self._session.client
        parameters = {
            "fingerprint": case.fingerprint,
            "from_ms": int((case.starts_at - FOLD).timestamp() * 1000),
            "to_ms": int((case.starts_at + FOLD).timestamp() * 1000),
        }
        if client.query(_TAKEN, parameters=parameters).result_rows[0][0]:
            return
        rows = evidence.take(client, policy, case, self._clock(), self._lists(), delay=self._delay)
        if not rows:
            return
        # Of collectors that took it at the same time, the first to be done is believed.
        token = f"{case.fingerprint} {case.starts_at.timestamp():.3f}"
        client.insert(
            "incident_evidence",
            rows,
            column_names=evidence.COLUMNS,
            settings={"insert_deduplication_token": token},
        )
        with self._condition:
            self._taken += 1
