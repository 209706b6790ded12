"""A day of flows as the benchmarks make them, in a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from tests.bench.day import DAY_SECONDS, fill
from tests.support.database import migrated_database


@dataclass(frozen=True)
class StoredDay:
    """``writer`` and ``reader`` of the database; ``end`` is a full hour in seconds since the
    epoch."""

    writer: Client
    reader: Client
    end: int

    @property
    def start(self) -> int:
        """When it begins."""
        return self.end - DAY_SECONDS


@contextmanager
def stored_day(flows: int) -> Iterator[StoredDay]:
    """A new store with that many flows, evenly over a day."""
    with migrated_database() as database:
        name = database.settings.database
        with (
            database.store.client(database=name) as writer,
            database.store.client(reader=True, database=name) as reader,
        ):
            fill(writer, flows)
            last = reader.command("SELECT toUnixTimestamp(max(time_received)) FROM flows")
            yield StoredDay(writer, reader, int(str(last)) // 3600 * 3600 + 3600)
