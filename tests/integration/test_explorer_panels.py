"""What the Data Explorer shows: by any dimension and measure, ranked, complete, compared."""

from __future__ import annotations

from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.policies.filter import is_plain
from exporter.policies.model import load_policies
from tests.support.dashboard_flows import END, MINUTES, START
from tests.support.dashboards import (
    ALL,
    DASHBOARDS,
    ROOT,
    SERIES,
    TABLE,
    ask,
    defaults,
    names_of,
    queries,
)
from tests.support.grafana import (
    AdHoc,
    Context,
    Value,
    expand_sql,
    tables_read,
    variables,
)


def dimensions() -> list[str]:
    options = variables(DASHBOARDS["flow-explorer"])["dimension"]["query"]
    return [option.rpartition(" : ")[2] for option in options.split(", ")]


@pytest.fixture(scope="module")
def whole(reader: Client) -> dict[str, Any]:
    """The Data Explorer's summary of all flows."""
    return ask(reader, "flow-explorer", ALL)[0]


@pytest.mark.parametrize("dimension", dimensions())
def test_explorer_groups_by_any_dimension(
    reader: Client, whole: dict[str, Any], dimension: str
) -> None:
    rows = ask(reader, "flow-explorer", TABLE, dimension=dimension, top="5000")
    assert sum(row["Total"] for row in rows) == pytest.approx(whole["Bits/s"] * 3600)


@pytest.mark.parametrize(
    ("measure", "field"),
    [
        ("bits_per_second", "Bits/s"),
        ("packets_per_second", "Packets/s"),
        ("flows_per_second", "Flows"),
        ("unique_src_addr", "Sources"),
        ("unique_dst_addr", "Destinations"),
    ],
)
def test_explorer_measures_agree_with_the_summary(reader: Client, measure: str, field: str) -> None:
    """Grouped by what is the same in every flow, the only key has all of the traffic."""
    [row] = ask(reader, "flow-explorer", TABLE, dimension="vrf", measure=measure)
    whole = ask(reader, "flow-explorer", ALL)[0][field]
    seconds = 3600 if field in ("Bits/s", "Packets/s") else 1
    assert row["Total"] == pytest.approx(whole * seconds)


def test_explorer_counts_flows_that_only_ask_to_connect(reader: Client) -> None:
    chosen: dict[str, Value] = {"measure": "syn_only_flows_per_second", "dimension": "src_addr"}
    first, second, *_ = ask(reader, "flow-explorer", TABLE, **chosen)
    assert (first["Key"], first["Total"]) == ("10.0.0.4", MINUTES)
    assert first["Average"] == pytest.approx(1 / 60)
    assert second["Total"] == 0


def test_explorer_shares_are_of_everything_that_matches(reader: Client) -> None:
    chosen: dict[str, Value] = {"measure": "share_of_total", "dimension": "src_addr", "top": "3"}
    whole = ask(reader, "flow-explorer", ALL)[0]["Bits/s"] * 3600
    first, *_ = ask(reader, "flow-explorer", TABLE, **chosen)
    assert first["Key"] == "10.9.9.9"
    assert first["Total"] == pytest.approx(100 * 30 * 1_000_000 * 8 / whole)
    assert first["Total"] < first["Maximum"] < 100
    rows = ask(reader, "flow-explorer", SERIES, **chosen)
    for moment in {row["time"] for row in rows}:
        assert sum(row["Value"] for row in rows if row["time"] == moment) == pytest.approx(100)
    [most, *_] = ask(reader, "flow-incident", "Sources", measure="share_of_total")
    assert (most["Key"], most["Before"]) == ("10.9.9.9", 0)
    assert 50 < most["During"] < 100


def test_filters_of_policies_are_conditions_of_dashboards(reader: Client) -> None:
    policies = load_policies(ROOT / "alerting/policies.yaml").policies
    told = [p for p in policies if p.table == "flows" and p.filter and not p.list_uses]
    plain = [p for p in told if is_plain(p.filter)]
    assert len(plain) > 10
    for policy in plain:
        assert ask(reader, "flow-explorer", ALL, condition=policy.filter), policy.name
    for text in ("has([6], proto)", "dst_host = 'a\\'b'", "proto = 6 -- x"):
        assert not is_plain(text)


def test_explorer_series_are_complete(reader: Client) -> None:
    """Top keys and Other: every bucket of each, and together all of the traffic."""
    rows = ask(reader, "flow-explorer", SERIES, dimension="src_addr", top="5")
    names = {row["series"] for row in rows}
    assert len(names) == 6
    assert "Other" in names
    assert len(rows) == 6 * MINUTES
    whole = ask(reader, "flow-explorer", ALL)[0]["Bits/s"]
    assert sum(row["Value"] for row in rows) * 60 == pytest.approx(whole * 3600)


