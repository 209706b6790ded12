"""Every panel that may look at drawn flows weighs what it sums of them, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.explore.drawn import ALL_FLOWS, DRAWN_FLOWS
from tests.bench.day import DAY_SECONDS
from tests.support.dashboards import DASHBOARDS
from tests.support.day import stored_day
from tests.support.grafana import (
    Context,
    Value,
    clickhouse_queries,
    expand_sql,
    opened_values,
    variables,
)

FLOWS = 8_000
#: Each flow is there so often, and one of these is drawn: drawn ones say exactly what all do.
COPIES = 3
STEP = 3600
ESTIMATING = [name for name in DASHBOARDS if "looked_at" in variables(DASHBOARDS[name])]
#: What drawn flows do not tell.
NOT_TOLD = {"Sources", "Destinations"}


@dataclass(frozen=True)
class Copied:
    """A day of such flows up to ``end``, and the host that sends most of them."""

    reader: Client
    end: int
    host: str


@pytest.fixture(scope="module")
def copied() -> Iterator[Copied]:
    with stored_day(FLOWS) as day:
        day.writer.command(
            "CREATE TABLE once ENGINE = MergeTree ORDER BY () AS SELECT * FROM flows"
        )
        day.writer.command("TRUNCATE TABLE flows")
        for draw in (COPIES, *[0] * (COPIES - 1)):
            day.writer.command(
                f"INSERT INTO flows (* EXCEPT draw, draw) SELECT *, {draw} FROM once"
                " SETTINGS insert_deduplicate = 0"
            )
        host = day.reader.command(
            "SELECT replaceOne(toString(topK(1)(src_addr)[1]), '::ffff:', '') FROM flows"
        )
        yield Copied(day.reader, day.end, str(host))


@pytest.mark.parametrize(
    "chosen",
    [
        {"measure": "packets_per_second", "dimension": "dst_port", "address": "10.0.0.0/8",
         "compare": "day"},
        {"measure": "share_of_total", "dimension": "src_addr", "dimension_2": "dst_port",
         "condition": "bytes > 100", "pinned": "192.0.2.1"},
    ],
    ids=["packets", "share"],
)  # fmt: skip
@pytest.mark.parametrize("name", ESTIMATING)
def test_panels_say_the_same_of_drawn_flows(
    copied: Copied, name: str, chosen: dict[str, Value]
) -> None:
    dashboard = DASHBOARDS[name]
    values = opened_values(dashboard) | {"condition": "", "host": copied.host} | chosen
    for panel, sql in clickhouse_queries(dashboard).items():
        some, every = (
            list(copied.reader.query(expand_sql(sql, context)).named_results())
            for context in (
                Context(copied.end - DAY_SECONDS, copied.end, STEP, values | {"looked_at": each})
                for each in (DRAWN_FLOWS, ALL_FLOWS)
            )
        )
        assert len(some) == len(every), panel
        for of_drawn, of_all in zip(some, every, strict=True):
            assert told(of_drawn) == near(told(of_all)), panel


def told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in NOT_TOLD}


def near(row: dict[str, Any]) -> dict[str, Any]:
    """The same where numbers need not be equal to the last digit: sums come in any order."""
    return {
        name: pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value
        for name, value in row.items()
    }
