"""What narrows the Data Explorer, and what no value of a variable can do."""

from __future__ import annotations

import re

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from exporter.policies.filter import check_filter
from exporter.schema import BY_NAME
from tests.support.dashboard_flows import END, START
from tests.support.dashboards import (
    ALL,
    DASHBOARDS,
    HOSTILE,
    SERIES,
    TABLE,
    ask,
    defaults,
    queries,
)
from tests.support.grafana import (
    AdHoc,
    Context,
    expand_sql,
    variables,
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.9.9.9", {"10.9.9.9"}),
        (" 10.9.9.9 ", {"10.9.9.9"}),
        ("10.9.0.0/16", {"10.9.9.9"}),
        ("spike", {"10.9.9.9"}),
        ("lab", {"10.9.9.9"}),
        ("o'brien", {"2001:db8::1"}),
        ("2001:db8::/32", {"2001:db8::1"}),
        ("2001:db8::2", {"2001:db8::1"}),
        ("192.0.2.1", set()),
        ("10.0.0.7/32", {"10.0.0.7"}),
        ("::ffff:10.9.0.0/112", {"10.9.9.9"}),
        ("no.such.host", set()),
        ("no/such/name", set()),
    ],
)
def test_explorer_finds_hosts_on_both_sides(
    reader: Client, address: str, expected: set[str]
) -> None:
    rows = ask(reader, "flow-explorer", TABLE, dimension="src_addr", address=address)
    assert {row["Key"] for row in rows} == expected


@pytest.mark.parametrize(
    "address",
    ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0", "10.0.0.0/8/8", "10.0.0.0/-1", "::/129"],
)
def test_an_impossible_prefix_is_refused_where_addresses_are_asked_for(
    reader: Client, address: str
) -> None:
    """As in the terminal; no other question is answered in its place."""
    for uid, title, ref in (
        ("flow-explorer", TABLE, "A"),
        ("flow-explorer", SERIES, "A"),
        ("flow-explorer", ALL, "A"),
        ("flow-explorer", "Raw flows", "A"),
        ("flow-host", "Peers", "A"),
    ):
        with pytest.raises(DatabaseError, match=f"address: {address} is not a prefix"):
            ask(reader, uid, title, ref=ref, address=address)


def test_a_flow_with_the_address_on_both_sides_counts_once(reader: Client) -> None:
    whole = ask(reader, "flow-explorer", ALL)[0]
    everything = ask(reader, "flow-explorer", ALL, address="::/0")[0]
    assert everything == whole


def test_explorer_filters_devices(reader: Client) -> None:
    one = ask(reader, "flow-explorer", TABLE, dimension="device", device=["r1"])
    assert {row["Key"] for row in one} == {"r1"}
    hostile = ask(reader, "flow-explorer", TABLE, dimension="device", device=["r'2\\"])
    assert {row["Key"] for row in hostile} == {"r'2\\"}
    both = ask(reader, "flow-explorer", TABLE, dimension="device", device=["r1", "r'2\\"])
    assert len(both) == 2
    assert ask(reader, "flow-explorer", TABLE, dimension="device", device=[]) == []


def test_explorer_takes_ad_hoc_filters(reader: Client) -> None:
    """Also those that the links of rows add, for each type of column."""
    for dimension in (
        "src_addr", "dst_port", "proto", "device", "source", "src_as", "dns_name", "src_mac",
        "direction",
    ):  # fmt: skip
        [first, *_] = ask(reader, "flow-explorer", TABLE, dimension=dimension, device="r1")
        chosen = (AdHoc(dimension, "=", first["filter_1"]),)
        [only] = ask(
            reader, "flow-explorer", TABLE, dimension=dimension, device="r1", filters=chosen
        )
        assert only["Key"] == first["Key"]
        assert only["Total"] == first["Total"]
    filters = (AdHoc("dst_port", "=", "14999"), AdHoc("src_addr", "!=", "10.9.9.9"))
    rows = ask(reader, "flow-explorer", TABLE, dimension="src_addr", filters=filters)
    assert rows
    assert "10.9.9.9" not in {row["Key"] for row in rows}


def test_ad_hoc_filters_offer_columns_and_values(reader: Client) -> None:
    """What the plugin asks to fill the filters' two lists."""
    assert int(str(reader.command("SELECT version()")).split(".")[0]) >= 22
    columns = reader.query(
        "SELECT name, type, table FROM system.columns WHERE database = 'flow' AND table = 'flows'"
    )
    # All columns of the table, so those that place an insert, too; that query is the plugin's own.
    assert {row[0] for row in columns.result_rows} == {
        *BY_NAME, "slot", "time_slot", "draw_one_of", "draw", "weight", "drawn",
    }  # fmt: skip
    values = variables(DASHBOARDS["flow-explorer"])["clickhouse_adhoc_query"]["query"]
    rows = reader.query(values.replace("$__adhoc_column", "dst_port")).result_rows
    assert {443, 14999, 20012} <= {row[0] for row in rows}


