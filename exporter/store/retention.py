"""Keeps tables within their time and their size.

Time is ClickHouse's to enforce: each table has a TTL, which ``flow-exporter migrate`` brings to
what the configuration says. Size is ours: :class:`SizeKeeper` drops whole partitions, the oldest
first, from a table that exceeds its cap. Any number of collectors may do so at once without a
leader: all read the same partitions, choose the same, and dropping one twice does nothing.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from clickhouse_connect.driver.client import Client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.config import ClickHouse, RetainedTable, Retention
from exporter.store.render import local_name, on_cluster

log = logging.getLogger(__name__)

#: Of these all nodes of a cluster have all rows, under the public name.
_ON_EVERY_NODE: Final = frozenset({"alerts", "incident_evidence"})
#: The time of a row and the days that it is kept by default, as the migrations have it.
_KEPT: Final[dict[RetainedTable, tuple[str, int]]] = {
    "flows": ("toDateTime(time_received)", 30),
    "flows_1m": ("time", 90),
    "flows_1h": ("time", 730),
    "hosts_1h": ("time", 365),
    "networks_1h": ("time", 730),
    "dns_queries": ("toDateTime(time_received)", 90),
    "names_seen": ("time", 90),
    "alerts": ("toDateTime(starts_at)", 0),
    "incident_evidence": ("toDateTime(starts_at)", 0),
}
#: Tables that have, or may have, a TTL, by name.
TTL_TABLES: Final[dict[str, RetainedTable]] = {table: table for table in _KEPT}
_TTL: Final = re.compile(r"\bTTL (?P<time>.+?) \+ toIntervalDay\((?P<days>\d+)\)(?= SETTINGS|$)")
_ANY_TTL: Final = re.compile(r"\bTTL\b")
_CHECK_SECONDS: Final = 300.0
_BYTES: Final = 1_000_000_000


def stored_name(table: RetainedTable, cluster: str) -> str:
    """The table that has the rows of ``table``, on a cluster those of one node."""
    return table if table in _ON_EVERY_NODE else local_name(table, cluster)


def retained_days(table: RetainedTable, settings: ClickHouse) -> int:
    """Days that rows of ``table`` are to be kept; 0: for ever."""
    days = settings.retention.get(table, Retention()).days
    return _KEPT[table][1] if days is None else days


def live_days(engine_full: str) -> int | None:
    """Days of the TTL in ``system.tables.engine_full``; 0: it has none, ``None``: another kind."""
    found = _TTL.search(engine_full)
    if found is not None:
        return int(found["days"])
    return None if _ANY_TTL.search(engine_full) else 0


@dataclass(frozen=True, slots=True)
class Change:
    """A table that is to be kept for another time."""

    table: str
    text: str
    sql: str


def retention_changes(client: Client, settings: ClickHouse) -> list[Change]:
    """What makes the live tables keep their rows for as long as they are to.

    Tables that are not there are left out: they get their TTL when they are made.
    """
    names = {stored_name(table, settings.cluster): table for table in _KEPT}
    rows = client.query(
        "SELECT name, engine_full FROM system.tables "
        "WHERE database = {database:String} AND name IN {names:Array(String)} ORDER BY name",
        {"database": settings.database, "names": list(names)},
    ).result_rows
    where = on_cluster(settings.cluster)
    changes = []
    for name, engine_full in rows:
        table: RetainedTable = names[name]
        days = retained_days(table, settings)
        if live_days(engine_full) == days:
            continue
        ttl = f"MODIFY TTL {_KEPT[table][0]} + INTERVAL {days} DAY DELETE" if days else "REMOVE TTL"
        text = f"rows are kept {f'for {days} days' if days else 'for ever'}"
        changes.append(Change(table, text, f"ALTER TABLE {settings.database}.{name}{where} {ttl}"))
    return changes


@dataclass(frozen=True, slots=True)
class _Partition:
    id: str
    bytes: int
    current: bool


class SizeKeeper(Collector):
    """Drops the oldest partitions of tables beyond their size, from a thread of its own.

    The partition that is written to stays, however large: that of the present, or else the newest.
    One that a wrong clock dated ahead is not it, and goes last: this clock may be the wrong one.
    """

    def __init__(self, settings: ClickHouse, connect: Callable[[], Client]) -> None:
        self._settings = settings
        self._connect = connect
        self._caps: dict[RetainedTable, float] = {
            table: kept.max_gigabytes * _BYTES
            for table, kept in settings.retention.items()
            if kept.max_gigabytes
        }
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._partitions: Counter[str] = Counter(dict.fromkeys(self._caps, 0))
        self._bytes: Counter[str] = Counter(dict.fromkeys(self._caps, 0))
        self._failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Look at the sizes now and every five minutes, if any table has a cap."""
        if self._caps:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; a statement that runs is not waited for."""
        self._stop.set()

    def join(self) -> None:
        """Wait until a look that is under way has ended."""
        if self._caps:
            self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """Sizes of capped tables and what was dropped from them."""
        size = GaugeMetricFamily(
            "flow_exporter_retention_table_bytes",
            "Size on disk of a table that has a cap, at the last look; one replica counts.",
            labels=["table"],
        )
        cap = GaugeMetricFamily(
            "flow_exporter_retention_max_bytes",
            "Size beyond which the oldest partitions of the table are dropped.",
            labels=["table"],
        )
        partitions = CounterMetricFamily(
            "flow_exporter_retention_dropped_partitions",
            "Partitions dropped because their table exceeded its size.",
            labels=["table"],
        )
        dropped = CounterMetricFamily(
            "flow_exporter_retention_dropped_bytes",
            "Size of these partitions.",
            labels=["table"],
        )
        with self._lock:
            for table, limit in self._caps.items():
                cap.add_metric([table], limit)
                partitions.add_metric([table], self._partitions[table])
                dropped.add_metric([table], self._bytes[table])
                if table in self._sizes:
                    size.add_metric([table], self._sizes[table])
            failures = self._failures
        yield from (size, cap, partitions, dropped)
        yield CounterMetricFamily(
            "flow_exporter_retention_failures",
            "Times that sizes could not be asked for or a partition not be dropped.",
            failures,
        )

    def _run(self) -> None:
        while True:
            try:
                with self._connect() as client:
                    self.keep(client)
            except Exception as error:  # clients fail in many ways, and none may end the thread
                with self._lock:
                    self._failures += 1
                log.warning("the sizes of tables could not be kept: %s", error)
            if self._stop.wait(_CHECK_SECONDS):
                return

    def keep(self, client: Client) -> None:
        """Look once at all tables that have a cap."""
        for table, limit in self._caps.items():
            partitions = self._ask(client, table)
            size = sum(partition.bytes for partition in partitions)
            written = next((each for each in partitions if each.current), None)
            staying = written or next(reversed(partitions), None)
            for oldest in partitions:
                if size <= limit:
                    break
                if oldest is staying:
                    continue
                self._drop(client, table, oldest)
                size -= oldest.bytes
            with self._lock:
                self._sizes[table] = size
            if size > limit:
                log.warning(
                    "table %s has %.1f GB in the partition of the present, more than its %.1f GB",
                    table, size / _BYTES, limit / _BYTES,
                )  # fmt: skip

    def _ask(self, client: Client, table: RetainedTable) -> list[_Partition]:
        """Partitions, oldest first: their ids are dates and sort as such."""
        settings = self._settings
        parts = (
            f"cluster('{settings.cluster}', system.parts)" if settings.cluster else "system.parts"
        )
        rows = client.query(  # the pattern of clickhouse.cluster makes the name harmless
            "SELECT partition_id, sum(bytes_on_disk), partition_id IN "  # noqa: S608
            "(toString(toYYYYMMDD(now('UTC'))), toString(toYYYYMM(now('UTC')))) "
            f"FROM {parts} "
            "WHERE active AND database = {database:String} AND table = {table:String} "
            "GROUP BY partition_id ORDER BY partition_id",
            {"database": settings.database, "table": self._name(table)},
        ).result_rows
        return [_Partition(name, size, bool(current)) for name, size, current in rows]

    def _drop(self, client: Client, table: RetainedTable, partition: _Partition) -> None:
        where = on_cluster(self._settings.cluster)
        client.command(
            f"ALTER TABLE {self._settings.database}.{self._name(table)}{where} "
            f"DROP PARTITION ID '{partition.id}'",
            # ClickHouse refuses to drop what is larger than 50 GB unless told so.
            settings={"max_partition_size_to_drop": 0},
        )
        with self._lock:
            self._partitions[table] += 1
            self._bytes[table] += partition.bytes
        log.info(
            "dropped partition %s of %s (%.2f GB): the table exceeded its size",
            partition.id, table, partition.bytes / _BYTES,
        )  # fmt: skip

    def _name(self, table: RetainedTable) -> str:
        return stored_name(table, self._settings.cluster)
