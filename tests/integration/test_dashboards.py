"""Every query of every dashboard, as Grafana would send it, against the real store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from exporter.policies.filter import check_filter, is_plain
from exporter.policies.model import load_policies
from exporter.schema import BY_NAME
from tests.support.dashboard_flows import END, MINUTES, START
from tests.support.dashboards import DASHBOARDS, ROOT, defaults, filled_store
from tests.support.grafana import (
    CLICKHOUSE,
    AdHoc,
    Context,
    Value,
    clickhouse_queries,
    clickhouse_variables,
    expand_sql,
    panels,
    tables_read,
    variables,
)

#: Values that try to end a string, to comment the rest out, to be a format, a macro or a pattern.
HOSTILE = (
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


@pytest.fixture(scope="module")
def reader() -> Iterator[Client]:
    """The store with an hour of flows, as the user that Grafana is."""
    with filled_store() as client:
        yield client


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


SERIES = "Top ${top} by ${dimension:text}: ${measure:text}"
TABLE = "Keys in numbers"
ALL = "All flows that match"


@pytest.mark.parametrize(
    ("uid", "name"), [(uid, name) for uid in DASHBOARDS for name in queries(uid)]
)
def test_every_query_returns_data(reader: Client, uid: str, name: str) -> None:
    context = Context(START, END, 60, defaults(uid))
    if name.endswith("/absent"):
        chosen = {"compare": "day", "pinned": "none such"}
        context = Context(START, END, 60, defaults(uid) | chosen)
    result = reader.query(expand_sql(queries(uid)[name], context))
    assert result.row_count, name


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_variables_fill_themselves(reader: Client, uid: str) -> None:
    context = Context(START, END, 60, defaults(uid))
    for name, sql in clickhouse_variables(DASHBOARDS[uid]).items():
        assert reader.query(expand_sql(sql, context)).result_rows, name


def test_time_series_have_grafanas_shape(reader: Client) -> None:
    """Time first in ascending order, labels as String, exactly one number named Value."""
    for uid, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                if target.get("format") != 0 or target["datasource"]["type"] != CLICKHOUSE:
                    continue
                chosen = defaults(uid) | {"compare": "day", "pinned": "none such"}
                sql = expand_sql(target["rawSql"], Context(START, END, 60, chosen))
                result = reader.query(sql)
                assert result.column_names == ("time", "series", "Value"), panel["title"]
                types = [kind.name for kind in result.column_types]
                assert types[1:] == ["String", "Float64"], panel["title"]
                times = [row[0] for row in result.result_rows]
                assert times == sorted(times), panel["title"]


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


def test_incident_counts_what_the_policy_counts(reader: Client) -> None:
    rows = ask(reader, "flow-incident", "Destination ports", condition="dst_port = 443")
    assert [row["Key"] for row in rows] == ["443"]
    raw = ask(reader, "flow-incident", "Raw flows", condition="dst_port = 443")
    assert {row["Destination port"] for row in raw} == {443}


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
        assert _names(rows) == {name}
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


def test_host_profile_tells_what_a_host_does(reader: Client) -> None:
    peers = ask(reader, "flow-host", "Peers", address="10.9.9.9")
    assert [(row["Key"], row["Name"]) for row in peers] == [("10.1.0.1", "ag04")]
    [service, *_] = ask(reader, "flow-host", "Services", address="10.9.9.9")
    assert service["Key"] == "14999"
    [seen] = ask(reader, "flow-host", "First and last seen", address="10.9.9.9")
    assert seen["First seen"].timestamp() == START + 1800
    names = ask(reader, "flow-host", "DNS names it asked for", address="10.0.0.7")
    assert "pool.example.net" in {row["Name asked"] for row in names}
    series = ask(reader, "flow-host", "Sent and received", address="10.9.9.9")
    assert {row["series"] for row in series} == {"Sent"}
    received = ask(reader, "flow-host", "Sent and received", address="10.1.0.1")
    assert {row["series"] for row in received} == {"Received"}


def test_home_shows_the_largest_first(reader: Client) -> None:
    for title, key in (
        ("Largest sources", "10.9.9.9"),
        ("Largest destinations", "10.1.0.1"),
        ("Largest ports", "14999"),
        ("Largest source ASes", "4200000000"),
    ):
        assert ask(reader, "flow-home", title)[0]["Key"] == key
    pair = ask(reader, "flow-home", "Largest conversations")[0]
    assert (pair["Key"], pair["With"]) == ("10.9.9.9", "10.1.0.1")


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("Largest sources", "src_addr"),
        ("Largest destinations", "dst_addr"),
        ("Largest source ASes", "src_as"),
    ],
)
@pytest.mark.parametrize(
    ("start", "end"),
    [(START - 86_400, END + 30), (START - 100, END + 30), (START + 1800, END + 30)],
)
def test_the_largest_are_those_of_the_flows_whatever_table_tells(
    reader: Client, title: str, key: str, start: int, end: int
) -> None:
    rows = ask(reader, "flow-home", title, start=start, end=end)
    flows = reader.query(
        f"SELECT replaceOne(toString({key}), '::ffff:', ''), sum(bytes) * 8 / {end - start} AS bits"
        f" FROM flows WHERE time_received BETWEEN toDateTime({start}) AND toDateTime({end})"
        f" AND {'src_as != 0' if key == 'src_as' else '1'}"
        f" GROUP BY {key} ORDER BY bits DESC, {key} LIMIT 10"
    ).result_rows
    assert [(row["Key"], row["Bits/s"]) for row in rows] == [
        (shown, pytest.approx(bits)) for shown, bits in flows
    ]


def test_alert_history_keeps_only_safe_links(reader: Client) -> None:
    rows = {row["Alert"]: row for row in ask(reader, "flow-alerts", "History")}
    assert next(iter(rows)) == "FlowHigh", "it fires"
    start = (START + 1900) * 1000
    assert rows["FlowHigh"]["Dashboard"] == (
        f"http://grafana.example/d/flow-incident?from={start - 10_800_000}&to={start + 3_600_000}"
        f"&var-since={start}&var-policy=host_bits"
    )
    assert rows["FlowHigh"]["Until"] is None
    assert rows["FlowLow"]["Dashboard"] == "", "a javascript: link must not become one"
    matchers = '{dst_addr="10.1.0.1", dst_host="ag04", policy="host_bits"}'
    assert rows["FlowHigh"]["Silence"] == matchers
    assert rows["FlowLow"]["Silence"] == "", "it fires no more"
    assert rows["FlowLow"]["Duration"] == 300


#: The filters that the link of the alert in the test data sets.
KEY = (AdHoc("dst_addr", "=", "10.1.0.1"), AdHoc("dst_host", "=", "ag04"))


@pytest.mark.parametrize(
    ("title", "key", "name"),
    [
        ("Source ASes", "4200000000", ""),
        ("Sources", "10.9.9.9", "spike"),
        ("Destination ports", "14999", "aggregation"),
        ("Destinations", "10.1.0.1", "ag04"),
        ("Devices and input interfaces", "r1", ""),
    ],
)
def test_incident_shows_what_changed_first(reader: Client, title: str, key: str, name: str) -> None:
    first, *_ = ask(reader, "flow-incident", title, filters=KEY)
    assert (first["Key"], first["filter_1"]) == (key, key)
    assert first["Name"].startswith(name)
    # The spike's 30 buckets are among the 34 since five minutes before the alert.
    assert first["Change"] == pytest.approx(1_000_000 * 8 / 60 * 30 / 34, rel=0.05)
    assert first["Change"] == pytest.approx(first["During"] - first["Before"])


def test_incident_counts_distinct_values_per_bucket(reader: Client) -> None:
    """So that the longer time does not have more of them for being longer."""
    rows = ask(reader, "flow-incident", "Destination ports", measure="unique_src_addr")
    for row in rows:
        if row["Key"] == "443":
            assert row["Before"] == row["During"] == 10
    [most, *_] = rows
    assert most["Key"] == "20012", "it stops, so its sources are gone for a third of the time"
    assert most["Change"] < 0


def test_incident_without_a_start_compares_both_halves(reader: Client) -> None:
    first, *_ = ask(reader, "flow-incident", "Sources", filters=KEY, since="")
    assert first["Before"] == 0
    assert first["During"] == pytest.approx(1_000_000 * 8 / 60)
    # A start outside of the range leaves one bucket to compare with.
    for since in ("1", str(END * 2000)):
        assert ask(reader, "flow-incident", "Sources", filters=KEY, since=since)


def test_incident_counts_distinct_sources(reader: Client) -> None:
    rows = ask(reader, "flow-incident", "Different sources and destinations", filters=KEY)
    sources = [row["Value"] for row in rows if row["series"] == "Sources"]
    assert len(sources) == MINUTES
    assert sources[0] + 1 == sources[MINUTES // 2], "one more from half-time on"
    assert {row["Value"] for row in rows if row["series"] == "Destinations"} == {1}


def test_incident_shows_the_alerts_of_its_key_only(reader: Client) -> None:
    [alert] = ask(reader, "flow-incident", "Alerts of this key")
    assert alert["Alert"] == "FlowHigh"
    [most, other] = ask(reader, "flow-incident", "Evidence kept")
    assert (most["Key"], most["Bytes before"], most["Bytes during"]) == ("4200000000", 0, 3_000_000)
    assert (other["Key"], other["Flows before"], other["Flows during"]) == ("64501", 5, 1)
    for title in ("Alerts of this key", "Evidence kept"):
        assert ask(reader, "flow-incident", title, key='dst_addr="10.1.0.2"') == []
        assert ask(reader, "flow-incident", title, policy="other") == []
        assert ask(reader, "flow-incident", title, key="")


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
        name.endswith("earlier") for name in _names(ask(reader, "flow-explorer", SERIES))
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


def test_services_show_rises_and_dips_on_one_screen(reader: Client) -> None:
    """14999 of one host rises at half-time while 20012 falls silent at the end."""
    changes = ask(reader, "flow-services", "Rises and dips")
    assert (changes[0]["Key"], changes[0]["Second key"]) == ("10.1.0.1", "14999")
    assert changes[0]["Change"] > 0
    dips = [row for row in changes if row["Second key"] == "20012"]
    assert dips
    assert all(row["During"] == pytest.approx(row["Before"] * 2 / 3) for row in dips)
    rows = ask(reader, "flow-services", "Traffic by destination port")
    lines = {name: [r["Value"] for r in rows if r["series"] == name] for name in _names(rows)}
    assert lines["14999 aggregation"][-1] > 5 * lines["14999 aggregation"][0]
    assert lines["20012"][0] > lines["20012"][-1] == 0
    assert {len(values) for values in lines.values()} == {MINUTES}


def _names(rows: list[dict[str, Any]]) -> set[str]:
    return {row["series"] for row in rows}


def test_services_have_a_panel_per_port(reader: Client) -> None:
    for port, name in (("20012", "20012"), (["443"], "443 https")):
        rows = ask(reader, "flow-services", "Port ${port}", port=port)
        assert _names(rows) == {name}
    both = ask(reader, "flow-services", "Port ${port}", port=["443", "20012"])
    assert _names(both) == {"443 https", "20012"}
    day = ask(reader, "flow-services", "Port ${port}", port="443", start=END - 86400)
    assert sum(row["Value"] for row in day) > 0
    assert _names(day) == {"443 https"}
    for hostile in HOSTILE:
        rows = ask(reader, "flow-services", "Port ${port}", port=hostile)
        assert not any(row["Value"] for row in rows)


def test_services_count_the_sources_of_each(reader: Client) -> None:
    rows = ask(reader, "flow-services", "Fan-in")
    line = [row["Value"] for row in rows if row["series"] == "10.1.0.1 14999 ag04"]
    assert (line[0], line[-1]) == (2, 3), "one more from half-time on"


def test_node_graph_edges_join_nodes_that_exist(reader: Client) -> None:
    title = "Who talks to which service"
    nodes = {row["id"]: row for row in ask(reader, "flow-services", title)}
    edges = ask(reader, "flow-services", title, ref="edges")
    assert edges[0]["id"] == "lab > ag04 aggregation"
    assert {edge[side] for edge in edges for side in ("source", "target")} == nodes.keys()
    assert len({edge["id"] for edge in edges}) == len(edges)
    into = sum(edge["bits"] for edge in edges if edge["target"] == "ag04 aggregation")
    assert nodes["ag04 aggregation"]["bits"] == pytest.approx(into)
    assert nodes["ag04 aggregation"]["mainstat"] == f"{into / 1000:.2f} Kb/s"


def test_interfaces_are_billed_by_five_minute_samples(reader: Client) -> None:
    rows = ask(reader, "flow-interfaces", "Interfaces in numbers")
    by_name = {row["Interface"]: row for row in rows if row["Device"] == "r1"}
    assert all(row["Index"] for row in rows), "0 is no interface"
    spike = by_name["eth2"]
    # For half of the hour the spike is most of it.
    assert spike["In, p95"] == pytest.approx(spike["In, maximum"], rel=0.25)
    assert spike["In, p95"] > 1.5 * spike["In"]
    assert (spike["Out"], spike["Out, p95"]) == (0, 0)
    whole = ask(reader, "flow-explorer", ALL)[0]["Bits/s"]
    for side in ("In", "Out"):
        assert sum(row[side] for row in rows) == pytest.approx(whole, rel=0.02)
    series = ask(reader, "flow-interfaces", "Into and out of interfaces")
    assert {"r1 eth2 in", "r1 4 out"} <= _names(series)
    for way in (" in", " out"):
        values = [row["Value"] for row in series if row["series"].endswith(way)]
        assert sum(values) / MINUTES == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("device", ["r1", "r'2\\"])
def test_interfaces_are_those_of_the_devices_chosen(reader: Client, device: str) -> None:
    numbers = ask(reader, "flow-interfaces", "Interfaces in numbers", device=[device])
    assert {row["Device"] for row in numbers} == {device}
    series = ask(reader, "flow-interfaces", "Into and out of interfaces", device=[device])
    assert {name.rpartition(" ")[0].rpartition(" ")[0] for name in _names(series)} == {device}
    [incoming] = [
        (row["Index"], row["In"]) for row in numbers if row["In"] == max(r["In"] for r in numbers)
    ]
    filters = (AdHoc("in_if", "=", str(incoming[0])),)
    [flows] = ask(reader, "flow-explorer", ALL, device=[device], filters=filters)
    assert flows["Bits/s"] == pytest.approx(incoming[1], rel=0.02)


def test_dns_tells_new_names_and_those_that_do_not_exist(reader: Client) -> None:
    new = ask(reader, "flow-dns", "New names")
    assert new[0]["Name"] == f"guess{MINUTES - 1}.example"
    assert (new[0]["First by"], new[0]["NXDOMAIN"]) == ("10.0.0.8", 1)
    names = ask(reader, "flow-dns", "Names")
    assert names[0]["Questions"] == (MINUTES - 10) / 2, "while it sends"
    clients = {row["Client"]: row for row in ask(reader, "flow-dns", "Clients")}
    assert (clients["10.0.0.8"]["Names"], clients["10.0.0.8"]["NXDOMAIN"]) == (MINUTES, 1)
    assert (clients["10.0.0.7"]["Names"], clients["10.0.0.7"]["NXDOMAIN"]) == (2, 0)
    rows = ask(reader, "flow-dns", "Questions by answer", address="k8")
    assert _names(rows) == {"NXDOMAIN"}
    pairs = ask(reader, "flow-dns", "Names by client", filters=(AdHoc("src_host", "=", "k9"),))
    assert [(row["Client"], row["Name"]) for row in pairs] == [("10.0.0.9", "registry.example")]
    rare = ask(reader, "flow-dns", "Rare names", address="10.0.0.8")
    assert {row["Client"] for row in rare} == {"10.0.0.8"}
    assert {row["Questions"] for row in rare} == {1}
    known = ask(reader, "flow-dns", "New names", start=START + 1800)
    assert "pool.example.net" not in {row["Name"] for row in known}, "asked for before"
    latency = ask(reader, "flow-dns", "Time to answer")
    assert {round(row["Value"], 2) for row in latency} <= {0.01, 0.02}
