"""The Data Explorer about times whose flows are gone: rollups tell what they still hold."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from clickhouse_connect.driver.client import Client
from typer.testing import CliRunner, Result

from exporter.cli import app
from exporter.explore.ask import Asked, looks_at
from exporter.explore.drawn import ALL_FLOWS, HOURLY_ROLLUPS, NO_FLOWS_BEFORE, ROLLUPS
from tests.support.dashboards import DASHBOARDS, defaults
from tests.support.database import migrated_database
from tests.support.grafana import (
    Context,
    Value,
    clickhouse_queries,
    clickhouse_variables,
    expand_sql,
    tables_read,
)

DAY: Final = 86400
#: The hour that flows are kept of, and how long before it there are others.
END: Final = int(time.time()) // 3600 * 3600
WEEK, LONG_AGO, LONGEST_AGO = 7 * DAY, 60 * DAY, 200 * DAY
EXPLORER: Final = "flow-explorer"
TABLE: Final = "Keys in numbers"
SERIES: Final = "Top ${top} by ${dimension:text}: ${measure:text}"
ALL: Final = "All flows that match"

#: Each minute of an hour a flow of each of two hosts.
_FLOWS = """
INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, source, sampling_rate,
  bytes, packets, src_addr, dst_addr, etype, proto, src_port, dst_port, in_if, out_if, src_host,
  service, src_network)
SELECT t, t, t, 'r1', 'ipfix', 1, if(host = 1, 1000, 3000) + intDiv(number, 2), 10,
  toIPv6('10.0.0.' || toString(host)), toIPv6('10.1.0.1'), 2048, if(host = 1, 6, 17), 40000, 443,
  1, 2, 'k' || toString(host), 'web', 'lab'
FROM (SELECT number, 1 + number % 2 AS host,
        toDateTime64({start} + intDiv(number, 2) * 60, 3, 'UTC') AS t FROM numbers(120))
