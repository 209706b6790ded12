"""Panels as Grafana's own package shows them: names, texts of cells, units, links.

Skipped, and saying so, unless a folder with the packages is named:

    npm install --prefix build/packages --legacy-peer-deps @grafana/data jsdom react@18 \\
        react-dom@18
    GRAFANA_PACKAGES=build/packages pytest tests/integration/test_grafana_packages.py -rs

What these packages say is in ``test_dashboard_columns`` as facts, which needs none of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.query import QueryResult

from tests.support.dashboard_flows import END, START
from tests.support.dashboards import DASHBOARDS, defaults, filled_store
from tests.support.grafana import CLICKHOUSE, Context, expand_sql, panels

PACKAGES = os.environ.get("GRAFANA_PACKAGES", "")
SHOWN = Path(__file__).parents[1] / "support/grafana_panels.cjs"
PANELS = {
    f"{uid}: {panel['title']}": panel
    for uid, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    if all(target["datasource"]["type"] == CLICKHOUSE for target in panel["targets"])
}

pytestmark = [
    pytest.mark.skipif(not PACKAGES, reason="GRAFANA_PACKAGES names no folder with @grafana/data"),
    pytest.mark.skipif(shutil.which("node") is None, reason="no node"),
]


def plain(value: object) -> object:
    """As the plugin's backend puts it into a frame."""
    if isinstance(value, datetime):
        return value.timestamp() * 1000
    return str(value) if isinstance(value, IPv6Address) else value


def kind(name: str) -> str:
    """Grafana's type of a column, by ClickHouse's."""
    if "DateTime" in name:
        return "time"
    return "string" if "String" in name or "IPv" in name or "Enum" in name else "number"


def frame(target: dict[str, Any], result: QueryResult) -> dict[str, Any]:
    """The frame that the plugin's backend makes: a table, or wide with a field per series."""
    columns = list(zip(*result.result_rows, strict=True)) or [() for _ in result.column_names]
    if target["format"] == 1:
        fields = [
            {"name": name, "type": kind(told.name), "values": [plain(value) for value in values]}
            for name, told, values in zip(
                result.column_names, result.column_types, columns, strict=True
            )
        ]
        return {"refId": target["refId"], "fields": fields}
    times = sorted(set(columns[0]))
    fields = [{"name": "time", "type": "time", "values": [plain(at) for at in times]}]
    for series in dict.fromkeys(columns[1]):
        values = {row[0]: row[2] for row in result.result_rows if row[1] == series}
        fields.append(
            {
                "name": "Value",
                "type": "number",
                "labels": {"series": series},
                "values": [values.get(at) for at in times],
            }
        )
    return {"refId": target["refId"], "fields": fields}


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]:
    """By panel: the frames of its queries that have rows, and what is shown of them."""
    asked = []
    with filled_store() as reader:
        for title, panel in PANELS.items():
            context = Context(START, END, 60, defaults(title.partition(":")[0]))
            results = (
                (target, reader.query(expand_sql(target["rawSql"], context)))
                for target in panel["targets"]
            )
            frames = [frame(target, result) for target, result in results if result.row_count]
            asked.append({"panel": panel, "frames": frames})
    lines = "".join(json.dumps(each, allow_nan=False) + "\n" for each in asked)
    run = subprocess.run(
        ["node", str(SHOWN), str(Path(PACKAGES).absolute())],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    shown = [json.loads(line) for line in run.stdout.splitlines()]
    return {
        title: (each["frames"], made)
        for title, each, made in zip(PANELS, asked, shown, strict=True)
    }


def shown_instead(panel: dict[str, Any]) -> dict[str, str]:
    """By columns, what stands there in place of any value."""
    return {
        override["matcher"]["options"]: mapping["options"]["result"]["text"]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        for mapping in (each["value"] if each["id"] == "mappings" else [])
        if mapping["type"] == "regex"
    }


@pytest.mark.parametrize("title", PANELS)
def test_panels_show_what_was_answered(told: dict, title: str) -> None:
    frames, shown = told[title]
    by_ref = dict(zip((each["refId"] for each in frames), frames, strict=True))
    assert shown["frames"]
    for given, made in zip(frames, shown["frames"], strict=False):
        fields = by_ref[given["refId"]]["fields"]
        if PANELS[title]["type"] == "timeseries":
            assert made["names"][1:] == [field["labels"]["series"] for field in fields[1:]]
        elif PANELS[title]["type"] == "table":
            assert made["names"] == [field["name"] for field in fields]
        for field, text in zip(fields, made["texts"], strict=True):
            if field["type"] == "string" and PANELS[title]["type"] == "table":
                value = field["values"][0]
                said = value and shown_instead(PANELS[title]).get(field["name"])
                assert text == (said or value), field["name"]
            assert text != "NaN"


@pytest.mark.parametrize("title", PANELS)
def test_links_have_all_values(told: dict, title: str) -> None:
    for made in told[title][1]["frames"]:
        for name, links in zip(made["names"], made["links"], strict=True):
            assert not [link for link in links if "${__data" in link or "${__value" in link], name


@pytest.mark.parametrize("title", [t for t in PANELS if PANELS[t].get("transformations")])
def test_units_of_queries_reach_the_numbers(told: dict, title: str) -> None:
    """Bits/s are the measure of all dashboards as they are opened."""
    texts = [text for made in told[title][1]["frames"] for text in made["texts"]]
    assert any(text.endswith("b/s") for text in texts), texts
