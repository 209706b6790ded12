"""What panels say of columns, series and labels by name, held against what their queries return.

Grafana is silent about an override, a transformation or a link that names nothing. How it names
columns and shows text was found by running its own packages (``@grafana/data`` 11.6.16 and 13.2.3)
on the frames that the ClickHouse plugin makes of these answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from clickhouse_connect.driver.query import QueryResult

from tests.support.dashboard_flows import END, START
from tests.support.dashboards import DASHBOARDS, defaults, filled_store
from tests.support.grafana import CLICKHOUSE, Context, Value, expand_sql, panels

#: The panels that ask ClickHouse, rows' panels included.
PANELS = {
    f"{uid}: {panel['title']}": panel
    for uid, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    if all(target["datasource"]["type"] == CLICKHOUSE for target in panel["targets"])
}
#: With these, series that are not always there are: of an earlier time, and Other.
CHOSEN: dict[str, dict[str, Value]] = {
    "flow-explorer": {"compare": "day", "top": "5"},
    "flow-incident": {"dimension": "src_addr"},
}
#: Has the looks of its siblings, but series of chosen keys only.
ONE_KEY = "flow-explorer: ${key}: ${measure:text}"

#: Ids of units that queries may tell; from ``getValueFormats`` of ``@grafana/data``.
UNITS = {"bps", "pps", "cps", "short", "none", "percentunit", "decbits", "decbytes"}

Results = dict[str, QueryResult]


@pytest.fixture(scope="module")
def answers() -> Iterator[Callable[[str], Results]]:
    """The result of each query of a panel, by the query's letter; asked once."""
    with filled_store() as reader:

        @cache
        def ask(title: str) -> Results:
            uid = title.partition(":")[0]
            context = Context(START, END, 60, defaults(uid) | CHOSEN.get(uid, {}))
            return {
                target["refId"]: reader.query(expand_sql(target["rawSql"], context))
                for target in PANELS[title]["targets"]
            }

        yield ask


def configured(panel: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Transformations that take settings from a query, by that query's letter."""
    return {
        change["options"]["configRefId"]: change["options"]
        for change in panel.get("transformations", [])
        if change["id"] == "configFromData"
    }


def names(panel: dict[str, Any], results: Results) -> set[str]:
    """Columns of the panel's table or names of its series, without queries that only configure."""
    kept = [result for ref, result in results.items() if ref not in configured(panel)]
    if panel["type"] == "timeseries":
        return {str(row[1]) for result in kept for row in result.result_rows}
    return {column for result in kept for column in result.column_names}


def pattern(text: str) -> re.Pattern[str]:
    """As Grafana reads it: with or without slashes around."""
    return re.compile(text[1:-1] if text.startswith("/") else text)


def linked(panel: dict[str, Any]) -> set[str]:
    """Columns that the data links of a panel take values from."""
    settings = panel["fieldConfig"]
    changed = [
        each for override in settings.get("overrides", []) for each in override["properties"]
    ]
    links = settings["defaults"].get("links", []) + [
        link for each in changed if each["id"] == "links" for link in each["value"]
    ]
    found = (re.findall(r"\$\{__data\.fields\.([^}:]+)", link["url"]) for link in links)
    return {name for names in found for name in names}


@pytest.mark.parametrize("title", PANELS)
def test_every_name_in_a_panel_is_one_that_its_queries_return(
    answers: Callable[[str], Results], title: str
) -> None:
    panel = PANELS[title]
    known = names(panel, answers(title))
    for override in panel["fieldConfig"].get("overrides", []):
        kind, told = override["matcher"]["id"], override["matcher"]["options"]
        if kind == "byName":
            assert told in known or (title, told) == (ONE_KEY, "Other")
        elif kind == "byRegexp":
            held = any(pattern(told).search(name) for name in known)
            assert held or (title, told) == (ONE_KEY, "/, earlier$/")
        else:
            assert (kind, told) == ("byType", "string")
    for sort in panel["options"].get("sortBy", []):
        assert sort["displayName"] in known


@pytest.mark.parametrize("title", [title for title in PANELS if configured(PANELS[title])])
def test_units_are_told_to_columns_that_exist(
    answers: Callable[[str], Results], title: str
) -> None:
    """By name or type: a pattern is held against ``A Before`` where there is a second query."""
    panel, results = PANELS[title], answers(title)
    for ref, options in configured(panel).items():
        [(unit,)] = results[ref].result_rows
        assert results[ref].column_names == ("unit",)
        assert unit in UNITS
        assert options["mappings"] == [{"fieldName": "unit", "handlerKey": "unit"}]
        applied = options["applyTo"]
        if panel["type"] == "timeseries":
            assert applied == {"id": "byType", "options": "number"}
        else:
            assert (applied["id"], applied["options"]["mode"]) == ("byNames", "include")
            assert set(applied["options"]["names"]) <= names(panel, results)


@pytest.mark.parametrize("title", [title for title in PANELS if linked(PANELS[title])])
def test_links_take_values_of_text_columns_of_the_same_row(
    answers: Callable[[str], Results], title: str
) -> None:
    """A number would be put in as it is shown: port 14999 as 15.0 K."""
    types = {
        name: kind.base_type
        for result in answers(title).values()
        for name, kind in zip(result.column_names, result.column_types, strict=True)
    }
    assert {types[name] for name in linked(PANELS[title])} == {"String"}


@pytest.mark.parametrize("title", [title for title in PANELS if PANELS[title]["type"] == "table"])
def test_tables_have_columns_that_grafana_shows_as_they_are(
    answers: Callable[[str], Results], title: str
) -> None:
    panel, results = PANELS[title], answers(title)
    # Or text that looks like a number gets the panel's unit, in links as well, and any other NaN.
    assert panel["fieldConfig"]["overrides"][0] == {
        "matcher": {"id": "byType", "options": "string"},
        "properties": [{"id": "unit", "value": "string"}],
    }
    columns = [
        column
        for ref, result in results.items()
        if ref not in configured(panel)
        for column in result.column_names
    ]
    assert len(columns) == len(set(columns))
    assert "Value" not in columns, "it would be headed by the query's letter"


@pytest.mark.parametrize(
    "title", [title for title in PANELS if PANELS[title]["type"] == "timeseries"]
)
def test_series_are_named_by_their_only_label(title: str) -> None:
    """Or Grafana puts the query's letter in front where there are two queries."""
    assert PANELS[title]["fieldConfig"]["defaults"]["displayName"] == "${__field.labels.series}"


def test_a_node_graph_gets_the_columns_that_it_knows(answers: Callable[[str], Results]) -> None:
    """``id`` and ``source`` tell nodes and edges apart; text in ``mainstat`` is shown as it is."""
    [title] = [title for title in PANELS if PANELS[title]["type"] == "nodeGraph"]
    nodes, edges = answers(title).values()
    assert set(nodes.column_names) == {"id", "title", "mainstat", "bits"}
    assert set(edges.column_names) == {"id", "source", "target", "mainstat", "bits"}
    for row in (*nodes.named_results(), *edges.named_results()):
        assert re.fullmatch(r"[\d.]+ [KMGT]?b/s", row["mainstat"])