def test_explorer_ranks_and_names_the_cause(reader: Client) -> None:
    first, *_ = ask(reader, "flow-explorer", TABLE, dimension="src_addr")
    assert (first["Key"], first["Name"], first["filter_1"]) == ("10.9.9.9", "spike", "10.9.9.9")
    assert first["Maximum"] == 1_000_000 * 8 / 60
    assert first["Average"] == pytest.approx(first["Maximum"] / 2)
    assert first["95th percentile"] == first["Maximum"]
    assert first["Last"] == first["Maximum"]
    assert first["Total"] == 30 * 1_000_000 * 8
    by_packets, *_ = ask(
        reader, "flow-explorer", TABLE, dimension="src_addr", measure="packets_per_second"
    )
    assert by_packets["Key"] == "10.0.0.7", "small packets show in packets only"
    [row, *_] = ask(reader, "flow-explorer", TABLE, dimension="src_as")
    assert (row["Key"], row["filter_1"]) == ("4200000000", "4200000000"), "32-bit AS numbers"


def test_explorer_shows_two_dimensions(reader: Client) -> None:
    rows = ask(reader, "flow-explorer", TABLE, dimension="proto", dimension_2="dst_port", top="100")
    pairs = {(row["Key"], row["Second key"]) for row in rows}
    assert {("TCP", "443"), ("TCP", "14999"), ("UDP", "53")} <= pairs
    series = ask(
        reader, "flow-explorer", SERIES, dimension="device", dimension_2="in_if", top="100"
    )
    assert "r1 1" in {row["series"].split(" router")[0] for row in series}


def test_a_service_that_stops_reads_zero(reader: Client) -> None:
    rows = ask(reader, "flow-explorer", SERIES, dimension="dst_port")
    values = [row["Value"] for row in rows if row["series"].startswith("20012")]
    assert len(values) == MINUTES
    assert all(values[: MINUTES - 10])
    assert not any(values[MINUTES - 10 :])
    [row] = [
        row
        for row in ask(reader, "flow-explorer", TABLE, dimension="dst_port")
        if row["Key"] == "20012"
    ]
    assert row["Last"] == 0


def test_an_unfinished_bucket_is_left_out(reader: Client) -> None:
    rows = ask(reader, "flow-explorer", SERIES, dimension="vrf", end=END - 20)
    assert len(rows) == MINUTES - 1


def tables(client: Client, title: str, **chosen: Any) -> set[str]:
    """The tables of flows that ClickHouse would read for a panel of the explorer."""
    filters = chosen.pop("filters", ())
    start = chosen.pop("start", END - 86400)
    [sql] = [text for name, text in queries("flow-explorer").items() if name == f"{title}/A"]
    step = chosen.pop("step", 300)
    context = Context(start, END, step, defaults("flow-explorer") | chosen, filters)
    plan = client.query(f"EXPLAIN {expand_sql(sql, context)}").result_rows
    text = "\n".join(row[0] for row in plan)
    return tables_read(text)


def test_explorer_reads_a_rollup_over_long_ranges_where_it_can_answer(reader: Client) -> None:
    for title in (TABLE, SERIES):
        assert tables(reader, title, dimension="device") == {"flows_1m"}
        assert tables(reader, title, dimension="device", device=["r1"]) == {"flows_1m"}
        assert tables(reader, title, dimension="proto", step=7200) == {"flows_1h"}
        assert tables(reader, title, dimension="src_addr") == {"hosts_1h"}
        assert tables(reader, title, dimension="dst_as", step=7200) == {"networks_1h"}
        distinct = {"dimension": "dst_addr", "measure": "unique_src_addr"}
        assert tables(reader, title, **distinct) == {"hosts_1h"}
        assert tables(reader, title, dimension="src_addr", device=["r1"]) == {"flows"}
        assert tables(reader, title, dimension="src_addr", dimension_2="dst_port") == {"flows"}
        assert tables(reader, title, dimension="proto", dimension_2="dst_as") == {"flows"}
        assert tables(reader, title, dimension="proto", measure="unique_src_addr") == {"flows"}
        assert tables(reader, title, dimension="proto", start=START) == {"flows"}
    for title in (TABLE, SERIES, ALL):
        for chosen in (
            {"address": "10.0.0.0/8"},
            {"condition": "proto = 6"},
            {"filters": (AdHoc("proto", "=", "6"),)},
        ):
            assert tables(reader, title, dimension="proto", **chosen) == {"flows"}
    assert tables(reader, ALL) == {"flows_1m", "hosts_1h"}
    assert tables(reader, ALL, device=["r1"]) == {"flows_1m", "flows_1h"}


def test_rollups_tell_what_the_flows_tell(reader: Client) -> None:
    start = END - 86400
    for dimension in ("device", "in_if", "proto", "src_addr", "dst_host", "dst_as"):
        chosen: dict[str, Value] = {"dimension": dimension, "top": "100"}
        rolled = ask(reader, "flow-explorer", TABLE, start=start, **chosen)
        flows = ask(reader, "flow-explorer", TABLE, start=start, condition="1", **chosen)
        assert [(r["Key"], r["Total"]) for r in rolled] == [(r["Key"], r["Total"]) for r in flows]
    rolled = ask(reader, "flow-explorer", ALL, start=start)
    assert rolled == ask(reader, "flow-explorer", ALL, start=start, condition="1")


