"""Sends inserts to ClickHouse and tells what became of them: counted, logged, kept."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse, ConfigError
from exporter.logs import RareLog
from exporter.store.client import StoreError, explain
from exporter.store.insert import REFUSALS, Insert, failure_reason
from exporter.store.insert_stats import InsertStats
from exporter.store.spool import Spool, Spooled, SpoolError

log = logging.getLogger(__name__)

#: Usual reasons of failures that pass, so that their counters start from 0.
USUAL_FAILURES: Final = (
    "unreachable",
    "authentication_failed",
    "unknown_database",
    "unknown_table",
    "memory_limit_exceeded",
    "timeout_exceeded",
    "too_many_parts",
    "not_enough_space",
)
FIRST_RETRY_SECONDS: Final = 0.25
_LONGEST_RETRY_SECONDS: Final = 15.0


class Sender:
    """One connection to ClickHouse, made when it is needed.

    One thread sends; any may :meth:`keep`.
    """

    def __init__(
        self,
        settings: ClickHouse,
        client_factory: Callable[[], Client],
        stats: InsertStats,
        spool: Spool | None,
    ) -> None:
        self._settings = settings
        self._connect = client_factory
        self._stats = stats
        self._spool = spool
        self._client: Client | None = None
        self._failures = 0
        self._log = RareLog(log)

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()

    def send(self, insert: Insert) -> StoreError | None:
        """Send it, and count how it went; the failure, if it is one."""
        began = time.monotonic()
        failure = self._failure_of(insert)
        with self._stats.lock:
            self._stats.duration.observe(time.monotonic() - began)
            if failure is not None:
                self._stats.failures[failure_reason(failure)] += 1
        if failure is None:
            self._taken(insert)
        elif failure.code not in REFUSALS:
            self._failures += 1
            where = "in memory" if self._spool is None else "in the spool"
            self._log.warning(
                failure_reason(failure),
                f"insert failed, will be tried again; rows wait {where}: {failure}",
            )
        return failure

    def refuse(self, insert: Insert, failure: StoreError, entry: Spooled | None = None) -> None:
        """Put what no retry can help into quarantine, or drop it; ``entry``: it is spooled."""
        reason = failure_reason(failure)
        kept = self._spool is not None and self._spool.quarantine(
            insert, reason, str(failure), entry
        )
        with self._stats.lock:
            self._stats.refused_rows[reason] += insert.rows
        what = "put into quarantine" if kept else "dropped"
        self._log.error(f"refused {reason}", f"{insert.rows} rows {what}, refused: {failure}")

    def keep(self, insert: Insert, *, tried: bool) -> bool:
        """Whether the insert is in the spool now; ``tried``: ClickHouse may know its token."""
        if self._spool is None:
            return False
        try:
            self._spool.append(insert, tried=tried)
        except SpoolError as error:
            self._log.error("spool", str(error))
            return False
        return True

    def delay(self) -> float:
        """Seconds until the next try: ever longer, with jitter."""
        doubled = FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10)
        longest = min(_LONGEST_RETRY_SECONDS, doubled)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _failure_of(self, insert: Insert) -> StoreError | None:
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
        with self._stats.lock:
            self._stats.rows[insert.table] += insert.rows
            self._stats.bytes += len(insert.body)
            self._stats.batch_rows.observe(insert.rows)
            self._stats.last_success = time.time()
        if self._failures:
            log.info("ClickHouse takes inserts again, after %d failures", self._failures)
            self._failures = 0
            self._log.forget()