"""

Keys = dict[tuple[str, ...], tuple[float, ...]]


@dataclass
class Past:
    """A store; ``before`` is what was told of questions while all flows were there."""

    config: Path
    client: Client
    before: dict[tuple[Any, ...], Keys] = field(default_factory=dict)


#: What is asked: how long before the hour, its minutes, dimensions. Those of hosts and networks
#: have whole hours.
ASKED: Final = [
    *((ago, (0, 60), by) for ago in (LONG_AGO, LONGEST_AGO) for by in (
        ("proto",), ("service",), ("device", "out_if"), ("src_addr",), ("src_network",),
    )),
    (LONG_AGO, (20, 40), ("proto",)),
]  # fmt: skip


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def explore(config: Path, ago: int, minutes: tuple[int, int], *arguments: str) -> Result:
    start = END - 3600 - ago
    first, past = (moment(start + minute * 60) for minute in minutes)
    told = ["explore", "--config", str(config), "--from", first, "--to", past, *arguments]
    return CliRunner().invoke(app, told)


def answer(
    config: Path, ago: int, minutes: tuple[int, int], by: tuple[str, ...]
) -> tuple[str, Keys]:
    """What was looked at, and of each key the total and, of so many minutes, its values."""
    run = explore(config, ago, minutes, "--json", *(each for name in by for each in ("--by", name)))
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    return told["looked_at"], {
        (*key["key"], key["name"]): (
            key["total"], *(key["values"] if told["step_seconds"] == 60 else ())
        )
        for key in told["keys"]
    }  # fmt: skip


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with migrated_database() as database, database.store.client(database="flow") as client:
        file = tmp_path_factory.mktemp("explore") / "flow-exporter.yaml"
        settings = database.settings
        names = ("url", "user", "password_file")
        clickhouse = {name: getattr(settings, name) for name in names}
        file.write_text(yaml.safe_dump({"clickhouse": clickhouse}))
        client.command("SYSTEM STOP TTL MERGES")
        made = Past(file, client)
        for ago in (0, WEEK, LONG_AGO, LONGEST_AGO):
            client.command(_FLOWS.format(start=END - 3600 - ago))
        made.before = {asked: answer(file, *asked)[1] for asked in ASKED}
        for ago in (WEEK, LONG_AGO, LONGEST_AGO):
            day = datetime.fromtimestamp(END - 3600 - ago, UTC).strftime("%Y%m%d")
            client.command(f"ALTER TABLE flows DROP PARTITION ID '{day}'")
            if ago == LONGEST_AGO:
                client.command(f"ALTER TABLE flows_1m DROP PARTITION ID '{day}'")
        yield made


@pytest.mark.parametrize(("ago", "minutes", "by"), ASKED)
def test_an_hour_whose_flows_are_gone_is_answered_by_rollups(
    past: Past, ago: int, minutes: tuple[int, int], by: tuple[str, ...]
) -> None:
    looked_at, keys = answer(past.config, ago, minutes, by)
    by_hour = ago == LONGEST_AGO or by[0] in ("src_addr", "src_network")
    rollups = HOURLY_ROLLUPS if by_hour else ROLLUPS
    assert (
        looked_at == f"{rollups}{NO_FLOWS_BEFORE}{datetime.fromtimestamp(END - 3600, UTC):%F %H:%M}"
    )
    before = past.before[ago, minutes, by]
    assert {key: told[0] for key, told in keys.items()} == {
        key: told[0] for key, told in before.items()
    }
    if not by_hour:
        assert keys == before, "in each minute, too"


def test_it_says_so(past: Past) -> None:
    run = explore(past.config, LONG_AGO, (0, 60), "--by", "proto")
    assert "UDP" in run.stdout
    assert f"from rollups: flows before {moment(END - 3600)[:10]}" in run.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--by", "dst_port"), ("--by", "proto", "--address", "10.0.0.1"), ("--where", "proto = 6")],
)
def test_what_no_rollup_can_answer_is_told_to_be_gone(
    past: Past, arguments: tuple[str, ...]
) -> None:
    run = explore(past.config, LONG_AGO, (0, 60), *arguments)
    assert run.exit_code == 0
    assert "no flows match" in run.stderr
    kept = f"no flows before {moment(END - 3600)[:10]}"
    assert kept in run.stderr
    assert "are kept, and no rollup answers this" in run.stderr


def test_where_flows_are_they_answer_whatever_rollups_hold_before(past: Past) -> None:
    looked_at, keys = answer(past.config, 0, (20, 40), ("src_addr",))
    assert looked_at == ALL_FLOWS
    assert len(keys["10.0.0.1", "k1"]) == 1 + 20


def test_an_earlier_range_is_compared_though_its_flows_are_gone(past: Past) -> None:
    run = explore(past.config, 0, (0, 60), "--by", "proto", "--compare", "week", "--json")
    for key in json.loads(run.stdout)["keys"]:
        assert key["earlier"] == key["total"] > 0


def told_of(client: Client, start: int, by: str) -> str:
    """What is looked at from ``start`` on, by a question of :mod:`exporter.explore.ask`."""
    return looks_at(client, Asked(start=start, end=END, by=(by,)))


def test_on_a_new_installation_no_flows_are_gone() -> None:
    dimensions = ("src_addr", "proto", "dst_port")
    with migrated_database() as database, database.store.client(database="flow") as client:
        for by in dimensions:
            assert told_of(client, END - 3 * 3600, by) == ALL_FLOWS
        # They began before the first reception.
        client.command(_FLOWS.format(start=END - 3600).replace("t, t, t,", "t, t - 1800, t,"))
        [[first]] = client.query("SELECT toUnixTimestamp(min(time)) FROM flows_1h").result_rows
        assert first == END - 2 * 3600
        for by in dimensions:
            assert told_of(client, END - 3 * 3600, by) == ALL_FLOWS


def looked_at(past: Past, start: int, end: int, **chosen: Value) -> str:
    context = Context(start, end, 60, defaults(EXPLORER) | chosen)
    sql = clickhouse_variables(DASHBOARDS[EXPLORER])["$looked_at"]
    [[said]] = past.client.query(expand_sql(sql, context)).result_rows
    return str(said)


@pytest.mark.parametrize(
    ("ago", "dimension", "table"),
    [
        (LONG_AGO, "proto", "flows_1m"),
        (LONG_AGO, "src_addr", "hosts_1h"),
        (LONGEST_AGO, "proto", "flows_1h"),
        (LONGEST_AGO, "src_network", "networks_1h"),
    ],
)
def test_dashboards_read_the_rollup_that_has_it(
    past: Past, ago: int, dimension: str, table: str
) -> None:
    end = END - ago
    said = looked_at(past, end - 3600, end, dimension=dimension)
    assert said.startswith(f"{ROLLUPS if table == 'flows_1m' else HOURLY_ROLLUPS},")
    chosen = defaults(EXPLORER) | {"dimension": dimension, "looked_at": said}
    context = Context(end - 3600, end, 60, chosen)
    queries = {
        name: expand_sql(sql, context)
        for name, sql in clickhouse_queries(DASHBOARDS[EXPLORER]).items()
    }
    for title in (TABLE, SERIES):
        plan = past.client.query(f"EXPLAIN {queries[f'{title}/A']}").result_rows
        assert tables_read("\n".join(row[0] for row in plan)) == {table}
    rows = list(past.client.query(queries[f"{TABLE}/A"]).named_results())
    before = past.before[ago, (0, 60), (dimension,)]
    assert sorted(row["Total"] for row in rows) == sorted(told[0] for told in before.values())
    [whole] = past.client.query(queries[f"{ALL}/A"]).named_results()
    assert whole["Flows"] == 120
    assert whole["Sources"] == 2
    series = past.client.query(queries[f"{SERIES}/A"]).result_rows
    told = {name for _, name, _ in series}
    assert len(series) == len(told) * (60 if table == "flows_1m" else 1)


def test_dashboards_say_that_flows_are_gone(past: Past) -> None:
    end = END - LONG_AGO
    said = looked_at(past, end - 3600, end, dimension="dst_port")
    assert said.startswith(ALL_FLOWS + NO_FLOWS_BEFORE)
    assert looked_at(past, END - 3600, END, dimension="dst_port") == ALL_FLOWS
    keys = clickhouse_variables(DASHBOARDS[EXPLORER])["$key"]
    chosen = {
        "dimension": "proto",
        "looked_at": looked_at(past, end - 3600, end, dimension="proto"),
    }
    context = Context(end - 3600, end, 1, defaults(EXPLORER) | chosen)
    assert past.client.query(expand_sql(keys, context)).result_rows == [("UDP",), ("TCP",)]
