"""Dashboards as files: what a reader of the JSON, or Grafana's own linter, would object to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from exporter.cli import app
from exporter.cli.dashboards import DashboardsError, differences, generate, write
from exporter.policies.measures import MEASURES
from exporter.schema import BY_NAME
from tests.support.grafana import (
    CLICKHOUSE,
    clickhouse_queries,
    clickhouse_variables,
    panels,
    variables,
)

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
PROVISIONED = {
    source["uid"]: source
    for source in yaml.safe_load(
        (GRAFANA / "provisioning/datasources/flow.yaml").read_text(encoding="utf-8")
    )["datasources"]
}
PANELS = [
    pytest.param(uid, panel, id=f"{uid}: {panel['title']}")
    for uid, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
]

#: Those of Grafana's valueFormats that we use.
UNITS = {
    "bps", "pps", "cps", "ops", "s", "short", "none", "percentunit", "percent", "decbytes",
    "dateTimeAsIso", "string",
}  # fmt: skip

#: Variables that Grafana itself knows in links and titles.
BUILT_IN = {"__url_time_range", "__value", "__data", "__field", "__rate_interval"}


def test_dashboards_are_what_their_source_makes() -> None:
    made = generate(GRAFANA)
    assert made == generate(GRAFANA), "the same at every call"
    assert differences(GRAFANA, made) == []


def test_drift_is_told_and_mended(tmp_path: Path) -> None:
    made = {"a.json": "{}\n", "b.json": "{}\n"}
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards/a.json").write_text("{}")
    (tmp_path / "dashboards/old.json").write_text("{}")
    told = differences(tmp_path, made)
    assert [line.rpartition("/")[2] for line in told] == [
        "a.json: differs from the source",
        "b.json: missing",
        "old.json: no dashboard of the source has this name",
    ]
    write(tmp_path, made)
    assert differences(tmp_path, made) == []


def test_command_checks_and_explains(tmp_path: Path) -> None:
    run = CliRunner()
    assert run.invoke(app, ["dashboards", "--check", "--folder", str(GRAFANA)]).exit_code == 0
    (tmp_path / "source").symlink_to(GRAFANA / "source")
    checked = run.invoke(app, ["dashboards", "--check", "--folder", str(tmp_path)])
    assert checked.exit_code == 1
    assert "flow-home.json: missing" in checked.output
    missing = run.invoke(app, ["dashboards", "--folder", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "--folder" in missing.output


def test_a_missing_sdk_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DashboardsError, match=r"\.\[dev\]"):
        generate(GRAFANA)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_dashboard_has_what_all_have(uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    assert dashboard["uid"] == uid
    assert uid.startswith("flow-")
    assert dashboard["title"].startswith("Flow ")
    assert dashboard["description"]
    assert dashboard["timezone"] == "utc"
    assert dashboard["editable"] is False
    assert "flow" in dashboard["tags"]
    ids = [
        each["id"] for panel in dashboard["panels"] for each in (panel, *panel.get("panels", []))
    ]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_do_not_overlap(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[uid]["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_dashboards_can_be_taken_in(uid: str) -> None:
    """Two screens of 1440 by 900 are 40 rows of the grid; what is more is in rows to be opened."""
    panels_seen = [panel for panel in DASHBOARDS[uid]["panels"] if panel["type"] != "row"]
    graphs = [p for p in panels_seen if p["gridPos"]["y"] < 40 and p["type"] != "stat"]
    assert len(graphs) <= 12
    assert len(panels_seen) <= 14
    for panel in panels(DASHBOARDS[uid]):
        assert panel["gridPos"]["w"] >= (4 if panel["type"] == "stat" else 6)
        assert panel["gridPos"]["h"] >= 4


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_panel_says_what_it_is(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"].strip()
    assert len(panel["description"]) > 20
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    assert panel["targets"]
    for override in panel["fieldConfig"].get("overrides", []):
        for changed in override["properties"]:
            if changed["id"] == "unit":
                assert changed["value"] in UNITS


#: What options of panels there are, and what ``fieldConfig.defaults.custom`` may have: from the
#: types of the package ``@grafana/schema`` 11.6 (``*PanelCfg_types.gen`` and ``common.gen``).
OPTIONS = {
    "timeseries": {"legend", "tooltip", "timezone", "orientation", "timeCompare"},
    "table": {"cellHeight", "footer", "frameIndex", "showHeader", "showTypeIcons", "sortBy"},
    "stat": {
        "colorMode", "graphMode", "justifyMode", "orientation", "percentChangeColorMode",
        "reduceOptions", "showPercentChange", "text", "textMode", "wideLayout",
    },
    "nodeGraph": {"edges", "nodes", "zoomMode"},
}  # fmt: skip
INNER = {
    "legend": {
        "asTable", "calcs", "displayMode", "isVisible", "placement", "showLegend", "sortBy",
        "sortDesc", "width",
    },
    "tooltip": {"hideZeros", "maxHeight", "maxWidth", "mode", "sort"},
    "footer": {"countRows", "enablePagination", "fields", "reducer", "show"},
    "reduceOptions": {"calcs", "fields", "limit", "values"},
}  # fmt: skip
CUSTOM = {
    "timeseries": {
        "axisLabel", "axisPlacement", "drawStyle", "fillBelowTo", "fillOpacity", "lineStyle",
        "lineWidth", "showPoints", "stacking", "transform",
    },
    "table": {"align", "cellOptions", "filterable", "hidden", "inspect"},
    "stat": set(),
    "nodeGraph": set(),
}  # fmt: skip


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_panel_has_options_that_exist(uid: str, panel: dict[str, Any]) -> None:
    """Grafana ignores a misspelt one."""
    options = panel.get("options", {})
    assert options.keys() <= OPTIONS[panel["type"]]
    for name, inner in options.items():
        if isinstance(inner, dict):
            assert inner.keys() <= INNER[name]
    custom = set(panel["fieldConfig"]["defaults"].get("custom") or {})
    for override in panel["fieldConfig"].get("overrides", []):
        assert override["matcher"]["id"] in ("byName", "byRegexp", "byFrameRefID", "byType")
        names = [changed["id"] for changed in override["properties"]]
        custom |= {name.removeprefix("custom.") for name in names if name.startswith("custom.")}
        plain = {name for name in names if not name.startswith("custom.")}
        assert plain <= {"color", "links", "mappings", "thresholds", "unit"}
    assert custom <= CUSTOM[panel["type"]]
    for transformation in panel.get("transformations", []):
        assert transformation["id"] in ("merge", "organize", "configFromData")


#: Values that options may have, of those that Grafana 11.6 and 13.2 both know: enumerations of
#: ``@grafana/schema``; reducers, matchers and colour modes from the registries of
#: ``@grafana/data``.
VALUES = {
    "displayMode": {"list", "table", "hidden"},
    "placement": {"bottom", "right"},
    "sort": {"asc", "desc", "none"},
    "cellHeight": {"sm", "md", "lg", "auto"},
    "colorMode": {"value", "background", "background_solid", "none"},
    "graphMode": {"none", "line", "area"},
    "textMode": {"auto", "value", "value_and_name", "name", "none"},
    "drawStyle": {"line", "bars", "points"},
    "showPoints": {"auto", "never", "always"},
    "axisPlacement": {"auto", "top", "right", "bottom", "left", "hidden"},
    "transform": {"constant", "negative-Y"},
    "align": {"auto", "left", "right", "center"},
    "fill": {"solid", "dash", "dot", "square"},
}
#: ``mode`` by what it is a mode of.
MODES = {
    "tooltip": {"single", "multi", "none"},
    "stacking": {"none", "normal", "percent"},
    "thresholds": {"absolute", "percentage"},
    "color": {"fixed", "shades", "thresholds", "palette-classic", "palette-classic-by-name"},
    "custom.cellOptions": {"basic", "gradient", "lcd"},
}
#: Reducers, and what a legend calls their columns.
CALCS = {"lastNotNull": "Last *", "mean": "Mean", "max": "Max", "min": "Min", "sum": "Total"}
CELLS = {"auto", "color-text", "color-background", "gauge", "data-links"}
LINKS = {"title", "url", "targetBlank"}


def settings(value: object, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All objects within, by the name that each has there; a property of an override by its id."""
    if isinstance(value, dict):
        yield name, value
        for key, inner in value.items():
            property_id = value.get("id") if key == "value" else None
            yield from settings(inner, str(property_id or key))
    elif isinstance(value, list):
        for inner in value:
            yield from settings(inner, name)


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_options_have_values_that_exist(uid: str, panel: dict[str, Any]) -> None:
    """Grafana draws something else for one that it does not know."""
    told = {"options": panel.get("options", {}), "fieldConfig": panel["fieldConfig"]}
    for name, inner in settings(told):
        for key, value in inner.items():
            if key in VALUES and isinstance(value, str):
                assert value in VALUES[key], (name, key)
        if "mode" in inner:
            assert inner["mode"] in MODES[name], name
        if "calcs" in inner:
            assert inner["calcs"]
            assert set(inner["calcs"]) <= CALCS.keys()
        if name == "legend":
            assert inner["sortBy"] in {CALCS[calc] for calc in inner["calcs"]}
        if name == "custom.cellOptions":
            assert inner["type"] in CELLS
        if name == "links":
            assert {"title", "url"} <= inner.keys() <= LINKS
        if name == "mappings":
            assert inner["type"] in ("value", "range", "regex", "special")
        if name in ("color", "thresholds"):
            assert "mode" in inner


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_values_in_links_say_how_they_are_written(uid: str, panel: dict[str, Any]) -> None:
    """Without a format Grafana encodes as for a whole URL: ``&`` stays, ``%`` is encoded again."""
    urls = [inner["url"] for name, inner in settings(panel["fieldConfig"]) if name == "links"]
    for url in urls:
        for told in re.findall(r"\$\{__(?:data|field|value)\.([^}]+)\}", url):
            whole = url.startswith("${__value.raw:")
            assert told.endswith(":raw" if whole else ":percentencode"), url


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_panel_asks_a_provisioned_datasource(uid: str, panel: dict[str, Any]) -> None:
    for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
        name = source["uid"].removeprefix("${").removesuffix("}")
        variable = variables(DASHBOARDS[uid])[name]
        assert variable["type"] == "datasource"
        assert variable["query"] == source["type"]
        assert PROVISIONED[variable["current"]["value"]]["type"] == source["type"]


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_time_series_show_a_legend_and_start_at_zero(uid: str, panel: dict[str, Any]) -> None:
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"] is True
        below = ("Clock skew", "Into and out of interfaces")
        assert panel["title"] in below or panel["fieldConfig"]["defaults"]["min"] == 0


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_rates_use_grafanas_interval(uid: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for function, window in re.findall(
            r"\b(rate|irate|increase)\([^()\[]*\[([^\]]+)\]", target.get("expr", "")
        ):
            # Whether a device reports is asked of a fixed time, however wide the graph is.
            assert window == "$__rate_interval" or (function, window) == ("increase", "5m")


@pytest.mark.parametrize(("uid", "panel"), PANELS)
def test_counters_are_never_shown_raw(uid: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for found in re.finditer(r"(\w+\()?flow_\w+_total", target.get("expr", "")):
            assert found[1] in ("rate(", "increase("), found[0]


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_variables_that_are_used_exist(uid: str) -> None:
    known = variables(DASHBOARDS[uid]).keys() | BUILT_IN
    for text in texts(DASHBOARDS[uid]):
        assert set(re.findall(r"\$\{(\w+)", text)) <= known, text


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_variables_explain_themselves_and_follow_the_range(uid: str) -> None:
    for name, variable in variables(DASHBOARDS[uid]).items():
        if variable["type"] in ("datasource", "constant"):
            assert variable["hide"] == 2
            continue
        assert variable["label"], name
        assert variable["description"], name
        if variable["type"] == "query":
            assert variable["refresh"] == 2, "filled again when the range changes"
            assert not variable.get("includeAll") or variable["allValue"] == "*"
        if variable["type"] == "custom":
            options = re.findall(r" : (\w+)", variable["query"])
            assert variable["current"]["value"] in options
            assert variable["allowCustomValue"] is False


def links(dashboard: dict[str, Any]) -> Iterator[str]:
    for text in texts(dashboard):
        if text.startswith("/d/"):
            yield text


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_links_lead_to_dashboards_variables_and_values_that_exist(uid: str) -> None:
    found = list(links(DASHBOARDS[uid]))
    assert found
    for target in found:
        path, _, query = target.partition("?")
        there = DASHBOARDS[path.removeprefix("/d/")]
        known = variables(there)
        for part in filter(None, query.split("&")):
            if part == "${__url_time_range}":
                continue
            if carried := re.fullmatch(r"\$\{(\w+):queryparam\}", part):
                assert carried[1] in known
                continue
            name, _, value = part.partition("=")
            if name == "viewPanel":
                assert int(value) in [panel["id"] for panel in there["panels"]]
                continue
            variable = known[name.removeprefix("var-")]
            # A policy's measure has the name of ours.
            if variable["type"] == "custom" and value != "${__data.fields.measure:percentencode}":
                assert value in re.findall(r" : (\w+)", variable["query"]), target
            if variable["type"] == "adhoc":
                column = value.partition("%7C")[0]
                assert column.startswith("${") or column in BY_NAME, target


def test_links_that_leave_a_range_take_it_along() -> None:
    """Or the range drifts while one looks."""
    for uid, dashboard in DASHBOARDS.items():
        for made in dashboard["links"]:
            assert made["keepTime"] is True, uid
            assert "placement" not in made
        for target in links({"panels": dashboard["panels"]}):
            assert "${__url_time_range}" in target


def test_dimensions_are_flow_columns() -> None:
    query = variables(DASHBOARDS["flow-explorer"])["dimension"]["query"]
    dimensions = re.findall(r" : (\w+)", query)
    assert len(dimensions) > 40
    assert set(dimensions) <= BY_NAME.keys()


#: Measures of policies that the explorer shows as bits/s: a share of capacity is one of an
#: interface only, and DNS queries are in a table and on a dashboard of their own.
NOT_IN_EXPLORER = {"share_of_capacity", "queries", "unique_dns_name"}


def test_explorer_has_measures_of_policies_by_the_same_names() -> None:
    """A link of an alert sets it."""
    query = variables(DASHBOARDS["flow-explorer"])["measure"]["query"]
    drawn = [m.name for m in MEASURES.values() if m.has_past and m.name not in NOT_IN_EXPLORER]
    assert re.findall(r" : (\w+)", query) == drawn
    assert MEASURES.keys() >= NOT_IN_EXPLORER


def test_no_address_is_looked_for_by_or() -> None:
    """``src = x OR dst = x`` uses no index and takes ten times as long."""
    for dashboard in DASHBOARDS.values():
        for text in texts(dashboard):
            assert not re.search(r"src_addr = \S+ OR dst_addr", text)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_queries_are_of_the_datasources_own_database(uid: str) -> None:
    """Whatever its ``defaultDatabase`` is called: no table is named with one."""
    dashboard = DASHBOARDS[uid]
    asked = {**clickhouse_queries(dashboard), **clickhouse_variables(dashboard)}
    if values := variables(dashboard).get("clickhouse_adhoc_query"):
        asked["values of ad-hoc filters"] = values["query"]
    for name, sql in asked.items():
        tables = re.findall(r"\b(?:FROM|JOIN)\s+([\w.]+)", sql)
        assert not [table for table in tables if "." in table], name


def test_provisioning_takes_places_and_secrets_from_the_environment() -> None:
    assert list(PROVISIONED) == ["flow-clickhouse", "flow-prometheus", "flow-alertmanager"]
    clickhouse = PROVISIONED["flow-clickhouse"]
    assert clickhouse["jsonData"]["username"] == "flow_reader"
    assert clickhouse["jsonData"]["defaultDatabase"] == "flow"
    assert clickhouse["secureJsonData"] == {"password": "$FLOW_READER_PASSWORD"}
    provider = yaml.safe_load(
        (GRAFANA / "provisioning/dashboards/flow.yaml").read_text(encoding="utf-8")
    )["providers"][0]
    assert provider["options"]["path"] == "$FLOW_DASHBOARDS_PATH"
    used = {
        name
        for path in (GRAFANA / "provisioning").rglob("*.yaml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
        for name in re.findall(r"\$(\w+)", line.replace("$$", ""))
    }
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert used <= compose["services"]["grafana"]["environment"].keys()
    page = (ROOT / "docs/how-to/provision-grafana.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in used)


def correlations() -> Iterator[dict[str, Any]]:
    for source in PROVISIONED.values():
        yield from source.get("correlations", [])


def test_correlations_lead_from_addresses_to_flows_and_to_who_they_are() -> None:
    found = [(made["label"].split()[0], made["config"]["field"]) for made in correlations()]
    assert set(found) == {
        (what, field) for what in ("Flows", "Who") for field in ("src_addr", "dst_addr")
    }
    for made in correlations():
        config = made["config"]
        assert made["description"]
        assert config["field"] in BY_NAME
        [change] = config["transformations"]
        assert (change["type"], change["field"]) == ("regex", config["field"])
        assert PROVISIONED[made["targetUID"]]["type"] == CLICKHOUSE
        assert "${address}" in config["target"]["rawSql"]


def test_correlations_are_such_as_every_grafana_provisions() -> None:
    """Grafana 11.6 panics at its start on ``type: query`` beside ``config``, and refuses to start
    where ``config.type`` is missing (``makeCreateCorrelationCommand`` of its ``provisioning``).
    """
    for made in correlations():
        assert made.keys() == {"targetUID", "label", "description", "config"}
        assert made["config"].keys() == {"type", "field", "target", "transformations"}
        assert made["config"]["type"] == "query"


@pytest.mark.parametrize("text", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"])
def test_correlations_take_addresses_only(text: str) -> None:
    """What they put into SQL is no variable that Grafana quotes."""
    for made in correlations():
        [change] = made["config"]["transformations"]
        assert re.search(change["expression"], text)
        assert not re.search(change["expression"], f"{text}' OR 1=1 --")


def test_compose_has_a_plugin_that_knows_our_queries() -> None:
    """Ad-hoc filters placed by macro and column names without table came with 4.13."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    environment = compose["services"]["grafana"]["environment"]
    version = environment["GF_PLUGINS_PREINSTALL"].partition("@")[2]
    assert tuple(map(int, version.split("."))) >= (4, 13, 0)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_reference_page_lists_everything(uid: str) -> None:
    page = (ROOT / "docs/reference/dashboards.md").read_text(encoding="utf-8")
    section = re.search(rf"^## [^\n]*`{uid}`.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, uid
    items = re.findall(r"^- .*?(?=^- |^\n|\Z)", section[0], re.MULTILINE | re.DOTALL)
    told = [" ".join(item.split()) for item in items]
    for panel in panels(DASHBOARDS[uid]):
        assert f"- **{panel['title']}**: {panel['description']}" in told
    for name, variable in variables(DASHBOARDS[uid]).items():
        if variable["type"] not in ("datasource", "constant"):
            assert f"`{name}`" in section[0], name
