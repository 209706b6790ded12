"""Writes flows to ClickHouse in large batches, from a thread of its own."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from clickhouse_connect.driver.client import Client

from exporter.batch import FlowBatch
from exporter.config import ClickHouse, ConfigError
from exporter.store.client import StoreError, connect, explain
from exporter.store.insert_stats import InsertStats
from exporter.store.native import native_parts, present_columns

log = logging.getLogger(__name__)

#: ClickHouse's errors (ErrorCodes.cpp) that blame the rows: no retry can help.
_REFUSALS: Final = {
    6: "cannot_parse_text",
    8: "there_is_no_column",
    10: "not_found_column_in_block",
    16: "no_such_column_in_table",
    20: "number_of_columns_doesnt_match",
    27: "cannot_parse_input_assertion_failed",
    33: "cannot_read_all_data",
    43: "illegal_type_of_argument",
    44: "illegal_column",
    47: "unknown_identifier",
    50: "unknown_type",
    53: "type_mismatch",
    62: "syntax_error",
    69: "argument_out_of_bound",
    70: "cannot_convert_type",
    117: "incorrect_data",
    128: "too_large_array_size",
    131: "too_large_string_size",
    469: "violated_constraint",
    691: "unknown_element_of_enum",
}
#: What an encoder's fault is counted as, beside them.
_ENCODING: Final = "encoding"
#: Usual reasons of failures that pass, so that their counters start from 0.
_USUAL_FAILURES: Final = (
    "unreachable",
    "authentication_failed",
    "unknown_database",
    "unknown_table",
    "memory_limit_exceeded",
    "timeout_exceeded",
    "too_many_parts",
    "not_enough_space",
)
_FIRST_RETRY_SECONDS: Final = 0.25
_LONGEST_RETRY_SECONDS: Final = 15.0
_LOG_EVERY_SECONDS: Final = 60.0

_SETTINGS: Final = {
    # A batch is as large as it should be already, and only a synchronous insert is acknowledged
    # when it is stored and honours the token.
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # Errors come with their own status rather than after an early "200 OK".
    "wait_end_of_query": 1,
    "send_progress_in_http_headers": 0,
    # Replayed captures may span many days.
    "throw_on_max_partitions_per_insert_block": 0,
}


class WriterStoppedError(Exception):
    """The writer takes no more flows."""


class Writer:
    """Collects flows and inserts them, ``batch_rows`` at a time or after ``batch_seconds``.

    While ClickHouse is away it tries again for as long as it runs, keeps up to ``queue_batches``
    full inserts, and then makes :meth:`write` wait. Each insert carries a token that stays the
    same over its retries, so that ClickHouse counts it once. Flows that ClickHouse refuses are
    dropped, counted and logged; they hold up no others.
    """

    def __init__(
        self, settings: ClickHouse, client_factory: Callable[[], Client] | None = None
    ) -> None:
        self.stats = InsertStats(
            failures=_USUAL_FAILURES, refusals=(_ENCODING, *_REFUSALS.values())
        )
        self._settings = settings
        self._connect = client_factory or (lambda: connect(settings))
        self._client: Client | None = None
        self._capacity = settings.batch_rows * settings.queue_batches
        self._changed = threading.Condition()
        self._pending: deque[tuple[float, FlowBatch]] = deque()
        self._pending_rows = 0
        self._inserting_rows = 0
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._token_prefix = uuid.uuid4().hex
        self._inserts = 0
        self._buffer = bytearray()
        self._last_logged: dict[str, float] = {}

    def start(self) -> None:
        """Starts the thread that inserts. ClickHouse need not be there yet."""
        self._thread.start()

    def write(self, batch: FlowBatch) -> None:
        """Queues flows; waits while the queue is full. The batch must not change afterwards.

        Raises:
            WriterStoppedError: it was stopped before there was room; the flows are counted as lost.
        """
        if not len(batch):
            return
        with self._changed:
            if self._pending_rows >= self._capacity and self._stop_at is None:
                began = time.monotonic()
                self._changed.wait_for(
                    lambda: self._pending_rows < self._capacity or self._stop_at is not None
                )
                with self.stats.lock:
                    self.stats.blocked_seconds += time.monotonic() - began
            if self._stop_at is not None:
                with self.stats.lock:
                    self.stats.lost_rows += len(batch)
                raise WriterStoppedError
            self._pending.append((time.monotonic(), batch))
            self._pending_rows += len(batch)
            self._count_queue()
            self._changed.notify_all()

    def stop(self, timeout: float = 10.0) -> int:
        """Inserts what is queued, for at most ``timeout`` seconds; returns how many flows are lost.

        An insert that is still under way then counts as lost, though ClickHouse may yet finish it.
        """
        with self._changed:
            if self._stop_at is None:
                self._stop_at = time.monotonic() + timeout
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(max(0.0, self._stop_at - time.monotonic()) + 0.2)
        with self._changed:
            lost = self._pending_rows + self._inserting_rows
            self._pending.clear()
            self._pending_rows = self._inserting_rows = 0
            self._count_queue()
            with self.stats.lock:
                self.stats.lost_rows += lost
                total = self.stats.lost_rows
        if lost:
            log.error(
                "stopped before ClickHouse took everything: %d flows lost, %d in all", lost, total
            )
        return lost

    def _run(self) -> None:
        try:
            while batches := self._take():
                self._insert(batches)
        finally:
            if self._client is not None:
                self._client.close()

    def _take(self) -> list[FlowBatch]:
        """The next insert's batches, when there are enough or the oldest has waited enough.

        Empty when stopped and nothing is left, or no time.
        """
        with self._changed:
            while not self._ready():
                if self._stop_at is not None:
                    return []
                age = self._oldest_age()
                self._changed.wait(None if age is None else self._settings.batch_seconds - age)
            taken: list[FlowBatch] = []
            rows = 0
            while self._pending and rows < self._settings.batch_rows:
                _, batch = self._pending.popleft()
                rows += len(batch)
                taken.append(batch)
            self._pending_rows -= rows
            self._inserting_rows = rows
            self._count_queue()
            self._changed.notify_all()
            return taken

    def _ready(self) -> bool:
        if not self._pending:
            return False
        if self._stop_at is not None:
            return time.monotonic() < self._stop_at
        age = self._oldest_age()
        return self._pending_rows >= self._settings.batch_rows or (
            age is not None and age >= self._settings.batch_seconds
        )

    def _oldest_age(self) -> float | None:
        return time.monotonic() - self._pending[0][0] if self._pending else None

    def _count_queue(self) -> None:
        with self.stats.lock:
            self.stats.queue_rows = self._pending_rows
            self.stats.queue_batches = len(self._pending)

    def _insert(self, batches: list[FlowBatch]) -> None:
        """Inserts one block: until it is taken, refused, or the time to stop has come."""
        rows = sum(map(len, batches))
        self._inserts += 1
        settings: dict[str, int | str] = {
            **_SETTINGS,
            "insert_deduplication_token": f"{self._token_prefix}-{self._inserts}",
        }
        try:
            body = self._encode(batches)
        except Exception as error:  # a fault in one batch must not end the thread
            log.exception("a batch of %d flows cannot be encoded", rows)
            self._refused(rows, _ENCODING, str(error))
            return
        batches.clear()  # the bytes are enough from here on
        attempt = 0
        while True:
            began = time.monotonic()
            failure = self._try(body, settings)
            with self.stats.lock:
                self.stats.duration.observe(time.monotonic() - began)
            if failure is None:
                self._taken(rows, len(body), attempt)
                return
            reason = _reason(failure)
            with self.stats.lock:
                self.stats.failures[reason] += 1
            if failure.code in _REFUSALS:
                self._refused(rows, _REFUSALS[failure.code], str(failure))
                return
            self._log(
                logging.WARNING,
                reason,
                f"insert failed, will be tried again (waiting flows: "
                f"{self._pending_rows + rows}): {failure}",
            )
            if not self._wait_before_retry(attempt):
                return
            attempt += 1
            with self.stats.lock:
                self.stats.retries += 1

    def _encode(self, batches: list[FlowBatch]) -> memoryview:
        """The statement and its block, in a buffer that is used again for the next insert.

        Tens of megabytes of fresh memory for each would cost as much as filling them.
        """
        columns = present_columns(batches)
        names = ", ".join(column.name for column in columns)
        statement = f"INSERT INTO flows ({names}) FORMAT Native\n".encode()
        parts = [statement, *native_parts(batches, columns)]
        size = sum(map(len, parts))
        if size > len(self._buffer):
            self._buffer = bytearray(size + size // 4)
        body = memoryview(self._buffer)[:size]
        begin = 0
        for part in parts:
            body[begin : begin + len(part)] = part
            begin += len(part)
        return body

    def _try(self, body: memoryview, settings: dict[str, int | str]) -> StoreError | None:
        try:
            if self._client is None:
                self._client = self._connect()
            # The HTTP library sends any buffer as it is, which the driver's types do not say.
            self._client.raw_insert("", insert_block=cast("bytes", body), settings=settings)
        except StoreError as error:
            return error
        except ConfigError as error:  # a password file that is gone may come back
            return StoreError(str(error), name="configuration")
        except Exception as error:  # a client fails in many ways; none may end this thread
            return explain(error, self._settings)
        return None

    def _taken(self, rows: int, size: int, attempt: int) -> None:
        with self._changed:
            self._inserting_rows = 0
        with self.stats.lock:
            self.stats.rows += rows
            self.stats.bytes += size
            self.stats.batch_rows.observe(rows)
            self.stats.last_success = time.time()
        if attempt:
            self._last_logged.clear()
            log.info("ClickHouse takes inserts again, after %d retries", attempt)

    def _refused(self, rows: int, reason: str, text: str) -> None:
        with self._changed:
            self._inserting_rows = 0
        with self.stats.lock:
            self.stats.refused_rows[reason] += rows
        self._log(logging.ERROR, f"refused {reason}", f"{rows} flows dropped, refused: {text}")

    def _wait_before_retry(self, attempt: int) -> bool:
        """Waits ever longer, with jitter; ``False`` when stopping leaves no time for a retry."""
        longest = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(attempt, 10))
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        until = time.monotonic() + delay
        with self._changed:
            while (remaining := until - time.monotonic()) > 0:
                if self._stop_at is not None:
                    if time.monotonic() >= self._stop_at:
                        return False
                    # Once told to stop, soon is better than polite.
                    remaining = min(remaining, _FIRST_RETRY_SECONDS)
                    until = min(until, time.monotonic() + remaining)
                self._changed.wait(remaining)
        return self._stop_at is None or time.monotonic() < self._stop_at

    def _log(self, level: int, key: str, text: str) -> None:
        """Logs once a minute per ``key``."""
        now = time.monotonic()
        if now - self._last_logged.get(key, -_LOG_EVERY_SECONDS) >= _LOG_EVERY_SECONDS:
            self._last_logged[key] = now
            log.log(level, text)


def _reason(failure: StoreError) -> str:
    if failure.name:
        return failure.name.lower()
    return "unreachable" if failure.code is None else f"code_{failure.code}"
