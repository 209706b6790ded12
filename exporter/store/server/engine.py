"""The ClickHouse engine in this process: one data directory, a connection per statement.

A connection costs a fifth of a millisecond, so each statement gets its own: settings end with
it, statements run in parallel, and a failed one leaves nothing behind for the next. All calls
block and release the interpreter lock; the server runs them in threads.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from exporter.store.server import sql
from exporter.store.server.engine_config import write_config
from exporter.store.server.errors import EngineError, QueryError
from exporter.store.server.folder import Folder
from exporter.store.server.inserting import Inserting
from exporter.store.server.sql import quote, quote_name


@dataclass(slots=True)
class Statistics:
    """What a statement read and wrote so far."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0


class Engine:
    """Runs on a folder that is held while it does; a context manager."""

    def __init__(self, folder: Folder, memory_bytes: int = 0) -> None:
        self.folder = folder
        self._memory_bytes = memory_bytes
        self._chdb: Any = None
        self._base: Any = None
        self.version = ""
        self.inserting = Inserting(folder.data, self._run)

    def __enter__(self) -> Engine:
        """Start the engine.

        Raises:
            OSError: its configuration cannot be written, or its data cannot.
            EngineError: the engine does not start on this data.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        config = write_config(self.folder, self._memory_bytes)
        self.inserting.before_start()
        # DateTime without a zone is shown in the process's zone, and Native carries none.
        os.environ["TZ"] = "UTC"
        time.tzset()
        # Being imported, it makes a database there for a moment.
        os.environ["TMPDIR"] = str(self.folder.temporary)
        _chdb: Any = importlib.import_module("chdb._chdb")
        self._chdb = _chdb
        data = self.folder.data
        try:
            self._base = _chdb.connect(f"{data}?config-file={config}")
            # The engine lays a view of the file system over its default database. Take it off.
            self._base.query("DETACH DATABASE default")
            # An empty one cannot be attached again ("Cannot find UUID mapping"): make it anew.
            known = (data / "metadata" / "default").exists()
            if not known:
                (data / "metadata" / "default.sql").unlink(missing_ok=True)
            self._base.query(
                "ATTACH DATABASE default" if known else "CREATE DATABASE default ENGINE = Atomic"
            )
            self.version = self._base.query("SELECT version()", "TSVRaw").bytes().decode().strip()
        except RuntimeError as error:
            raise EngineError(str(error)) from error

    def close(self) -> None:
        """Stop the engine."""
        if self._base is not None:
            self._base.close()
            self._base = None

    def open(self, database: str = "", settings: Mapping[str, str] | None = None) -> Connection:
        """A connection in ``database`` with ``settings``, for one statement; to be closed.

        Raises:
            EngineError: no such database or setting.
        """
        raw = self._chdb.connect(str(self.folder.data))
        connection = Connection(raw)
        try:
            if database and database != "default":
                connection.run(f"USE {quote_name(database)}")
            if settings:
                given = ", ".join(f"{name} = {quote(value)}" for name, value in settings.items())
                connection.run(f"SET {given}")
        except BaseException:
            connection.close()
            raise
        return connection

    def kill(self, query_id: str) -> None:
        """Stop the statement that runs under ``query_id``, if it still does."""
        with self.open() as connection:
            connection.run(f"KILL QUERY WHERE Settings['log_comment'] = {quote(query_id)} ASYNC")

    def scalar(self, statement: str) -> int:
        """The one number that ``statement`` selects."""
        return int(self._run(statement, {}).strip() or b"0")

    def _run(self, statement: str, parameters: Mapping[str, str]) -> bytes:
        with self.open() as connection:
            return connection.run(statement, "TSVRaw", parameters)


class Connection:
    """A connection of the engine. Its calls wait for each other, ``close`` included."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._lock = Lock()
        self.statistics = Statistics()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, once the call that is under way has ended."""
        with self._lock:
            if self._raw is not None:
                self._raw.close()
                self._raw = None

    def classify(self, statement: str) -> tuple[str, int]:
        """See :class:`.guard.Parser`."""
        with self.calling() as raw:
            found = raw.classify_query(statement)
        return str(found["query_class"].name), int(found["statement_count"])

    def run(
        self, statement: str, format: str = "TSV", parameters: Mapping[str, str] | None = None
    ) -> bytes:
        """The whole answer of ``statement``.

        Raises:
            EngineError: what the engine says.
        """
        with self.calling() as raw:
            result = raw.query(statement, format, params=dict(parameters or {}))
        counted = self.statistics
        counted.read_rows += result.storage_rows_read()
        counted.read_bytes += result.storage_bytes_read()
        counted.written_rows += result.rows_written()
        counted.written_bytes += result.bytes_written()
        counted.result_rows += result.rows_read()
        return bytes(result.bytes())

    def insert(self, insert: sql.Insert, folder: Path) -> Inserter:
        """Begin an insert; its data waits in a nameless file in ``folder``."""
        return Inserter(self, insert, folder)

    @contextlib.contextmanager
    def calling(self) -> Iterator[Any]:
        """The engine's connection, for one call at a time."""
        with self._lock:
            if self._raw is None:
                raise EngineError(
                    "Code: 394. DB::Exception: The connection is closed. (QUERY_WAS_CANCELLED)"
                )
            try:
                yield self._raw
            except RuntimeError as error:
                raise EngineError(str(error)) from error


class Inserter:
    """An insert whose data is arriving: ``append`` bytes, then ``finish`` or ``cancel``.

    The engine can be given data bit by bit, but then it keeps silent about what fails at the end: a
    full disk, a violated constraint, a materialized view. So it gets all of it in one statement.
    """

    def __init__(self, connection: Connection, insert: sql.Insert, folder: Path) -> None:
        self._connection = connection
        self._insert = insert
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - held

    def append(self, data: bytes) -> None:
        """Take bytes; they may end anywhere.

        Raises:
            QueryError: the disk is full.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise QueryError(
                243, "NOT_ENOUGH_SPACE", f"Cannot keep the data of an insert: {error.strerror}."
            ) from error
        self._connection.statistics.read_bytes += len(data)

    def finish(self) -> None:
        """Store it; after this returns the rows are there.

        Raises:
            EngineError: what the engine says; nothing is stored, or some of it, as in ClickHouse.
        """
        with self._file as file:
            counted = self._connection.statistics
            before = counted.written_rows
            self._connection.run(self._insert.from_file(f"/proc/self/fd/{file.fileno()}"))
            counted.read_rows += counted.written_rows - before

    def cancel(self) -> None:
        """Forget it; nothing is stored."""
        self._file.close()
