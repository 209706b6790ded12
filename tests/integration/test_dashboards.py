"""Every query of every dashboard, as Grafana would send it, against the real store."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.dashboard_flows import END, MINUTES, START
from tests.support.dashboards import (
    ALL,
    DASHBOARDS,
    HOSTILE,
    ask,
    defaults,
    names_of,
    queries,
)
from tests.support.grafana import (
    CLICKHOUSE,
    AdHoc,
    Context,
    clickhouse_variables,
    expand_sql,
    panels,
)


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


def test_incident_counts_what_the_policy_counts(reader: Client) -> None:
    rows = ask(reader, "flow-incident", "Destination ports", condition="dst_port = 443")
    assert [row["Key"] for row in rows] == ["443"]
    raw = ask(reader, "flow-incident", "Raw flows", condition="dst_port = 443")
    assert {row["Destination port"] for row in raw} == {443}


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


def test_services_show_rises_and_dips_on_one_screen(reader: Client) -> None:
    """14999 of one host rises at half-time while 20012 falls silent at the end."""
    changes = ask(reader, "flow-services", "Rises and dips")
    assert (changes[0]["Key"], changes[0]["Second key"]) == ("10.1.0.1", "14999")
    assert changes[0]["Change"] > 0
    dips = [row for row in changes if row["Second key"] == "20012"]
    assert dips
    assert all(row["During"] == pytest.approx(row["Before"] * 2 / 3) for row in dips)
    rows = ask(reader, "flow-services", "Traffic by destination port")
    lines = {name: [r["Value"] for r in rows if r["series"] == name] for name in names_of(rows)}
    assert lines["14999 aggregation"][-1] > 5 * lines["14999 aggregation"][0]
    assert lines["20012"][0] > lines["20012"][-1] == 0
    assert {len(values) for values in lines.values()} == {MINUTES}


def test_services_have_a_panel_per_port(reader: Client) -> None:
    for port, name in (("20012", "20012"), (["443"], "443 https")):
        rows = ask(reader, "flow-services", "Port ${port}", port=port)
        assert names_of(rows) == {name}
    both = ask(reader, "flow-services", "Port ${port}", port=["443", "20012"])
    assert names_of(both) == {"443 https", "20012"}
    day = ask(reader, "flow-services", "Port ${port}", port="443", start=END - 86400)
    assert sum(row["Value"] for row in day) > 0
    assert names_of(day) == {"443 https"}
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
    assert {"r1 eth2 in", "r1 4 out"} <= names_of(series)
    for way in (" in", " out"):
        values = [row["Value"] for row in series if row["series"].endswith(way)]
        assert sum(values) / MINUTES == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("device", ["r1", "r'2\\"])
def test_interfaces_are_those_of_the_devices_chosen(reader: Client, device: str) -> None:
    numbers = ask(reader, "flow-interfaces", "Interfaces in numbers", device=[device])
    assert {row["Device"] for row in numbers} == {device}
    series = ask(reader, "flow-interfaces", "Into and out of interfaces", device=[device])
    assert {name.rpartition(" ")[0].rpartition(" ")[0] for name in names_of(series)} == {device}
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
    assert names_of(rows) == {"NXDOMAIN"}
    pairs = ask(reader, "flow-dns", "Names by client", filters=(AdHoc("src_host", "=", "k9"),))
    assert [(row["Client"], row["Name"]) for row in pairs] == [("10.0.0.9", "registry.example")]
    rare = ask(reader, "flow-dns", "Rare names", address="10.0.0.8")
    assert {row["Client"] for row in rare} == {"10.0.0.8"}
    assert {row["Questions"] for row in rare} == {1}
    known = ask(reader, "flow-dns", "New names", start=START + 1800)
    assert "pool.example.net" not in {row["Name"] for row in known}, "asked for before"
    latency = ask(reader, "flow-dns", "Time to answer")
    assert {round(row["Value"], 2) for row in latency} <= {0.01, 0.02}
