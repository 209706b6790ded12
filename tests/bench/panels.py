"""How long the dashboards' queries of ClickHouse take: every panel, every variable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.progress import track

from exporter.resources import resource
from tests.bench.day import DAY_SECONDS, Day
from tests.bench.processes import cpu_seconds
from tests.support.grafana import (
    AdHoc,
    Context,
    Value,
    clickhouse_queries,
    clickhouse_variables,
    expand_sql,
    opened_values,
)

#: What 95 of 100 queries may take with 100 million flows a day.
GOAL_MS: Final = 2000.0
RANGES: Final = {"1 h": 3600, "24 h": DAY_SECONDS}
#: What Grafana rounds the length of a bucket to (``rangeUtil.roundInterval``): seconds from which
#: on it is the next one.
_ROUNDED: Final = (
    (90, 60), (210, 120), (450, 300), (750, 600), (1050, 900), (1500, 1200), (2700, 1800),
    (5400, 3600),
)  # fmt: skip
#: Points of a panel, shortest bucket in seconds: as grafana/source sets them.
_POINTS: Final = 360
_SHORTEST: Final = 60
_SLOW_MS: Final = 300.0


@dataclass(frozen=True)
class View:
    """A dashboard in a state in which people look at it: ``how`` they got there."""

    dashboard: str
    how: str = "opened"
    chosen: Mapping[str, Value] = field(default_factory=dict)
    filters: tuple[AdHoc, ...] = ()


@dataclass(frozen=True)
class Asked:
    """The milliseconds that a query took, infinite where it was ended; ``cpu``: seconds that the
    store used meanwhile, ``rows``: those that it read."""

    view: View
    query: str
    span: str
    milliseconds: float
    cpu: float
    rows: int


def views(day: Day) -> list[View]:
    """Every dashboard as it opens, and the ones that are about something, about that."""
    incident: dict[str, Value] = {
        "policy": "host_bits",
        "key": f'policy="host_bits",dst_addr="{day.address}"',
        "since": str((day.end - 1800) * 1000),
    }
    explorer = "flow-explorer"
    return [
        View("flow-home"),
        View("flow-alerts"),
        View(explorer),
        View(explorer, "by destination port", {"dimension": "dst_port"}),
        View(explorer, "by service", {"dimension": "service"}),
        View(explorer, "one address", {"address": day.address, "dimension": "dst_addr"}),
        View(explorer, "one port", {}, (AdHoc("dst_port", "=", "14999"),)),
        View(explorer, "source and port", {"dimension_2": "dst_port"}),
        View(explorer, "distinct sources", {"dimension": "dst_addr", "measure": "unique_src_addr"}),
        View(explorer, "against a day before", {"dimension": "service", "compare": "day"}),
        View("flow-incident", "of a host", incident, (AdHoc("dst_addr", "=", day.address),)),
        View("flow-host", "of a host", {"address": day.address}),
        View("flow-services"),
        View("flow-interfaces"),
        View("flow-dns"),
        View("flow-dns", "of a client", {"address": day.address}),
        View("flow-baselines"),
    ]


def measure(day: Day, only: str = "") -> list[Asked]:
    """Ask everything, one query after the other; ``only``: of dashboards whose name has this."""
    work = [
        (view, span, name, sql)
        for view in views(day)
        if only in view.dashboard
        for span in RANGES
        for name, sql in _queries(view, day, RANGES[span])
    ]
    return [
        Asked(view, name, span, *_ask(day, sql))
        for view, span, name, sql in track(work, "asking the dashboards' queries")
    ]


def _queries(view: View, day: Day, seconds: int) -> Iterator[tuple[str, str]]:
    """Name and SQL of each query of a view, none twice; what it looks at is asked first."""
    dashboard = _dashboard(view.dashboard)
    chosen = {**opened_values(dashboard), **view.chosen}
    filling = clickhouse_variables(dashboard)
    context = Context(day.end - seconds, day.end, _step(seconds), chosen, view.filters)
    if "$looked_at" in filling:
        [[looked_at]] = day.reader.query(expand_sql(filling["$looked_at"], context)).result_rows
        context = replace(context, variables={**chosen, "looked_at": looked_at})
    told = set()
    for name, sql in (clickhouse_queries(dashboard) | filling).items():
        expanded = expand_sql(sql, context)
        if expanded not in told:
            told.add(expanded)
            yield name, expanded


def _dashboard(uid: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resource(f"grafana/dashboards/{uid}.json").read_text())
    return loaded


def _step(seconds: int) -> int:
    """The length of a bucket that Grafana chooses for a range."""
    wanted = seconds / _POINTS
    return max(_SHORTEST, next(to for below, to in _ROUNDED if wanted < below))


def _ask(day: Day, sql: str) -> tuple[float, float, int]:
    """The best of three; a slow one is asked once."""
    best = (float("inf"), 0.0, 0)
    for _ in range(3):
        began, used = time.perf_counter(), cpu_seconds(day.store.pid)
        try:
            result = day.reader.query(sql)
        except ClickHouseError as error:
            if "TIMEOUT" not in str(error) and "MEMORY" not in str(error):
                raise
            return best
        milliseconds = (time.perf_counter() - began) * 1e3
        rows = int(result.summary.get("read_rows", 0))
        best = min(best, (milliseconds, cpu_seconds(day.store.pid) - used, rows))
        if milliseconds > _SLOW_MS:
            break
    return best


def percentile(milliseconds: list[float], share: float) -> float:
    """The least of the values that at least ``share`` of them do not exceed."""
    ordered = sorted(milliseconds)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