def test_small_multiples_show_one_key_each(reader: Client) -> None:
    keys = variables(DASHBOARDS["flow-explorer"])["key"]["query"]["rawSql"]
    chosen = defaults("flow-explorer") | {"dimension": "dst_port"}
    found = reader.query(expand_sql(keys, Context(START, END, 60, chosen))).result_rows
    assert {key for (key,) in found} == {"443", "53", "14999", "20012", "0"}
    title = "${key}: ${measure:text}"
    for key, name in (("20012", "20012"), ("443", "443 https")):
        rows = ask(reader, "flow-explorer", title, dimension="dst_port", key=key)
        assert names_of(rows) == {name}
        assert len(rows) == MINUTES


def test_explorer_tells_role_and_owner(reader: Client) -> None:
    [row] = ask(reader, "flow-explorer", TABLE, address="10.0.0.7/32")
    assert (row["Role"], row["Owner"]) == ("dev-vm", "interns")
    [row] = ask(reader, "flow-explorer", TABLE, dimension="src_host", address="10.0.0.7/32")
    assert (row["Role"], row["Owner"]) == ("dev-vm", "interns")
    for row in ask(reader, "flow-explorer", TABLE, dimension="dst_port"):
        assert (row["Role"], row["Owner"]) == ("", "")


def test_a_name_stands_for_the_addresses_that_it_had_then(reader: Client) -> None:
    """Whatever names the flows have: resolvers tell, hour by hour."""
    rows = ask(reader, "flow-explorer", TABLE, dimension="dst_addr", address="Registry.example")
    assert {row["Key"] for row in rows} == {"10.1.0.4"}
    assert ask(reader, "flow-explorer", ALL, address="other.example")[0]["Flows"] == 0
    before = ask(
        reader, "flow-explorer", ALL, address="other.example", start=START - 86400, end=END - 86400
    )
    assert before[0]["Flows"] == 1


def test_pinned_keys_stay_in_the_explorer(reader: Client) -> None:
    chosen: dict[str, Value] = {"dimension": "dst_port", "top": "1", "pinned": " 20012 ,,"}
    rows = ask(reader, "flow-explorer", SERIES, **chosen)
    assert {row["series"] for row in rows} == {"14999 aggregation", "20012", "Other"}
    values = [row["Value"] for row in rows if row["series"] == "20012"]
    assert len(values) == MINUTES
    assert all(values[: MINUTES - 10])
    assert not any(values[MINUTES - 10 :])
    keys = ask(reader, "flow-explorer", TABLE, **chosen)
    assert [row["Key"] for row in keys] == ["14999", "20012"]
    assert ask(reader, "flow-explorer", SERIES, ref="absent", **chosen) == []
    assert ask(reader, "flow-explorer", SERIES, ref="absent") == []


def test_a_pinned_key_that_never_came_is_a_line_of_zeros(reader: Client) -> None:
    rows = ask(
        reader, "flow-explorer", SERIES, ref="absent", dimension="dst_port", pinned="9999,443"
    )
    assert [(row["series"], row["Value"]) for row in rows] == [("9999", 0)] * MINUTES
    times = [row["time"].timestamp() for row in rows]
    assert times == list(range(START, END, 60))


def test_explorer_compares_with_an_earlier_range(reader: Client) -> None:
    assert not any(
        name.endswith("earlier") for name in names_of(ask(reader, "flow-explorer", SERIES))
    )
    now = ask(reader, "flow-explorer", TABLE, dimension="dst_port")
    assert {(row["Earlier"], row["Change"]) for row in now} == {(None, None)}
    for row in ask(reader, "flow-explorer", TABLE, dimension="dst_port", compare="day"):
        if row["Key"] == "443":
            assert row["Earlier"] == 480_000
            assert row["Change"] == pytest.approx(row["Total"] / 480_000 - 1)
        else:
            assert (row["Earlier"], row["Change"]) == (0, None)
    week = ask(reader, "flow-explorer", TABLE, dimension="dst_port", compare="week")
    assert {row["Earlier"] for row in week} == {0}
    both = ask(reader, "flow-explorer", SERIES, dimension="dst_port", compare="day")
    rows = [row for row in both if row["series"].endswith(", earlier")]
    assert [row["Value"] for row in rows][:3] == [0, 8000, 0]
    assert {row["series"] for row in rows} == {"443 https, earlier"}
    assert len(rows) == MINUTES
    assert rows[0]["time"].timestamp() == START
    assert [row for row in both if row not in rows] == ask(
        reader, "flow-explorer", SERIES, dimension="dst_port"
    )
