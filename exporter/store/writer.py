"""Writes flows, and what else is reported, to ClickHouse in large batches, from its own threads."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.batch import Batch
from exporter.config import ClickHouse, ConfigError
from exporter.logs import RareLog
from exporter.store.client import StoreError, connect, explain
from exporter.store.insert import REFUSALS, Encoding, Insert, failure_reason
from exporter.store.insert_stats import InsertStats
from exporter.store.render import local_name
from exporter.store.spool import Spool, SpoolError
from exporter.store.spool_stats import SpoolStats

log = logging.getLogger(__name__)

#: What an encoder's fault is counted as, beside ClickHouse's refusals.
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
#: Part of the queue beyond which rows go to the spool, as ClickHouse is too slow.
_HIGH_WATER: Final = 0.75
#: A spool that cannot be written to is tried again after so long.
_SPOOL_RETRY_SECONDS: Final = 5.0
#: How often the spooler looks whether rows have waited enough.
_SPOOLER_NAP_SECONDS: Final = 0.25
#: Part of the time to stop that is left for writing to the spool what ClickHouse did not take.
_SPOOL_STOP_SHARE: Final = 0.4


class WriterStoppedError(Exception):
    """The writer takes no more rows."""


@dataclass(slots=True, eq=False)
class _Queue:
    """Rows of one table that wait, with the times when they came."""

    table: str
    waiting: deque[tuple[float, Batch]] = field(default_factory=deque)
    rows: int = 0


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was taken from a queue for one insert."""

    queue: _Queue
    batches: list[tuple[float, Batch]]
    rows: int


