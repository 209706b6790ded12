"""The committed dashboards, and a store in which all of their panels find something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.migrate import Migrator
from tests.support.dashboard_flows import END, START, fill
from tests.support.grafana import (
    AdHoc,
    Context,
    Value,
    clickhouse_queries,
    expand_sql,
    opened_values,
)
from tests.support.store import running_store

ROOT: Final = Path(__file__).parents[2]
DASHBOARDS: Final[dict[str, dict[str, Any]]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
}

#: Titles of the Data Explorer's panels.
SERIES: Final = "Top ${top} by ${dimension:text}: ${measure:text}"
TABLE: Final = "Keys in numbers"
ALL: Final = "All flows that match"

#: Values that try to end a string, to comment the rest out, to be a format, a macro or a pattern.
HOSTILE: Final = (
    "' OR 1=1 --",
    "\\' OR 1=1 --",
    "\\",
    "'); DROP TABLE flows; --",
    '" OR ""="',
    "`x`",
    "*/ OR 1=1 /*",
    "$__timeFilter(time_received)",
    "${device:raw}",
    "{a:String}",
    "%27 OR 1=1 --",
    "\x00\n;",
    "käse ✓",
)

#: What a link sets on a dashboard that is about one thing.
_OPENED_BY: Final[dict[str, dict[str, Value]]] = {
    "flow-incident": {
        "policy": "host_bits",
        "key": 'policy="host_bits",dst_addr="10.1.0.1",dst_host="ag04"',
        "since": str((START + 1900) * 1000),
    },
}


def defaults(uid: str) -> dict[str, Value]:
    """What a dashboard's variables hold when it is opened."""
    return opened_values(DASHBOARDS[uid]) | _OPENED_BY.get(uid, {})


def queries(uid: str) -> dict[str, str]:
    """SQL of a dashboard's panels by "title/refId"."""
    return clickhouse_queries(DASHBOARDS[uid])


def ask(
    client: Client,
    uid: str,
    title: str,
    *,
    filters: tuple[AdHoc, ...] = (),
    end: int = END,
    start: int = START,
    ref: str = "A",
    **chosen: Value,
) -> list[dict[str, Any]]:
    """The rows that a panel's query gives with these variables."""
    [sql] = [text for name, text in queries(uid).items() if name == f"{title}/{ref}"]
    context = Context(start, end, 60, defaults(uid) | chosen, filters)
    return list(client.query(expand_sql(sql, context)).named_results())


def names_of(rows: list[dict[str, Any]]) -> set[str]:
    """The column ``series`` of a time series."""
    return {row["series"] for row in rows}


@contextmanager
def filled_store() -> Iterator[Client]:
    """The store with the hour of ``dashboard_flows``, as the user that Grafana is."""
    with running_store() as store:
        password = store.data_dir / "writer.password"
        Migrator(
            ClickHouse(url=store.url, password_file=str(password)), ROOT / "clickhouse/migrations"
        ).apply()
        with store.client(database="flow") as writer:
            fill(writer)
        with store.client(reader=True, database="flow") as client:
            yield client
