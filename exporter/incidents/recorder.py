"""Writes the alert history: table ``alerts``, one row per fingerprint and start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.incidents.alert import Observation
from exporter.incidents.evidence import Case
from exporter.incidents.history import AlertRow, History
from exporter.incidents.worker import FIRST_PAUSE, LONGEST_PAUSE, Worker, first_line
from exporter.store.session import Client

log = logging.getLogger(__name__)

#: Columns of table ``alerts`` in the order of :func:`_values`.
COLUMNS: Final = (
    "fingerprint", "starts_at", "ends_at", "updated_at", "status", "alertname", "severity",
    "policy", "team", "incident", "labels", "annotations", "generator_url", "value", "source",
)  # fmt: skip

_RESTORE: Final = """SELECT
    fingerprint, toUnixTimestamp64Milli(starts_at), toUnixTimestamp64Milli(ends_at),
    toUnixTimestamp64Milli(updated_at), status = 'resolved', labels, annotations, generator_url,
    toString(source)
FROM alerts FINAL
WHERE status = 'firing' OR updated_at > now64(3) - INTERVAL 2 HOUR
ORDER BY starts_at DESC
LIMIT 20000"""

ENDPOINTS: Final = ("webhook", "alerts")
OUTCOMES: Final = ("accepted", "malformed", "too_large", "unauthorized", "overloaded")

_MAX_QUEUED: Final = 10_000
_SWEEP_SECONDS: Final = 30.0


class AlertRecorder(Worker[Observation]):
    """Takes observations from the HTTP endpoints and writes what they change.

    A thread does all work with ClickHouse. While ClickHouse is away, what is to be written is
    kept, up to a bound, and tried again; when the queue is full, :meth:`offer` says so and the
    sender is asked to come back. ``on_firing`` is called once for each alert of a policy that
    fires, after it was written; after a restart once more for each that still does. When it is
    stopped, what is queued is written if ClickHouse answers.
    """

    def __init__(
        self,
        client_factory: Callable[[], Client],
        *,
        on_firing: Callable[[Case], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__("alert-history", client_factory)
        self._on_firing = on_firing
        self._clock = clock
        self._history = History()
        self._restored = False
        self._rows_written = 0
        # All of them from the start, so that Prometheus sees the first increase of each.
        self._deliveries = {(name, outcome): 0 for name in ENDPOINTS for outcome in OUTCOMES}

    def offer(self, observations: Sequence[Observation]) -> bool:
        """Queue what a post says; ``False``, and nothing is queued, if there is no room."""
        with self._condition:
            if len(self._queue) + len(observations) > _MAX_QUEUED:
                return False
            self._queue.extend(observations)
            self._condition.notify_all()
        return True

    def now(self) -> datetime:
        """The recorder's clock, UTC."""
        return self._clock()

    def count_delivery(self, endpoint: str, outcome: str) -> None:
        """Count a post to ``endpoint`` by what became of it."""
        with self._condition:
            self._deliveries[endpoint, outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """How recording fares."""
        deliveries = CounterMetricFamily(
            "flow_exporter_webhook_deliveries",
            "Posts of alerts by endpoint (webhook, alerts) and outcome (accepted, malformed, "
            "too_large, unauthorized, overloaded).",
            labels=["endpoint", "outcome"],
        )
        with self._condition:
            for labels, count in self._deliveries.items():
                deliveries.add_metric(list(labels), count)
            queued, written = len(self._queue), self._rows_written
            failures, dropped = self._failures, self._dropped
        yield deliveries
        yield GaugeMetricFamily(
            "flow_exporter_alert_history_queue_alerts",
            "Alerts received and not yet looked at.",
            queued,
        )
        yield CounterMetricFamily(
            "flow_exporter_alert_history_rows_written",
            "Rows written to table alerts; an alert is written again when it changes.",
            written,
        )
        yield CounterMetricFamily(
            "flow_exporter_alert_history_failures",
            "Tries to read or write table alerts that failed.",
            failures,
        )
        yield CounterMetricFamily(
            "flow_exporter_alert_history_dropped",
            "Alerts that are in no table because too many were open at once.",
            dropped,
        )

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                self._restore()
                self._take_in()
                self._write()
                failed, wait, pause = False, _SWEEP_SECONDS, FIRST_PAUSE
            except Exception as error:  # clients fail in many ways, and none may end the thread
                with self._condition:
                    self._failures += 1
                self._session.close()
                if pause == FIRST_PAUSE:
                    log.warning("alert history cannot be written: %s", first_line(error))
                failed, wait, pause = True, pause, min(2 * pause, LONGEST_PAUSE)
            if not self._wait(wait, failed=failed):
                return

    def _wait(self, seconds: float, *, failed: bool) -> bool:
        """Until there is something to do; ``False`` when it is to end."""
        deadline = time.monotonic() + seconds
        with self._condition:
            while not self._stopping:
                left = deadline - time.monotonic()
                if left <= 0 or (self._queue and not failed):
                    return True
                self._condition.wait(left)
            # Once more for what arrived since, unless ClickHouse is away.
            return bool(self._queue) and not failed

    def _restore(self) -> None:
        if self._restored:
            return
        rows = [
            AlertRow(
                fingerprint=fingerprint,
                starts_at=_time(starts),
                ends_at=_time(ends) if resolved and ends else None,
                updated_at=_time(updated),
                labels=dict(labels),
                annotations=dict(annotations),
                generator_url=url,
                source=source,
                valid_until=_time(updated),
            )
            for (
                fingerprint, starts, ends, updated, resolved, labels, annotations, url, source,
            ) in self._session.client.query(_RESTORE).result_rows
        ]  # fmt: skip
        self._history.restore(rows, self._clock())
        self._restored = True

    def _take_in(self) -> None:
        while True:
            with self._condition:
                if not self._queue:
                    break
                seen = self._queue.popleft()
            if not self._history.observe(seen):
                with self._condition:
                    self._dropped += 1
        self._history.expire(self._clock())

    def _write(self) -> None:
        rows = self._history.unwritten()
        if not rows:
            return
        self._session.client.insert("alerts", [_values(row) for row in rows], column_names=COLUMNS)
        now = self._clock()
        for row in rows:
            row.dirty = False
            row.written_at = now
            if not row.resolved and not row.shown and row.labels.get("policy"):
                row.shown = True
                self._on_firing(Case(row.fingerprint, row.starts_at, row.labels))
        with self._condition:
            self._rows_written += len(rows)


def _values(row: AlertRow) -> tuple[Any, ...]:
    label = row.labels.get
    return (
        row.fingerprint,
        row.starts_at,
        row.ends_at,
        row.updated_at,
        "resolved" if row.resolved else "firing",
        label("alertname", ""),
        label("severity", ""),
        label("policy", ""),
        label("team", ""),
        label("incident", ""),
        row.labels,
        row.annotations,
        row.generator_url,
        row.value,
        row.source,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