def test_ad_hoc_filters_cannot_read_files(reader: Client) -> None:
    filters = (AdHoc("file(\\'/etc/hostname\\')", "!=", ""),)
    with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
        ask(reader, "flow-explorer", TABLE, filters=filters)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_addresses_and_devices_match_nothing(reader: Client, hostile: str) -> None:
    for chosen in ({"address": hostile}, {"device": [hostile]}, {"device": hostile}):
        assert ask(reader, "flow-explorer", ALL, **chosen)[0]["Flows"] == 0
    assert ask(reader, "flow-host", "Peers", address=hostile) == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_choices_are_refused_or_fall_back(reader: Client, hostile: str) -> None:
    usual = ask(reader, "flow-explorer", TABLE)
    second = ask(reader, "flow-explorer", TABLE, dimension_2=hostile)
    assert [row | {"Second key": "", "filter_2": ""} for row in second] == usual
    assert ask(reader, "flow-explorer", TABLE, top=hostile) == []
    assert ask(reader, "flow-explorer", TABLE, measure=hostile) == usual
    with pytest.raises(DatabaseError, match=r"expression|argument"):
        ask(reader, "flow-explorer", TABLE, dimension=hostile)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_value_stays_inside_its_string(hostile: str) -> None:
    """Only what a percent-encoding has reaches the SQL, so no value can change its structure."""
    for uid in DASHBOARDS:
        for name, sql in queries(uid).items():
            for variable in set(re.findall(r"\$\{(\w+)", sql)) - {"condition"}:
                plain = Context(START, END, 60, defaults(uid) | {variable: "QQQ"})
                evil = Context(START, END, 60, defaults(uid) | {variable: hostile})
                pattern = re.escape(expand_sql(sql, plain)).replace("QQQ", "[A-Za-z0-9._~%-]*")
                assert re.fullmatch(pattern, expand_sql(sql, evil)), (uid, name, variable)


#: Conditions that filters of policies may be, and how many flows they leave.
CONDITIONS = {
    "": 2331,
    " ": 2331,
    "dst_port = 14999": 630,
    "dst_port IN (443, 53) and proto = 6": 600,
    "bitAnd(proto, 0x04) != 0, dst_port = 443": 600,
    "src_host = 'spike -- ; SELECT (' OR (bytes / packets > 1.5e2 AND NOT dst_port = 53)": 1620,
    "src_host LIKE 'k%' AND NOT (src_addr = '10.0.0.7')": 2250,
}


#: Conditions that would be, or do, something else.
REFUSED = (
    "1) OR (1",
    "1) UNION ALL SELECT 1, 2, 3, 4, 5, 6 --",
    "1 -- ",
    "1 /* ",
    "dst_port IN (SELECT dst_port FROM flows)",
    "sleepEachRow(3) = 0",
    "url('http://127.0.0.1/') = 1",
    "file('/etc/passwd') != ''",
    "getSetting('max_threads') = 1",
    "src_host = 'a\\' OR src_host = ' OR 1) --'",
    "dictGet('x', 'y', 1) = 1",
    "1; DROP TABLE flows",
    "$__timeFilter(time_received)",
    "`src_host` = 'x'",
    '"src_host" = 1',
    "src_host = $$x$$",
    "{a:String} = 'x'",
    "toString(src_host",
    "throwIf(1)",
    "flows.src_port = 1",
    "käse = 1",
    "x -> x",
)


def test_a_condition_in_sql_narrows_what_the_explorer_shows(reader: Client) -> None:
    for condition, flows in CONDITIONS.items():
        told = ask(reader, "flow-explorer", ALL, condition=condition)
        assert told[0]["Flows"] == flows, condition
    [only] = ask(reader, "flow-explorer", TABLE, condition="dst_port = 443", dimension="dst_port")
    assert only["Key"] == "443"


@pytest.mark.parametrize("condition", [*REFUSED, *HOSTILE])
def test_a_condition_is_nothing_else(reader: Client, condition: str) -> None:
    """Refused by the query itself, as a policy's filter is, before anything is read."""
    with pytest.raises(ValueError, match=r"."):
        check_filter(condition)
    # What is no SQL at all, or a file's name, does not get so far.
    reasons = "SQL condition|Syntax error|SYNTAX_ERROR|UNKNOWN_QUERY_PARAMETER|ACCESS_DENIED"
    with pytest.raises(DatabaseError, match=reasons):
        ask(reader, "flow-explorer", ALL, condition=condition)


def test_a_condition_stands_behind_its_check_only() -> None:
    """Nothing that it does to the rest of the query can undo what stands before it."""
    for uid in DASHBOARDS:
        for sql in queries(uid).values():
            for found in re.finditer(r"\$\{condition:raw\}", sql):
                before = sql[: found.start()]
                assert before.endswith("condition_is_safe AND NOT has(array("), uid
                assert "AS condition_is_safe" in before
