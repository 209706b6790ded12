"""Brings a database to the schema of ``clickhouse/migrations``.

Each file ``NNNN_name.sql`` is applied once, in the order of the numbers, and recorded with a
checksum in the table ``schema_migrations``. Table names in the files are unqualified: the
connection's database gives them their place. Each statement may be run again safely, so a
migration that broke off half-way is simply run again.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.client import TABLE_ALREADY_EXISTS, StoreError, connect, explain

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LOCK: Final = "schema_migrations_lock"
#: A lock whose owner can no longer be asked is taken over at this age; migrations take seconds.
_LOCK_STALE_SECONDS: Final = 600

_SCHEMA_MIGRATIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    version    UInt32 COMMENT 'Number of the migration.',
    name       String COMMENT 'Its name.',
    checksum   String COMMENT 'SHA-256 of its text.',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied.'
)
ENGINE = MergeTree
ORDER BY version
COMMENT 'Migrations that this database has.'
"""


class MigrationError(Exception):
    """The database was not, or not fully, migrated; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and the line of its file where it begins."""

    line: int
    sql: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``clickhouse/migrations``."""

    version: int
    name: str
    path: Path
    checksum: str
    statements: tuple[Statement, ...]


def load_migrations(folder: Path) -> list[Migration]:
    """All migrations of a folder, in order.

    Raises:
        MigrationError: a name is wrong, a number is missing or taken twice, a file is unreadable.
    """
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path}: migrations are named NNNN_name.sql")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MigrationError(f"{path}: {error}") from error
        try:
            statements = tuple(split_statements(text))
        except ValueError as error:
            raise MigrationError(f"{path}: {error}") from error
        checksum = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(int(match[1]), match[2], path, checksum, statements))
    for expected, migration in enumerate(migrations, 1):
        if migration.version != expected:
            raise MigrationError(f"{migration.path}: expected number {expected:04d} here")
    return migrations


_TOKEN: Final = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`|;|['"`]|/\*""",
    re.DOTALL,
)


def split_statements(text: str) -> Iterator[Statement]:
    """The statements of a file, which semicolons end; those in quotes and comments do not.

    Comments between statements belong to the following one and are kept: the server's query log
    then shows them.

    Raises:
        ValueError: a quote or a comment is not closed.
    """
    begin = 0
    bare = ""  # the statement without comments and quotes: tells whether there is one at all
    after = 0
    for token in _TOKEN.finditer(text):
        bare += text[after : token.start()]
        after = token.end()
        if token[0] in ("'", '"', "`", "/*"):
            raise ValueError(f"line {_line(text, token.start())}: {token[0]} is not closed")
        if token[0] == ";":
            if bare.strip():
                yield _statement(text, begin, token.start())
            begin, bare = token.end(), ""
    if (bare + text[after:]).strip():
        yield _statement(text, begin, len(text))


def _statement(text: str, begin: int, end: int) -> Statement:
    code = begin
    while match := re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL).match(text, code, end):
        code = match.end()
    return Statement(_line(text, code), text[begin:end].strip())


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


