"""Drawn flows as they stand for all in the Data Explorer: which questions, and with what sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.explore import drawn
from exporter.explore.ask import Asked, ask, looks_at
from exporter.explore.drawn import ALL_FLOWS, DRAWN_FLOWS, ENOUGH, FEW_FLOWS
from exporter.explore.flows import summary_query
from exporter.explore.series import absent_series_query, series_query
from exporter.explore.table import table_query
from grafana.source.explorer import ONE_KEY, QUESTION
from tests.bench.day import DAY_SECONDS
from tests.support.dashboards import DASHBOARDS
from tests.support.day import stored_day
from tests.support.grafana import (
    AdHoc,
    Context,
    Value,
    clickhouse_queries,
    expand_sql,
    opened_values,
    variables,
)

FLOWS = 60_000
STEP = 3600
EXPLORER = DASHBOARDS["flow-explorer"]
LOOKED_AT = variables(EXPLORER)["looked_at"]["query"]["rawSql"]


@dataclass(frozen=True)
class Day:
    """A day of flows in a store, up to ``end``."""

    reader: Client
    end: int

    def context(self, seconds: int = DAY_SECONDS, **chosen: Value) -> Context:
        """The Data Explorer over the last seconds of the day."""
        values = opened_values(EXPLORER) | chosen
        return Context(self.end - seconds, self.end, STEP, values)

    def rows(self, sql: str, context: Context) -> list[dict[str, Any]]:
        """What a query of it answers."""
        return list(self.reader.query(expand_sql(sql, context)).named_results())

    def looked_at(self, context: Context) -> str:
        """What the variable fills itself with."""
        # Grafana tells queries of variables no length of buckets: the plugin says 1.
        [row] = self.rows(LOOKED_AT, replace(context, interval=1))
        return str(row["looked_at"])


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    with stored_day(FLOWS) as stored:
        yield Day(stored.reader, stored.end)


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand drawn flows are enough."""
    text = LOOKED_AT.replace(str(drawn.ENOUGH), "1000")
    assert text != LOOKED_AT
    monkeypatch.setattr(f"{__name__}.LOOKED_AT", text)
    monkeypatch.setattr(drawn, "ENOUGH", 1000)


@pytest.mark.usefixtures("enough")
def test_many_flows_over_a_long_range_are_estimated_unless_somebody_wants_them_exactly(
    day: Day,
) -> None:
    by_port = {"dimension": "dst_port"}
    assert day.looked_at(day.context(**by_port)) == DRAWN_FLOWS
    assert day.looked_at(day.context(**by_port, precision="exact")) == ALL_FLOWS
    assert day.looked_at(day.context(11 * 3600, **by_port)) == ALL_FLOWS
    assert day.looked_at(day.context(**by_port, measure="unique_src_port")) == ALL_FLOWS
    assert day.looked_at(day.context(dimension="proto")) == ALL_FLOWS, "a rollup answers"
    assert day.looked_at(day.context(dimension="src_addr")) == ALL_FLOWS, "one by the hour"


def test_few_flows_are_all_looked_at(day: Day) -> None:
    for chosen in ({}, {"precision": "exact"}, {"measure": "unique_src_port"}):
        assert day.looked_at(day.context(dimension="dst_port", **chosen)) == FEW_FLOWS
    assert day.looked_at(day.context(11 * 3600, dimension="dst_port")) == ALL_FLOWS
    assert day.looked_at(day.context(dimension="proto")) == ALL_FLOWS, "a rollup answers"


