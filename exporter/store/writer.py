"""Writes flows, and what else is reported, to ClickHouse in large batches, from its own threads."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from itertools import count
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.batch import Batch
from exporter.config import ClickHouse
from exporter.store.client import connect
from exporter.store.insert import REFUSALS, Encodings, Insert
from exporter.store.insert_stats import InsertStats
from exporter.store.queue import Queues, Taken
from exporter.store.render import local_name
from exporter.store.sender import FIRST_RETRY_SECONDS, USUAL_FAILURES, Sender
from exporter.store.spool import Spool
from exporter.store.spool_stats import SpoolStats

log = logging.getLogger(__name__)

#: What an encoder's fault is counted as, beside ClickHouse's refusals.
_ENCODING: Final = "encoding"
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
        self.stats = InsertStats(failures=USUAL_FAILURES, refusals=refusals)
        self.spool_stats = SpoolStats(refusals)
        self._spool = Spool(settings.spool, self.spool_stats) if settings.spool.directory else None
        self._settings = settings
        factory = client_factory or (lambda: connect(settings))
        self._sender = Sender(settings, factory, self.stats, self._spool)
        self._capacity = settings.batch_rows * settings.queue_batches
        self._changed = threading.Condition()
        self._queues = Queues(settings.batch_rows, settings.batch_seconds)
        #: New rows that are in the hands of one of the threads.
        self._inserting_rows = 0
        self._spooling_rows = 0
        #: The insert of new rows that is under way.
        self._inserting: Insert | None = None
        #: ClickHouse does not take inserts; the first of the spool is to show when it does again.
        self._away = self._has_spooled()
        self._retry_at = 0.0
        self._busy = False
        self._spool_retry_at = 0.0
        self._stop_at: float | None = None
        self._insert_until = 0.0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._spooler = threading.Thread(target=self._run_spooler, name="spool", daemon=True)
        prefix = uuid.uuid4().hex
        self._tokens = (f"{prefix}-{number}" for number in count(1))
        self._encodings = Encodings()

    def start(self) -> None:
        """Starts the threads. ClickHouse need not be there yet."""
        self._thread.start()
        if self._spool is not None:
            self._spooler.start()

    @property
    def alive(self) -> bool:
        """Whether all threads run."""
        return self._thread.is_alive() and (self._spool is None or self._spooler.is_alive())

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
            self._queues.put(self.table(batch), batch)
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
            if self._inserting is not None and self._sender.keep(self._inserting, tried=True):
                self._inserting_rows = 0
            lost = self._queues.rows + self._inserting_rows + self._spooling_rows
            self._queues.clear()
            self._inserting_rows = self._spooling_rows = 0
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
        return self._queues.rows + self._spooling_rows >= self._capacity

    def _take(self) -> Taken:
        """The next insert's rows; there must be some."""
        taken = self._queues.take()
        self._count_queue()
        self._changed.notify_all()
        return taken

    def _count_queue(self) -> None:
        with self.stats.lock:
            self.stats.queue_rows = self._queues.rows
            self.stats.queue_batches = self._queues.batches

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
            self._sender.close()

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
                    turn = False if self._queues.rows and now < self._insert_until else None
                    if turn is None:
                        return None
                else:
                    pause = self._queues.due_in()
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
        insert = self._encode(self._encodings, taken)
        del taken  # the bytes are enough from here on
        with self._changed:
            self._inserting = insert
        while insert is not None:
            failure = self._sender.send(insert)
            if failure is None:
                break
            if failure.code in REFUSALS:
                self._sender.refuse(insert, failure)
                break
            if self._sender.keep(insert, tried=True):
                with self._changed:
                    self._away = True
                    self._retry_at = time.monotonic() + self._sender.delay()
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
        failure = self._sender.send(insert)
        if failure is None:
            self._spool.taken(entry)
            with self._changed:
                self._away = False
                self._changed.notify_all()
            return
        to_blame = failure.code in REFUSALS or self._spool.failed(
            entry, by_clickhouse=failure.code is not None
        )
        if to_blame:
            self._sender.refuse(insert, failure, entry)
            self._spool.remove(entry)
            return
        with self._changed:
            self._away = True
            self._retry_at = time.monotonic() + self._sender.delay()
        with self.stats.lock:
            self.stats.retries += 1

    def _encode(self, encodings: Encodings, taken: Taken) -> Insert | None:
        try:
            return encodings.of(taken.table).encode(taken.batches, next(self._tokens))
        except Exception:  # a fault in one batch must not end the thread
            log.exception("a batch of %d rows cannot be encoded, they are dropped", taken.rows)
            with self.stats.lock:
                self.stats.refused_rows[_ENCODING] += taken.rows
            return None

    def _wait_before_retry(self) -> bool:
        """``False`` when stopping leaves no time for a retry."""
        until = time.monotonic() + self._sender.delay()
        with self._changed:
            while (remaining := until - time.monotonic()) > 0:
                if self._stop_at is not None:
                    if time.monotonic() >= self._insert_until:
                        return False
                    # Once told to stop, soon is better than polite.
                    remaining = min(remaining, FIRST_RETRY_SECONDS)
                    until = min(until, time.monotonic() + remaining)
                self._changed.wait(remaining)
            return self._stop_at is None or time.monotonic() < self._insert_until

    # To the spool

    def _run_spooler(self) -> None:
        encodings = Encodings()
        while taken := self._take_for_spool():
            insert = self._encode(encodings, taken)
            kept = insert is None or self._sender.keep(insert, tried=False)
            with self._changed:
                if not kept:
                    self._queues.put_back(taken)
                    self._count_queue()
                    self._spool_retry_at = time.monotonic() + _SPOOL_RETRY_SECONDS
                self._spooling_rows = 0
                self._changed.notify_all()
                if not self._away:
                    encodings.free()

    def _take_for_spool(self) -> Taken | None:
        """Rows that ClickHouse will not take soon; ``None`` when stopped."""
        with self._changed:
            while not self._spooling_due():
                if self._stop_at is not None and (not self._queues.rows or self._spool_broken()):
                    return None
                self._changed.wait(_SPOOLER_NAP_SECONDS if self._queues.rows else None)
            taken = self._take()
            self._spooling_rows = taken.rows
            return taken

    def _spool_broken(self) -> bool:
        return time.monotonic() < self._spool_retry_at

    def _spooling_due(self) -> bool:
        if not self._queues.rows or self._spool_broken():
            return False
        if self._stop_at is not None:
            return self._away or time.monotonic() >= self._insert_until
        if self._away:
            return self._queues.due_in() == 0.0
        return self._busy and self._queues.rows >= _HIGH_WATER * self._capacity
