"""Lets one process at a time migrate a database: the lock is a table that only one can create."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.client import (
    REPLICA_ALREADY_EXISTS,
    TABLE_ALREADY_EXISTS,
    StoreError,
    explained,
)
from exporter.store.statements import MigrationError

_TABLE: Final = "schema_migrations_lock"
#: A lock whose owner can no longer be asked is taken over at this age; migrations take seconds.
_STALE_SECONDS: Final = 600
_ASK_AGAIN_SECONDS: Final = 0.2


@contextmanager
def locked(client: Client, settings: ClickHouse, wait_seconds: float) -> Iterator[None]:
    """Holds the lock of the database, in which ``client`` is; the table's comment says who does.

    Raises:
        MigrationError: another process has held it for ``wait_seconds``.
        StoreError: ClickHouse cannot be used.
    """
    deadline = time.monotonic() + wait_seconds
    abandoned: str | None = None
    while not _take(client, settings):
        holder = _holder(client, settings)
        # On a cluster, Keeper knows the lock by its path, whatever the table is renamed to.
        if holder and not settings.cluster and _is_abandoned(holder):
            # Renaming to a name made of the old holder lets only one of several succeed.
            abandoned = f"{_TABLE}_{hashlib.sha256(holder.encode()).hexdigest()[:16]}"
            try:
                with explained(settings):
                    client.command(f"RENAME TABLE {_TABLE} TO {abandoned}")
                continue
            except StoreError:
                abandoned = None
        if time.monotonic() >= deadline:
            sync = " SYNC there" if settings.cluster else ""
            raise MigrationError(
                f"another migration of database {settings.database!r} is running: "
                f"{holder or 'unknown'}. If it is not, DROP TABLE "
                f"{settings.database}.{_TABLE}{sync} and try again."
            )
        time.sleep(_ASK_AGAIN_SECONDS)
    try:
        yield
    finally:
        for table in filter(None, (_TABLE, abandoned)):
            with explained(settings):
                client.command(f"DROP TABLE IF EXISTS {table} SYNC")


def lock_statement(database: str, cluster: str, holder: str) -> str:
    """Makes the lock's table: for one only of all who try, on whichever node they are.

    On a cluster, Keeper has one replica of that name at that path or none.
    """
    engine = "Memory"
    if cluster:
        path = f"/clickhouse/tables/every_node/{database}/{_TABLE}"
        engine = f"ReplicatedMergeTree('{path}', 'lock') ORDER BY held"
    return f"CREATE TABLE {database}.{_TABLE} (held UInt8) ENGINE = {engine} COMMENT '{holder}'"


def _take(client: Client, settings: ClickHouse) -> bool:
    holder = f"{socket.gethostname()} {os.getpid()} {time.time():.0f}".replace("'", "")
    try:
        with explained(settings):
            client.command(lock_statement(settings.database, settings.cluster, holder))
    except StoreError as error:
        if error.code in (TABLE_ALREADY_EXISTS, REPLICA_ALREADY_EXISTS):
            return False
        raise
    return True


def _holder(client: Client, settings: ClickHouse) -> str:
    tables, host = "system.tables", ""
    if settings.cluster:
        tables = f"clusterAllReplicas('{settings.cluster}', system.tables)"
        host = " || ', its lock is on node ' || hostName()"
    with explained(settings):
        rows = client.query(
            f"SELECT comment{host} FROM {tables} "  # noqa: S608
            "WHERE database = {database:String} AND name = {name:String}",
            {"database": settings.database, "name": _TABLE},
        ).result_rows
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
    return age > _STALE_SECONDS
