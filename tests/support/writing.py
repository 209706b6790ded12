"""What tests of the writer share: a database of their own, totals as sent and as stored."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from clickhouse_connect.driver.exceptions import OperationalError
from prometheus_client import CollectorRegistry

from exporter.batch import FlowBatch
from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from exporter.store.writer import Writer
from tests.support.store import RunningStore


def settings_for(store: RunningStore, **changes: object) -> ClickHouse:
    values: dict[str, object] = {
        "url": store.url,
        "user": store.user,
        "password_file": str(store.data_dir / "writer.password"),
        "database": f"writer_{uuid.uuid4().hex[:8]}",
        "batch_rows": 1000,
        "batch_seconds": 0.2,
        "insert_timeout_seconds": 60,
    }
    return ClickHouse.model_validate(values | changes)


@contextmanager
def migrated(store: RunningStore, **changes: object) -> Iterator[ClickHouse]:
    """A migrated database of its own."""
    settings = settings_for(store, **changes)
    Migrator(settings, resource("clickhouse/migrations")).apply()
    yield settings
    with store.client() as client:
        client.command(f"DROP DATABASE IF EXISTS {settings.database} SYNC")


def sums(settings: ClickHouse, table: str = "flows") -> tuple[int, int, int]:
    """Bytes, packets and flows as stored."""
    flows = "count()" if table == "flows" else "sum(flows)"
    with connect(settings) as client:
        row = client.query(f"SELECT sum(bytes), sum(packets), {flows} FROM {table}").first_row
    assert row is not None
    return row[0], row[1], row[2]


def total(*batches: FlowBatch) -> tuple[int, int, int]:
    """The same as sent."""
    return (
        sum(int(batch.array("bytes").sum()) for batch in batches),
        sum(int(batch.array("packets").sum()) for batch in batches),
        sum(map(len, batches)),
    )


class LostAnswers:
    """A client whose first answers are lost, after ClickHouse has taken the rows."""

    def __init__(self, settings: ClickHouse, lost: int = 0) -> None:
        self._client = connect(settings)
        self._lost = lost

    def raw_insert(self, *arguments: object, **options: object) -> None:
        self._client.raw_insert(*arguments, **options)
        if self._lost:
            self._lost -= 1
            raise OperationalError("connection reset while waiting for the answer")

    def close(self) -> None:
        self._client.close()


def metric(writer: Writer, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(writer.stats)
    registry.register(writer.spool_stats)
    if not name.startswith(("spool_", "quarantine")):
        name = f"insert_{name}"
    if name == "insert_rows_total":
        labels = {"table": "flows"} | labels
    return registry.get_sample_value(f"flow_exporter_{name}", labels)
