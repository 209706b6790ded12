"""A migrated database in a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from tests.support.store import RunningStore, running_store


@dataclass(frozen=True)
class Database:
    """A store with all tables; ``settings`` are what a collector would have."""

    store: RunningStore
    settings: ClickHouse

    def connect(self) -> Client:
        """A new client of the database."""
        return connect(self.settings)


@contextmanager
def migrated_database() -> Iterator[Database]:
    """A new store with all migrations applied."""
    with running_store() as store:
        settings = ClickHouse(
            url=store.url,
            user=store.user,
            password_file=str(store.data_dir / "writer.password"),
            insert_timeout_seconds=60,
        )
        Migrator(settings, resource("clickhouse/migrations")).apply()
        yield Database(store, settings)


@contextmanager
def emptied(database: Database, *tables: str) -> Iterator[Client]:
    """A client of a database in which these tables are empty."""
    client = database.connect()
    for table in tables:
        client.command(f"TRUNCATE TABLE {table}")
    yield client
    client.close()
