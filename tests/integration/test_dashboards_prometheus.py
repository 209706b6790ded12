"""Every PromQL query of every dashboard against the real Prometheus; the names are real, too."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from exporter.collector import CollectorProcess
from exporter.config import ClickHouse, Config, Http, Policies, Receive, UdpListener
from exporter.policies.model import load_policies
from exporter.schema import BY_NAME
from tests.support.grafana import Context, Value, expand_promql, panels, variables
from tests.support.prometheus import Prometheus, blocks, running_prometheus

ROOT = Path(__file__).parents[2]
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
}
TARGETS = [
    (f"{uid}: {panel['title']} {target['refId']}", target)
    for uid, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    for target in panel["targets"]
    if target["datasource"]["type"] == "prometheus"
]

END = int(time.time()) // 60 * 60
START = END - 1800
STEP = 15

#: Values of labels in the samples; a metric gets all labels of its family.
LABELS = {
    "device": ["r1", "r2"],
    "source": ["ipfix"],
    "severity": ["critical"],
    "listener": ["127.0.0.1:2055"],
    "service": ["aggregation", "", "other"],
    "le": ["0.1", "1.0", "+Inf"],
}


@pytest.fixture(scope="module")
def families() -> dict[str, Metric]:
    """All metrics of the collector by family name, from a collector without ClickHouse."""
    free = UdpListener(port=0)
    config = Config(
        receive=Receive(udp=[free]),
        http=Http(port=0),
        clickhouse=ClickHouse(url="http://127.0.0.1:9"),
        policies=Policies(file=str(ROOT / "alerting/policies.yaml")),
    )
    with CollectorProcess(config, None) as process:
        return {family.name: family for family in process.registry.collect()}


def family_of(name: str, families: dict[str, Metric]) -> Metric:
    for suffix in ("_total", "_bucket", "_count", "_sum", "_info", ""):
        found = families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if found is not None:
            return found
    raise AssertionError(f"no collector has {name}")


def names(expression: str) -> set[str]:
    """Metrics of the collector, and what rules record."""
    return set(re.findall(r"(?:\bflow_|\b(?:key|policy):flow_)[\w:]+", expression))


def recorded() -> set[str]:
    """Names that the rules record."""
    return {
        rule["record"]
        for file in (ROOT / "alerting/rules").glob("*.yml")
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def test_every_metric_exists(families: dict[str, Metric]) -> None:
    for title, target in TARGETS:
        for name in names(target["expr"]):
            if ":" in name:
                assert name in recorded(), title
                continue
            kind = family_of(name, families).type
            assert name.endswith("_total") == (kind == "counter"), title


def test_variables_ask_for_metrics_and_labels_that_exist(families: dict[str, Metric]) -> None:
    for uid, dashboard in DASHBOARDS.items():
        for name, variable in variables(dashboard).items():
            asked = re.fullmatch(
                r"label_values\((\w+)(?:{.*})?, (\w+)\)", variable.get("definition", "")
            )
            if asked is None:
                continue
            assert asked[2] == name, uid
            for sample in family_of(asked[1], families).samples:
                assert {"policy", name} <= sample.labels.keys(), uid


@pytest.fixture(scope="module")
def prometheus(
    families: dict[str, Metric], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Half an hour of samples of every metric that the dashboards use."""
    folder = tmp_path_factory.mktemp("prometheus")
    used = sorted({name for _, target in TARGETS for name in names(target["expr"])})
    lines = [
        line
        for name in used
        for line in samples(name, None if ":" in name else family_of(name, families))
    ]
    node = 'instance="ag04:9100"'
    lines += ["# TYPE node_cpu_seconds counter"]
    lines += [
        f'node_cpu_seconds_total{{{node},mode="idle"}} {t - START} {t}'
        for t in range(START, END + 1, STEP)
    ]
    lines += ["# TYPE up gauge", *(f"up{{{node}}} 1 {t}" for t in range(START, END + 1, STEP))]
    lines += ["# TYPE ALERTS gauge"]
    alert = 'alertname="FlowHigh",severity="critical",policy="host_bits"'
    firing = f'ALERTS{{{alert},alertstate="firing"}}'
    lines += [f"{firing} 1 {t}" for t in range(START, END + 1, STEP)]
    lines += ["# TYPE ALERTS_FOR_STATE gauge"]
    lines += [f"ALERTS_FOR_STATE{{{alert}}} {START} {t}" for t in range(START, END + 1, STEP)]
    blocks(folder, "\n".join([*lines, "# EOF"]) + "\n")
    with running_prometheus(folder) as running:
        yield running