class Writer:
    """Collects rows and inserts them, ``batch_rows`` at a time or after ``batch_seconds``.

    A batch goes into the table that its class names; rows of each table wait in a queue of their
    own, and one bound is for all of them.

    Each insert carries a token that stays the same over its retries, so that ClickHouse counts it
    once. An insert that fails goes to the spool, and so does what comes after it, until ClickHouse
    takes the first of the spool; then the spool empties while new flows have every other turn.
    Without a spool, or when its disk is full, the insert is tried again for as long as it takes, up
    to ``queue_batches`` full inserts wait in memory, and then :meth:`write` waits.

    Rows that ClickHouse refuses are put into quarantine (dropped, without a spool), counted and
    logged; they hold up no others.

    Raises:
        ConfigError: the spool's folder cannot be used.
    """

    def __init__(
        self, settings: ClickHouse, client_factory: Callable[[], Client] | None = None
    ) -> None:
        refusals = (_ENCODING, *REFUSALS.values())
        self.stats = InsertStats(failures=_USUAL_FAILURES, refusals=refusals)
        self.spool_stats = SpoolStats(refusals)
        self._spool = Spool(settings.spool, self.spool_stats) if settings.spool.directory else None
        self._settings = settings
        self._connect = client_factory or (lambda: connect(settings))
        self._client: Client | None = None
        self._capacity = settings.batch_rows * settings.queue_batches
        self._changed = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._pending_rows = 0
        #: New rows that are in the hands of one of the threads.
        self._inserting_rows = 0
        self._spooling_rows = 0
        #: The insert of new rows that is under way.
        self._inserting: Insert | None = None
        #: ClickHouse does not take inserts; the first of the spool is to show when it does again.
        self._away = self._has_spooled()
        self._retry_at = 0.0
        self._failures = 0
        self._busy = False
        self._spool_retry_at = 0.0
        self._stop_at: float | None = None
        self._insert_until = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._spooler = threading.Thread(target=self._run_spooler, name="spool", daemon=True)
        prefix = uuid.uuid4().hex
        self._tokens = (f"{prefix}-{number}" for number in count(1))
        self._encoding = _Encodings()
        self._log = RareLog(log)

    def start(self) -> None:
        """Starts the threads. ClickHouse need not be there yet."""
        self._thread.start()
        if self._spool is not None:
            self._spooler.start()

    def table(self, batch: Batch) -> str:
        """Where rows go: on a cluster to the node's own shard, which they need not leave."""
        return local_name(batch.table.name, self._settings.cluster)

    def write(self, batch: Batch) -> None:
        """Queues rows; waits while there is no room. The batch must not change afterwards.

        Raises:
            WriterStoppedError: it was stopped before there was room; the rows are counted as lost.
        """
        if not len(batch):
            return
        with self._changed:
            if self._at_capacity() and self._stop_at is None:
                began = time.monotonic()
                self._changed.wait_for(lambda: not self._at_capacity() or self._stop_at is not None)
                with self.stats.lock:
                    self.stats.blocked_seconds += time.monotonic() - began
            if self._stop_at is not None:
                with self.stats.lock:
                    self.stats.lost_rows += len(batch)
                raise WriterStoppedError
            table = self.table(batch)
            queue = self._queues.setdefault(table, _Queue(table))
            queue.waiting.append((time.monotonic(), batch))
            queue.rows += len(batch)
            self._pending_rows += len(batch)
            self._count_queue()
            self._changed.notify_all()

    def stop(self, timeout: float = 10.0) -> int:
        """Brings what is queued to ClickHouse or to the spool, for at most ``timeout`` seconds.

        Returns how many rows are lost. Without a spool an insert that is still under way counts as
        lost, though ClickHouse may yet finish it.
        """
        with self._changed:
            if self._stop_at is None:
                self._stop_at = time.monotonic() + timeout
                share = 0.0 if self._spool is None else _SPOOL_STOP_SHARE
                self._insert_until = self._stop_at - share * timeout
            self._changed.notify_all()
        for thread in (self._thread, self._spooler):
            if thread.is_alive():
                thread.join(max(0.0, self._stop_at - time.monotonic()) + 0.2)
        with self._changed:
            self._stopped = True
            if self._inserting is not None and self._keep(self._inserting):
                self._inserting_rows = 0
            lost = self._pending_rows + self._inserting_rows + self._spooling_rows
            self._queues.clear()
            self._pending_rows = self._inserting_rows = self._spooling_rows = 0
            self._count_queue()
            with self.stats.lock:
                self.stats.lost_rows += lost
                total = self.stats.lost_rows
        if self._spool is not None:
            self._spool.close()
        if lost:
            log.error(
                "stopped before ClickHouse took everything: %d rows lost, %d in all", lost, total
            )
        return lost

    # The queue

    def _at_capacity(self) -> bool:
        # What goes to the spool may come back.
        return self._pending_rows + self._spooling_rows >= self._capacity

    def _next(self) -> _Queue | None:
        """The queue whose oldest came first; before others those with enough rows for an insert."""
        waiting = [queue for queue in self._queues.values() if queue.waiting]
        aged = time.monotonic() - self._settings.batch_seconds
        due = [q for q in waiting if self._enough(q) or q.waiting[0][0] <= aged]
        return min(due or waiting, key=lambda queue: queue.waiting[0][0], default=None)

    def _enough(self, queue: _Queue) -> bool:
        return queue.rows >= self._settings.batch_rows

    def _due_in(self) -> float | None:
        """Seconds until there is an insert to make; ``None`` while nothing waits."""
        queue = self._next()
        if queue is None:
            return None
        age = time.monotonic() - queue.waiting[0][0]
        return 0.0 if self._enough(queue) else max(0.0, self._settings.batch_seconds - age)

    def _full(self) -> bool:
        """Whether there are enough rows for an insert, or the oldest has waited enough."""
        return self._due_in() == 0.0

    def _take(self) -> _Taken:
        """The next insert's rows; there must be some."""
        queue = self._next()
        assert queue is not None
        batches: list[tuple[float, Batch]] = []
        rows = 0
        while queue.waiting and rows < self._settings.batch_rows:
            batches.append(queue.waiting.popleft())
            rows += len(batches[-1][1])
        queue.rows -= rows
        self._pending_rows -= rows
        self._count_queue()
        self._changed.notify_all()
        return _Taken(queue, batches, rows)

    def _put_back(self, taken: _Taken) -> None:
        """What could not be done comes first the next time."""
        taken.queue.waiting.extendleft(reversed(taken.batches))
        taken.queue.rows += taken.rows
        self._pending_rows += taken.rows
        self._count_queue()

    def _count_queue(self) -> None:
        with self.stats.lock:
            self.stats.queue_rows = self._pending_rows
            self.stats.queue_batches = sum(len(queue.waiting) for queue in self._queues.values())

    def _has_spooled(self) -> bool:
        return self._spool is not None and len(self._spool) > 0

    # To ClickHouse: new rows and those of the spool in turn

    def _run(self) -> None:
        try:
            replayed = False
            while (replay := self._next_turn(replayed)) is not None:
                replayed = replay
                if replay:
                    self._replay()
                else:
                    self._insert()
        finally:
            if self._client is not None:
                self._client.close()

    def _next_turn(self, replayed: bool) -> bool | None:
        """Waits until there is something to do: replay (true) or insert what is new (false).

        ``None`` when stopped and nothing is left, or no time.
        """
        with self._changed:
            self._busy = False
            while True:
                now = time.monotonic()
                stopping = self._stop_at is not None
                self._away = self._away and self._has_spooled()
                if self._away:
                    if stopping:
                        return None
                    turn = True if now >= self._retry_at else None
                    pause: float | None = self._retry_at - now
                elif stopping:
                    turn = False if self._pending_rows and now < self._insert_until else None
                    if turn is None:
                        return None
                else:
                    pause = self._due_in()
                    new = pause == 0.0
                    turn = None if not new else False
                    if self._has_spooled() and not (new and replayed):
                        turn = True
                if turn is not None:
                    self._busy = True
                    return turn
                self._changed.wait(pause)

    def _insert(self) -> None:
        """Inserts new rows: until they are taken, refused, in the spool, or it has to stop."""
        with self._changed:
            taken = self._take()
            self._inserting_rows = taken.rows
        insert = self._encode(self._encoding, taken)
        del taken  # the bytes are enough from here on
        with self._changed:
            self._inserting = insert
        while insert is not None:
            failure = self._try(insert)
            if failure is None:
                self._taken(insert)
                break
            if failure.code in REFUSALS:
                self._refuse(insert, failure)
                break
            if self._keep(insert):
                with self._changed:
                    self._away = True
                    self._retry_at = time.monotonic() + self._delay()
                break
            if not self._wait_before_retry():
                return  # whoever stops us looks after it
            with self.stats.lock:
                self.stats.retries += 1
        with self._changed:
            self._inserting = None
            self._inserting_rows = 0

    def _replay(self) -> None:
        """Inserts the next of the spool, or lets it wait for a while."""
        assert self._spool is not None
        found = self._spool.next()
        if found is None:
            return
        entry, insert = found
        failure = self._try(insert)
        if failure is None:
            self._spool.taken(entry)
            self._taken(insert)
            with self._changed:
                self._away = False
                self._changed.notify_all()
            return
        to_blame = failure.code in REFUSALS or self._spool.failed(
            entry, by_clickhouse=failure.code is not None
        )
        if to_blame:
            self._refuse(insert, failure)
            self._spool.remove(entry)
            return
        with self._changed:
            self._away = True
            self._retry_at = time.monotonic() + self._delay()
        with self.stats.lock:
            self.stats.retries += 1

    def _encode(self, encodings: _Encodings, taken: _Taken) -> Insert | None:
        try:
            encoding = encodings.of(taken.queue.table)
            return encoding.encode([batch for _, batch in taken.batches], next(self._tokens))
        except Exception:  # a fault in one batch must not end the thread
            log.exception("a batch of %d rows cannot be encoded, they are dropped", taken.rows)
            with self.stats.lock:
                self.stats.refused_rows[_ENCODING] += taken.rows
            return None

    def _try(self, insert: Insert) -> StoreError | None:
        began = time.monotonic()
        failure = self._send(insert)
        with self.stats.lock:
            self.stats.duration.observe(time.monotonic() - began)
            if failure is not None:
                self.stats.failures[failure_reason(failure)] += 1
        if failure is not None and failure.code not in REFUSALS:
            self._failures += 1
            where = "in memory" if self._spool is None else "in the spool"
            self._log.warning(
                failure_reason(failure),
                f"insert failed, will be tried again; rows wait {where}: {failure}",
            )
        return failure

    def _send(self, insert: Insert) -> StoreError | None:
        try:
            if self._client is None:
                self._client = self._connect()
            insert.send(self._client)
        except StoreError as error:
            return error
        except ConfigError as error:  # a password file that is gone may come back
            return StoreError(str(error), name="configuration")
        except Exception as error:  # a client fails in many ways; none may end this thread
            return explain(error, self._settings)
        return None

    def _taken(self, insert: Insert) -> None:
        with self.stats.lock:
            self.stats.rows[insert.table] += insert.rows
            self.stats.bytes += len(insert.body)
            self.stats.batch_rows.observe(insert.rows)
            self.stats.last_success = time.time()
        if self._failures:
            log.info("ClickHouse takes inserts again, after %d failures", self._failures)
            self._failures = 0
            self._log.forget()

    def _refuse(self, insert: Insert, failure: StoreError) -> None:
        reason = failure_reason(failure)
        kept = self._spool is not None and self._spool.quarantine(insert, reason, str(failure))
        with self.stats.lock:
            self.stats.refused_rows[reason] += insert.rows
        what = "put into quarantine" if kept else "dropped"
        self._log.error(f"refused {reason}", f"{insert.rows} rows {what}, refused: {failure}")

    def _delay(self) -> float:
        """Ever longer, with jitter."""
        doubled = _FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10)
        longest = min(_LONGEST_RETRY_SECONDS, doubled)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _wait_before_retry(self) -> bool:
        """``False`` when stopping leaves no time for a retry."""
        until = time.monotonic() + self._delay()
        with self._changed:
            while (remaining := until - time.monotonic()) > 0:
                if self._stop_at is not None:
                    if time.monotonic() >= self._insert_until:
                        return False
                    # Once told to stop, soon is better than polite.
                    remaining = min(remaining, _FIRST_RETRY_SECONDS)
                    until = min(until, time.monotonic() + remaining)
                self._changed.wait(remaining)
            return self._stop_at is None or time.monotonic() < self._insert_until

    # To the spool

    def _keep(self, insert: Insert) -> bool:
        """Whether an insert that failed is in the spool now."""
        if self._spool is None:
            return False
        try:
            self._spool.append(insert, tried=True)
        except SpoolError as error:
            self._log.error("spool", str(error))
            return False
        return True

    def _run_spooler(self) -> None:
        encodings = _Encodings()
        while taken := self._take_for_spool():
            insert = self._encode(encodings, taken)
            kept = insert is None or self._spool_new(insert)
            with self._changed:
                if not kept:
                    self._put_back(taken)
                    self._spool_retry_at = time.monotonic() + _SPOOL_RETRY_SECONDS
                self._spooling_rows = 0
                self._changed.notify_all()
                if not self._away:
                    encodings.free()

    def _spool_new(self, insert: Insert) -> bool:
        assert self._spool is not None
        try:
            self._spool.append(insert, tried=False)
        except SpoolError as error:
            self._log.error("spool", str(error))
            return False
        return True

    def _take_for_spool(self) -> _Taken | None:
        """Rows that ClickHouse will not take soon; ``None`` when stopped."""
        with self._changed:
            while not self._spooling_due():
                if self._stop_at is not None and (not self._pending_rows or self._spool_broken()):
                    return None
                self._changed.wait(_SPOOLER_NAP_SECONDS if self._pending_rows else None)
            taken = self._take()
            self._spooling_rows = taken.rows
            return taken

    def _spool_broken(self) -> bool:
        return time.monotonic() < self._spool_retry_at

    def _spooling_due(self) -> bool:
        if not self._pending_rows or self._spool_broken():
            return False
        if self._stop_at is not None:
            return self._away or time.monotonic() >= self._insert_until
        if self._away:
            return self._full()
        return self._busy and self._pending_rows >= _HIGH_WATER * self._capacity


class _Encodings:
    """One thread's encoding of each table."""

    def __init__(self) -> None:
        self._by_table: dict[str, Encoding] = {}

    def of(self, table: str) -> Encoding:
        """That of a table; its insert before ends."""
        return self._by_table.setdefault(table, Encoding(table))

    def free(self) -> None:
        """Let go of the memory until it is needed again."""
        self._by_table.clear()