@pytest.mark.parametrize(
    "chosen",
    [
        {"measure": "unique_src_addr"},
        {"measure": "share_of_total", "pinned": "53,22"},
        {"measure": "syn_only_flows_per_second", "dimension": "src_host"},
        {"dimension": "src_addr", "dimension_2": "dst_port", "compare": "day"},
        {"address": "10.0.0.0/8", "dimension": "src_port", "top": "5"},
        {"key": ["443", "4"]},
    ],
)
def test_few_flows_are_ranked_in_one_read_as_many_are_in_two(
    day: Day, chosen: dict[str, Value]
) -> None:
    question = ONE_KEY if "key" in chosen else QUESTION
    for sql in (series_query(question), table_query(question)):
        once, twice = (
            day.rows(sql, day.context(**{"dimension": "dst_port"} | chosen, looked_at=looked_at))
            for looked_at in (FEW_FLOWS, ALL_FLOWS)
        )
        assert once
        assert [row | _rounded(row) for row in once] == [row | _rounded(row) for row in twice]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers whose last digits depend on the order of summing."""
    return {name: float(f"{value:.10g}") for name, value in row.items() if isinstance(value, float)}


def test_few_flows_are_read_once(day: Day) -> None:
    once, twice = (
        int(
            day.reader.query(
                expand_sql(
                    table_query(QUESTION),
                    day.context(dimension="dst_port", address="10.0.0.0/8", looked_at=looked_at),
                )
            ).summary["read_rows"]
        )
        for looked_at in (FEW_FLOWS, ALL_FLOWS)
    )
    assert 0 < once < 0.6 * twice


@pytest.mark.usefixtures("enough")
def test_filters_that_leave_few_flows_leave_exact_answers(day: Day) -> None:
    usual = str(day.reader.command("SELECT any(src_addr) FROM flows"))
    for address, found in (("10.0.0.0/8", DRAWN_FLOWS), (usual, FEW_FLOWS)):
        assert day.looked_at(day.context(dimension="dst_port", address=address)) == found
    assert day.looked_at(day.context(dimension="dst_port", condition="proto = 6")) == DRAWN_FLOWS
    assert day.looked_at(day.context(dimension="dst_port", condition="bytes = 7")) == FEW_FLOWS


@pytest.mark.parametrize(
    ("key", "value", "chosen", "estimated"),
    [
        ("proto", "6", {}, True),
        ("bytes", "64", {}, False),
        ("proto", "6", {"address": "10.0.0.0/8"}, False),
        ("proto", "6", {"condition": "proto = 6"}, False),
    ],
)
def test_ad_hoc_filters_that_leave_few_flows_leave_exact_answers(
    day: Day, key: str, value: str, chosen: dict[str, Value], estimated: bool
) -> None:
    """The variable does not know them."""
    few = table_query(QUESTION).replace(f"count() = {ENOUGH}", "count() = 1000")
    few = few.replace(f"LIMIT {ENOUGH}", "LIMIT 1000")
    some, exact = (
        [
            row["Total"]
            for row in day.rows(
                few,
                replace(
                    day.context(dimension="dst_port", looked_at=looked_at, **chosen),
                    filters=(AdHoc(key, "=", value),),
                ),
            )
        ]
        for looked_at in (DRAWN_FLOWS, ALL_FLOWS)
    )
    assert exact
    assert (some != exact) == estimated


@pytest.mark.parametrize("address", ["", "10.0.0.0/8"])
@pytest.mark.parametrize(
    ("measure", "amount"),
    [
        ("bits_per_second", "bytes * 8"),
        ("packets_per_second", "packets"),
        ("flows_per_second", "1"),
        ("syn_only_flows_per_second", "(proto = 6 AND bitAnd(tcp_flags, 23) = 2)"),
    ],
)
def test_sums_are_those_of_drawn_flows_times_their_weights(
    day: Day, measure: str, amount: str, address: str
) -> None:
    chosen = {"dimension": "dst_port", "dimension_2": "proto", "measure": measure}
    context = day.context(**chosen, address=address, looked_at=DRAWN_FLOWS)
    where = (
        "(isIPAddressInRange(toString(src_addr), '::ffff:10.0.0.0/104')"
        " OR isIPAddressInRange(toString(dst_addr), '::ffff:10.0.0.0/104'))"
        if address
        else "1"
    )
    expected = day.reader.query(
        f"SELECT toString(dst_port), toFloat64(sum(weight * {amount})) AS total FROM flows"
        f" WHERE drawn AND {where} GROUP BY dst_port, proto ORDER BY total DESC LIMIT 10"
    ).result_rows
    rows = day.rows(table_query(QUESTION), context)
    assert [row["Total"] for row in rows] == pytest.approx([total for _, total in expected])
    assert sum(total for _, total in expected) > 0
    series = day.rows(series_query(QUESTION), context)
    [[whole]] = day.reader.query(
        f"SELECT toFloat64(sum(weight * {amount})) FROM flows WHERE drawn AND {where}"
    ).result_rows
    assert sum(row["Value"] for row in series) * STEP == pytest.approx(whole)


def test_different_values_are_counted_of_all_flows(day: Day) -> None:
    chosen = {"dimension": "dst_port", "measure": "unique_src_port"}
    some, all_flows = (
        day.rows(table_query(QUESTION), day.context(**chosen, looked_at=looked_at))
        for looked_at in (DRAWN_FLOWS, ALL_FLOWS)
    )
    assert some == all_flows


def test_estimates_are_near_and_without_bias(day: Day) -> None:
    chosen = {"dimension": "dst_port", "top": "100"}
    shown = [
        {row["Key"]: row["Total"] for row in day.rows(table_query(QUESTION), context)}
        for context in (
            day.context(**chosen, looked_at=DRAWN_FLOWS),
            day.context(**chosen, looked_at=ALL_FLOWS),
        )
    ]
    estimates, exact = shown
    key = max(exact, key=lambda each: exact[each])
    assert estimates[key] == pytest.approx(exact[key], rel=0.1)
    assert estimates != exact


@pytest.mark.usefixtures("enough")
def test_the_command_estimates_and_says_so(day: Day) -> None:
    asked = Asked(day.end - DAY_SECONDS, day.end, by=("dst_port",), where="proto = 6")
    assert looks_at(day.reader, asked) == DRAWN_FLOWS
    assert looks_at(day.reader, replace(asked, exact=True)) == ALL_FLOWS
    estimates, exact = (ask(day.reader, asked, each) for each in (DRAWN_FLOWS, ALL_FLOWS))
    assert estimates[0].total != exact[0].total
    assert estimates[0].total == pytest.approx(exact[0].total, rel=0.2)


def test_an_incident_counts_addresses_of_all_flows(day: Day) -> None:
    incident = opened_values(DASHBOARDS["flow-incident"]) | {"condition": ""}
    sql = clickhouse_queries(DASHBOARDS["flow-incident"])["Different sources and destinations/A"]
    some, all_flows = (
        day.rows(sql, Context(day.end - DAY_SECONDS, day.end, STEP, incident | {"looked_at": each}))
        for each in (DRAWN_FLOWS, ALL_FLOWS)
    )
    assert some == all_flows
    assert len(all_flows) == 2 * 24


@pytest.mark.parametrize("address", ["", "10.0.0.0/8"])
def test_what_drawn_flows_cannot_tell_of_all_is_not_told(day: Day, address: str) -> None:
    chosen = {"condition": "proto = 6", "address": address}
    [some], [every] = (
        day.rows(summary_query(QUESTION), day.context(**chosen, looked_at=looked_at))
        for looked_at in (DRAWN_FLOWS, ALL_FLOWS)
    )
    assert (some["Sources"], some["Destinations"]) == (None, None)
    assert every["Sources"] > 0
    for name in ("Bits/s", "Packets/s", "Flows"):
        assert some[name] == pytest.approx(every[name], rel=0.15)
        assert some[name] != every[name]
    [rolled] = day.rows(summary_query(QUESTION), day.context(looked_at=DRAWN_FLOWS))
    assert rolled["Sources"] > 0


@pytest.mark.parametrize("devices", [["*"], ["edge03"], ["edge03", "edge07"]])
def test_addresses_of_a_long_range_are_those_of_all_devices_or_of_some(
    day: Day, devices: list[str]
) -> None:
    [row] = day.rows(summary_query(QUESTION), day.context(device=devices))
    where = "1" if devices == ["*"] else f"device IN {tuple(devices)}".replace(",)", ")")
    [counted] = day.reader.query(
        f"SELECT uniqExact(src_addr), uniqExact(dst_addr), count() FROM flows WHERE {where}"
    ).result_rows
    assert (row["Sources"], row["Destinations"]) == pytest.approx(counted[:2], rel=0.05)
    assert row["Flows"] == pytest.approx(counted[2], rel=0.01)


def test_a_host_sends_and_receives_what_its_drawn_flows_stand_for(day: Day) -> None:
    host = opened_values(DASHBOARDS["flow-host"]) | {"address": "10.0.0.0/8"}
    context = Context(day.end - DAY_SECONDS, day.end, STEP, host | {"looked_at": DRAWN_FLOWS})
    queries = clickhouse_queries(DASHBOARDS["flow-host"])

    def most(side: str, by: str, amount: str) -> float:
        within = f"isIPAddressInRange(toString({side}_addr), '::ffff:10.0.0.0/104')"
        found = day.reader.command(
            f"SELECT sum(weight * {amount}) AS most FROM flows WHERE drawn AND {within}"
            f" GROUP BY {by} ORDER BY most DESC LIMIT 1"
        )
        return float(str(found))

    series = day.rows(queries["Sent and received/A"], context)
    paths = day.rows(queries["Where it attaches and leaves/A"], context)
    services = day.rows(queries["Services/A"], context)
    sides = {"Sent": "src", "Received": "dst"}
    for way, side in sides.items():
        told = sum(row["Value"] for row in series if row["series"] == way)
        assert told * STEP == pytest.approx(8 * most(side, "tuple()", "bytes"))
    by_path = most(sides[paths[0]["Way"]], "(device, in_if, out_if)", "bytes")
    assert paths[0]["Bits/s"] * DAY_SECONDS == pytest.approx(8 * by_path)
    named = f"dst_port = {services[0]['Key']} AND dst_service = '{services[0]['Name']}'"
    flows = sum(most(side, "tuple()", f"if({named}, 1, 0)") for side in ("src", "dst"))
    assert services[0]["Flows"] == flows


def test_a_pinned_key_whose_flows_are_not_drawn_is_no_line_of_zeros(day: Day) -> None:
    [[port]] = day.reader.query(
        "SELECT dst_port FROM flows GROUP BY dst_port HAVING sum(drawn) = 0 LIMIT 1"
    ).result_rows
    context = day.context(dimension="dst_port", pinned=f"{port},4", looked_at=DRAWN_FLOWS)
    absent = {row["series"] for row in day.rows(absent_series_query(QUESTION), context)}
    assert absent == {"4"}