def samples(name: str, family: Metric | None) -> Iterator[str]:
    """A growing series per label set; labels are those that the dashboards group by.

    What rules record has no family, and the labels that an alert's link chooses.
    """
    if family is None:
        yield f"# TYPE {name} gauge"
        yield from (f'{name}{{policy="host_bits"}} 7 {at}' for at in range(START, END + 1, STEP))
        return
    grouped = {label for _, target in TARGETS for label in labels(target["expr"], name)}
    sets = [""]
    for label in sorted(grouped):
        values = LABELS.get(label, ["x"])
        sets = [f'{had}{label}="{value}",' for had in sets for value in values]
    yield f"# TYPE {name.removesuffix('_total').removesuffix('_bucket')} {family.type}"
    for number, text in enumerate(sets, start=1):
        for at in range(START, END + 1, STEP):
            grows = family.type in ("counter", "histogram")
            value = (at - START) * number if grows else number
            if name.endswith("timestamp_seconds"):
                value = at - 5
            yield f"{name}{{{text.rstrip(',')}}} {value} {at}"


def labels(expression: str, name: str) -> set[str]:
    if name not in expression:
        return set()
    found = re.findall(r"by \(([^)]*)\)", expression)
    return {label.strip() for group in found for label in group.split(",")}


def chosen(title: str) -> dict[str, Value]:
    """Values of a dashboard's boxes as it is opened, and the policy that it is about."""
    held = variables(DASHBOARDS[title.partition(":")[0]])
    boxes = {name: box["query"] for name, box in held.items() if box["type"] == "textbox"}
    return boxes | {"policy": "host_bits"}


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[title for title, _ in TARGETS])
def test_every_query_returns_data(prometheus: Prometheus, title: str, target: dict) -> None:
    expression = expand_promql(target["expr"], Context(START, END, STEP, chosen(title)))
    if target.get("instant"):
        assert prometheus.query(expression, END), title
        return
    series = prometheus.query_range(expression, START + 300, END, STEP)
    assert series, title
    values = [float(value) for one in series for _, value in one["values"]]
    assert all(value == value for value in values), title


def test_each_service_at_home_leads_to_flows_that_it_may_have(prometheus: Prometheus) -> None:
    """Those of the counter's other have some service, none of that name."""
    [panel] = [each for each in panels(DASHBOARDS["flow-home"]) if "by service" in each["title"]]
    [target] = panel["targets"]
    expression = expand_promql(target["expr"], Context(START, END, STEP, {}))
    found = {
        one["metric"]["name"]: one["metric"]["filter"] for one in prometheus.query(expression, END)
    }
    assert found == {"aggregation": "=|aggregation", "no known service": "=|", "other": "!=|"}
    [link] = panel["fieldConfig"]["defaults"]["links"]
    assert link["url"].endswith("var-filters=service%7C${__field.labels.filter:percentencode}")


def labels_of(running: Prometheus, title: str, target: dict) -> set[str]:
    """Labels that the series of a query have."""
    expression = expand_promql(target["expr"], Context(START, END, STEP, chosen(title)))
    return {label for one in running.query(expression, END) for label in one["metric"]}


TABLES = [
    pytest.param(f"{uid}: {panel['title']}", panel, id=f"{uid}: {panel['title']}")
    for uid, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    if panel["type"] == "table" and panel["datasource"]["type"] == "prometheus"
]