class Migrator:
    """Applies migrations to one database, which it creates where it is missing."""

    def __init__(self, settings: ClickHouse, folder: Path) -> None:
        self._settings = settings
        self._migrations = load_migrations(folder)

    def pending(self) -> list[Migration]:
        """What :meth:`apply` would apply. Changes nothing.

        Raises:
            MigrationError: what is applied and what the folder holds do not fit together.
            StoreError: ClickHouse cannot be used.
        """
        client = connect(self._settings, database="")
        try:
            return self._pending(client)
        finally:
            client.close()

    def apply(self, wait_seconds: float = 30.0) -> list[Migration]:
        """Applies what is pending, and returns it. Two at once: the second waits for the first.

        Raises:
            MigrationError: as :meth:`pending`; a statement failed; another one holds the lock.
            StoreError: ClickHouse cannot be used.
        """
        client = connect(self._settings, database="")
        try:
            if not self._pending(client):
                return []
            self._command(client, f"CREATE DATABASE IF NOT EXISTS {self._settings.database}")
            client.database = self._settings.database
            with self._lock(client, wait_seconds):
                self._command(client, _SCHEMA_MIGRATIONS)
                pending = self._pending(client)
                for migration in pending:
                    self._apply(client, migration)
                return pending
        finally:
            client.close()

    def _pending(self, client: Client) -> list[Migration]:
        applied = self._applied(client)
        known = {migration.version: migration for migration in self._migrations}
        for version, (name, checksum) in sorted(applied.items()):
            migration = known.get(version)
            if migration is None:
                raise MigrationError(
                    f"database {self._settings.database!r} has migration {version:04d}_{name}, "
                    "which this version does not know: a newer flow-exporter migrated it. "
                    "Upgrade flow-exporter."
                )
            if migration.checksum != checksum:
                raise MigrationError(
                    f"{migration.path}: was changed after it had been applied to database "
                    f"{self._settings.database!r}. Restore the file and put the change into a "
                    "new migration."
                )
        return [m for m in self._migrations if m.version not in applied]

    def _applied(self, client: Client) -> dict[int, tuple[str, str]]:
        parameters = {"database": self._settings.database}
        tables = self._query(
            client,
            "SELECT name FROM system.tables "
            "WHERE database = {database:String} AND name = 'schema_migrations'",
            parameters,
        )
        if not tables:
            return {}
        rows = self._query(
            client,
            "SELECT version, name, checksum FROM {database:Identifier}.schema_migrations",
            parameters,
        )
        return {version: (name, checksum) for version, name, checksum in rows}

    def _apply(self, client: Client, migration: Migration) -> None:
        for number, statement in enumerate(migration.statements, 1):
            try:
                self._command(client, statement.sql)
            except StoreError as error:
                raise MigrationError(
                    f"{migration.path}:{statement.line}: statement {number} of "
                    f"{len(migration.statements)} failed: {error}"
                ) from error
        self._command(
            client,
            "INSERT INTO schema_migrations (version, name, checksum) "
            "SELECT {version:UInt32}, {name:String}, {checksum:String}",
            {
                "version": migration.version,
                "name": migration.name,
                "checksum": migration.checksum,
            },
        )

    def _command(
        self, client: Client, sql: str, parameters: dict[str, str | int] | None = None
    ) -> None:
        try:
            client.command(sql, parameters)
        except Exception as error:
            raise explain(error, self._settings) from error

    def _query(self, client: Client, sql: str, parameters: dict[str, str]) -> Sequence[Any]:
        try:
            return client.query(sql, parameters).result_rows
        except Exception as error:
            raise explain(error, self._settings) from error

    @contextmanager
    def _lock(self, client: Client, wait_seconds: float) -> Iterator[None]:
        """Holds the lock: a table that only one can create; its comment names the holder."""
        deadline = time.monotonic() + wait_seconds
        abandoned: str | None = None
        while not self._take_lock(client):
            holder = self._lock_holder(client)
            if holder and _is_abandoned(holder):
                # Renaming to a name made of the old holder lets only one of several succeed.
                digest = hashlib.sha256(holder.encode()).hexdigest()[:16]
                abandoned = f"{_LOCK}_{digest}"
                try:
                    self._command(client, f"RENAME TABLE {_LOCK} TO {abandoned}")
                    continue
                except StoreError:
                    abandoned = None
            if time.monotonic() >= deadline:
                raise MigrationError(
                    f"another migration of database {self._settings.database!r} is running: "
                    f"{holder or 'unknown'}. If it is not, DROP TABLE "
                    f"{self._settings.database}.{_LOCK} and try again."
                )
            time.sleep(0.2)
        try:
            yield
        finally:
            for table in filter(None, (_LOCK, abandoned)):
                self._command(client, f"DROP TABLE IF EXISTS {table}")

    def _take_lock(self, client: Client) -> bool:
        holder = f"{socket.gethostname()} {os.getpid()} {time.time():.0f}".replace("'", "")
        try:
            self._command(
                client, f"CREATE TABLE {_LOCK} (held UInt8) ENGINE = Memory COMMENT '{holder}'"
            )
        except StoreError as error:
            if error.code == TABLE_ALREADY_EXISTS:
                return False
            raise
        return True

    def _lock_holder(self, client: Client) -> str:
        rows = self._query(
            client,
            "SELECT comment FROM system.tables "
            "WHERE database = {database:String} AND name = {name:String}",
            {"database": self._settings.database, "name": _LOCK},
        )
        return str(rows[0][0]) if rows else ""


def _is_abandoned(holder: str) -> bool:
    """Whether the process that wrote ``host pid seconds`` is surely gone."""
    try:
        host, pid, since = holder.split(" ")
        age = time.time() - float(since)
        if host == socket.gethostname():
            os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, PermissionError, OverflowError):
        return False
    return age > _LOCK_STALE_SECONDS
