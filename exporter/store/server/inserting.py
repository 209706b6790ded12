"""Inserts side by side, of which none is acknowledged for the record of another that failed."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from exporter.store.server import records
from exporter.store.server.errors import QueryError
from exporter.store.server.sql import quote_name

log = logging.getLogger(__name__)

_TOLD: Final = "flow-exporter store: %s: %d records of inserts without their rows are forgotten"


class Inserting:
    """Looks after :mod:`.records` of the tables in ``data``.

    After an insert failed, records without a part are looked for. While there are any, no other
    insert begins: those that run come to their end, and the tables are closed, put right and opened
    again by ``run``, which runs a statement with these parameters in the engine.
    """

    def __init__(self, data: Path, run: Callable[[str, Mapping[str, str]], bytes]) -> None:
        self._data = data
        self._run = run
        self._changed = threading.Condition()
        self._running = 0
        self._lost: dict[Path, set[str]] = {}
        self._names: dict[Path, str] = {}
        self.forgotten = 0

    def before_start(self) -> None:
        """Put right what a process left that was killed; before the engine opens the tables.

        Raises:
            OSError: a folder cannot be read or written.
        """
        for table in records.tables(self._data):
            lost = records.without_part(table)
            records.forget(table, lost)
            if lost:
                log.warning(_TOLD, table, len(lost))
            self.forgotten += len(lost)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """While an insert runs in the engine; blocks.

        Raises:
            QueryError: records are there that cannot be put right, or were put right meanwhile, so
                that this insert may not be stored though the engine said so.
        """
        with self._changed:
            self._settle()
            before = self.forgotten
            self._running += 1
        try:
            yield
        except QueryError:
            with self._changed:
                self._look()
            raise
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
        with self._changed:
            self._settle()
            if self.forgotten != before:
                raise QueryError(
                    319,
                    "UNKNOWN_STATUS_OF_INSERT",
                    "Another insert failed while it was stored: send this one again.",
                )

    def _look(self) -> None:
        for table in records.tables(self._data):
            try:
                lost = records.without_part(table)
            except FileNotFoundError:  # dropped meanwhile
                continue
            except OSError as error:
                raise _faulty(table, error) from error
            if lost:
                self._lost.setdefault(table, set()).update(lost)

    def _settle(self) -> None:
        """Return when there are no such records; the lock is held, but while it waits."""
        while self._lost:
            if self._running:
                self._changed.wait()
                continue
            table, lost = next(iter(self._lost.items()))
            # What was only on its way when it was looked for is in its place by now.
            lost = {record for record in lost if not records.has_part(table, record)}
            if lost:
                self._put_right(table, lost)
            del self._lost[table]
            self._names.pop(table, None)

    def _put_right(self, table: Path, lost: set[str]) -> None:
        name = self._names.get(table) or self._name(table)
        if not name:
            return
        # Kept, as the engine knows no table by that UUID while it is detached.
        self._names[table] = name
        try:
            records.check_writable(table)  # or it could not be attached again
            # Queries of it that run come to their end; who asks for it meanwhile finds no table.
            self._run(f"DETACH TABLE IF EXISTS {name} SYNC", {})
            self._forget(table, name, lost)
        except OSError as error:
            raise _faulty(table, error) from error
        log.warning(_TOLD, name, len(lost))
        self.forgotten += len(lost)

    def _forget(self, table: Path, name: str, lost: set[str]) -> None:
        try:
            records.forget(table, lost)
        finally:
            self._run(f"ATTACH TABLE IF NOT EXISTS {name}", {})

    def _name(self, table: Path) -> str:
        """What statements call it; empty if it was dropped, and its folder waits to be deleted."""
        found = self._run(
            "SELECT database, name FROM system.tables WHERE uuid = {uuid:UUID} "
            "AND engine != 'MaterializedView' FORMAT JSONCompactEachRow",
            {"uuid": table.name},
        )
        return ".".join(map(quote_name, json.loads(found or b"[]")))


def _faulty(table: Path, error: OSError) -> QueryError:
    return QueryError(1001, "STD_EXCEPTION", f"{table}: after a failed insert: {error.strerror}.")