@pytest.mark.parametrize(("title", "panel"), TABLES)
def test_columns_that_tables_name_are_labels_and_values_of_their_queries(
    prometheus: Prometheus, title: str, panel: dict
) -> None:
    """Grafana names the values of several tables ``Value #A``; text is shown as it is."""
    columns = {"Time"}
    for target in panel["targets"]:
        assert (target["instant"], target["format"]) == (True, "table")
        several = f" #{target['refId']}" if len(panel["targets"]) > 1 else ""
        columns |= {f"Value{several}", *labels_of(prometheus, title, target)}
    merge, organize = panel["transformations"]
    assert (merge["id"], organize["id"]) == ("merge", "organize")
    options = organize["options"]
    # No key of the samples has a baseline that was told.
    assert options["renameByName"].keys() - {"baseline"} <= columns
    assert options["indexByName"].keys() == options["renameByName"].keys()
    # What only some alerts or keys have, and what would say nothing.
    hidden = {"Time", "Value #A", "__name__", "instance", "job", "dashboard", "policy"}
    assert options["excludeByName"].keys() <= hidden
    shown = set(options["renameByName"].values()) | columns - options["excludeByName"].keys()
    first, *overrides = panel["fieldConfig"]["overrides"]
    assert first == {
        "matcher": {"id": "byType", "options": "string"},
        "properties": [{"id": "unit", "value": "string"}],
    }
    # Alerts of other policies have other columns of flows.
    assert {override["matcher"]["options"] for override in overrides} <= shown | BY_NAME.keys()


def test_labels_in_legends_and_links_are_those_of_the_series(prometheus: Prometheus) -> None:
    """Grafana writes nothing for a label that there is not."""
    for uid, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            linked = re.findall(r"__field\.labels\.(\w+)", json.dumps(panel["fieldConfig"]))
            for target in panel["targets"]:
                if target["datasource"]["type"] != "prometheus" or ":" in target["expr"]:
                    continue  # what rules record has few labels in the samples
                legend = re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))
                told = labels_of(prometheus, f"{uid}: {panel['title']}", target)
                assert {*legend, *linked} <= told, (uid, panel["title"])


def test_alerts_are_told_with_duration_and_value_of_their_key(prometheus: Prometheus) -> None:
    """As rows that merge: each query gives the same labels, but for where the usual comes from."""

    def row(ref: str) -> tuple[dict[str, str], float]:
        [target] = [t for name, t in TARGETS if name == f"flow-alerts: Firing now {ref}"]
        expression = expand_promql(target["expr"], Context(START, END, STEP))
        [one] = prometheus.query(expression, END)
        return one["metric"], float(one["value"][1])

    labels, _ = row("A")
    assert labels == {"alertname": "FlowHigh", "severity": "critical", "policy": "host_bits"}
    assert row("since") == (labels, START * 1000)
    assert row("duration") == (labels, END - START)
    assert row("value") == (labels, 7)
    assert row("usual") == (labels, 7)


def test_keys_of_alerts_that_fire_have_links_to_what_they_are_about() -> None:
    """By each dimension of the shipped policies that tells more than where it was seen."""
    [panel] = [p for p in panels(DASHBOARDS["flow-alerts"]) if p["title"] == "Firing now"]
    linked = {
        override["matcher"]["options"]: [link["url"] for link in each["value"]]
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
    }
    dimensions = {
        name
        for policy in load_policies(ROOT / "alerting/policies.yaml").policies
        for name in policy.dimensions
    }
    assert dimensions - linked.keys() <= {
        "device", "device_addr", "in_if_name", "out_if_name", "dns_type", "dns_rcode", "tcp_flags",
    }  # fmt: skip
    value = "${__value.raw:percentencode}"
    for column, (incident, explorer, silence) in linked.items():
        assert f"&var-filters={column}%7C%3D%7C{value}" in incident
        assert incident.startswith("/d/flow-incident?${__url_time_range}&")
        assert f"%2C{column}%3D%22{value}%22&" in incident, "in the key, too"
        assert explorer == (
            f"/d/flow-explorer?${{__url_time_range}}&var-filters={column}%7C%3D%7C{value}"
        )
        assert silence.startswith("${alertmanager:raw}/#/silences/new?filter=%7Balertname%3D%22")
        assert silence.endswith(f"%2C{column}%3D%22{value}%22%7D")


def test_numbers_say_what_they_should(prometheus: Prometheus) -> None:
    def value(uid: str, title: str) -> float:
        [target] = [t for name, t in TARGETS if name == f"{uid}: {title} A"]
        expression = expand_promql(target["expr"], Context(START, END, STEP))
        [one] = prometheus.query(expression, END)
        return float(one["value"][1])

    assert value("flow-home", "Critical alerts") == 1
    assert value("flow-home", "Warnings") == 0, "no alert is a zero, not an empty panel"
    assert value("flow-home", "Devices reporting") == 2
    assert value("flow-home", "Traffic") == pytest.approx((1 + 2) * 8)
    assert value("flow-pipeline", "Last insert") == 5
