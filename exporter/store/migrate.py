"""Brings a database to the schema of ``clickhouse/migrations``.

Each file ``NNNN_name.sql`` is applied once, in the order of the numbers, and recorded with a
checksum in the table ``schema_migrations``. Table names in the files are unqualified: the
connection's database gives them their place. Each statement may be run again safely, so a
migration that broke off half-way is simply run again, and all of them when a node was replaced.
How they are run on a cluster: :mod:`exporter.store.render`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.client import StoreError, connect, explained
from exporter.store.migration_lock import locked
from exporter.store.render import keeper_path, on_cluster, render
from exporter.store.retention import Change, retention_changes
from exporter.store.statements import Migration, MigrationError, load_migrations

_SCHEMA_MIGRATIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations{cluster}
(
    version    UInt32 COMMENT 'Number of the migration.',
    name       String COMMENT 'Its name.',
    checksum   String COMMENT 'SHA-256 of its text.',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied.'
)
ENGINE = {engine}
ORDER BY version
COMMENT 'Migrations that this database has.'
"""


class Migrator:
    """Applies migrations to one database, which it creates where it is missing."""

    def __init__(self, settings: ClickHouse, folder: Path) -> None:
        self._settings = settings
        self._database = settings.database
        self._on_cluster = on_cluster(settings.cluster)
        self._migrations = render(load_migrations(folder), settings.database, settings.cluster)

    @property
    def migrations(self) -> list[Migration]:
        """All migrations, as they are run on this database."""
        return self._migrations

    def pending(self) -> list[Migration]:
        """What :meth:`apply` would apply. Changes nothing.

        Raises:
            MigrationError: what is applied and what the folder holds do not fit together.
            StoreError: ClickHouse cannot be used.
        """
        with connect(self._settings, database="") as client:
            return self._pending(client)

    def apply(self, wait_seconds: float = 30.0, *, again: bool = False) -> list[Migration]:
        """Applies what is pending, and returns it. Two at once: the second waits for the first.

        With ``again`` it runs all of them, which makes what is missing and changes nothing else.

        Raises:
            MigrationError: as :meth:`pending`; a statement failed; another one holds the lock.
            StoreError: ClickHouse cannot be used.
        """
        with connect(self._settings, database="") as client:
            if not self._pending(client) and not again:
                return []
            self._command(
                client, f"CREATE DATABASE IF NOT EXISTS {self._database}{self._on_cluster}"
            )
            client.database = self._database
            with locked(client, self._settings, wait_seconds):
                self._command(client, self._schema_migrations())
                pending = self._pending(client)
                for migration in self._migrations if again else pending:
                    self._run(client, migration)
                    if migration in pending:
                        self._record(client, migration)
                return self._migrations if again else pending

    def retention(self) -> list[Change]:
        """What :meth:`set_retention` would change. Changes nothing.

        Raises:
            StoreError: ClickHouse cannot be used.
        """
        with connect(self._settings, database="") as client:
            return self._retention(client)

    def set_retention(self) -> list[Change]:
        """Gives each table the time that its rows are kept; returns what had to be changed.

        Raises:
            StoreError: ClickHouse cannot be used.
        """
        with connect(self._settings, database="") as client:
            changes = self._retention(client)
            for change in changes:
                self._command(client, change.sql)
            return changes

    def _retention(self, client: Client) -> list[Change]:
        with explained(self._settings):
            return retention_changes(client, self._settings)

    def _schema_migrations(self) -> str:
        if not self._settings.cluster:
            return _SCHEMA_MIGRATIONS.format(cluster="", engine="MergeTree")
        path = keeper_path(self._database, "schema_migrations", every_node=True)
        return _SCHEMA_MIGRATIONS.format(
            cluster=self._on_cluster, engine=f"ReplicatedMergeTree({path})"
        )

    def _pending(self, client: Client) -> list[Migration]:
        applied = self._applied(client)
        known = {migration.version: migration for migration in self._migrations}
        for version, (name, checksum) in sorted(applied.items()):
            migration = known.get(version)
            if migration is None:
                raise MigrationError(
                    f"database {self._database!r} has migration {version:04d}_{name}, "
                    "which this version does not know: a newer flow-exporter migrated it. "
                    "Upgrade flow-exporter."
                )
            if migration.checksum != checksum:
                raise MigrationError(
                    f"{migration.path}: was changed after it had been applied to database "
                    f"{self._database!r}. If you changed it, restore the file and put the change "
                    "into a new migration. If a version before the first release made the "
                    "database, it cannot be upgraded: name another in clickhouse.database, or "
                    "drop it."
                )
        return [m for m in self._migrations if m.version not in applied]

    def _applied(self, client: Client) -> dict[int, tuple[str, str]]:
        parameters = {"database": self._database}
        tables = self._query(
            client,
            "SELECT engine FROM system.tables "
            "WHERE database = {database:String} AND name = 'schema_migrations'",
            parameters,
        )
        if not tables:
            return {}
        replicated = str(tables[0][0]).startswith("Replicated")
        if replicated != bool(self._settings.cluster):
            raise MigrationError(
                f"database {self._database!r} was made for "
                f"{'a cluster' if replicated else 'one node'}, but clickhouse.cluster is "
                f"{self._settings.cluster or 'empty'}: use another database "
                "(docs/how-to/move-to-a-cluster.md says how to bring the rows over)."
            )
        rows = self._query(
            client,
            "SELECT version, name, checksum FROM {database:Identifier}.schema_migrations",
            parameters,
        )
        return {version: (name, checksum) for version, name, checksum in rows}

    def _run(self, client: Client, migration: Migration) -> None:
        for number, statement in enumerate(migration.statements, 1):
            try:
                self._command(client, statement.sql)
            except StoreError as error:
                raise MigrationError(
                    f"{migration.path}:{statement.line}: statement {number} of "
                    f"{len(migration.statements)} failed: {error}"
                ) from error

    def _record(self, client: Client, migration: Migration) -> None:
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
        with explained(self._settings):
            client.command(sql, parameters)

    def _query(self, client: Client, sql: str, parameters: dict[str, str]) -> Sequence[Any]:
        with explained(self._settings):
            return client.query(sql, parameters).result_rows
