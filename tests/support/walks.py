"""Walks from an alert to its cause: links are followed, panels show what they would show.

Alerts are those of the shipped policies and rules, over flows in the real store.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from exporter.config import ClickHouse
from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.metrics import PolicyCollector
from exporter.policies.model import load_policies
from exporter.store.client import connect
from tests.support.grafana import Context, expand_sql, followed, opened, panels, variables

ROOT: Final = Path(__file__).parents[2]
DASHBOARDS: Final = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))
}

#: Evaluates the shipped rules, and makes links from a Grafana's address.
PROMETHEUS_CONFIG: Final = {
    "global": {"evaluation_interval": "1s", "external_labels": {"grafana_url": "http://g"}},
    "rule_files": [str(ROOT / "alerting/rules/policies.yml")],
}


Usual = Sequence[tuple[dict[str, str], float]]


def exposition(settings: ClickHouse, now: int, usual: Usual) -> str:
    """What the collector would tell of the policies, and what is ``usual``, by labels of keys."""
    lines = []
    for family in _evaluated(settings, now):
        kind = {"info": "info", "gauge": "gauge"}[family.type]
        lines.append(f"# TYPE {family.name} {kind}")
        lines += [_sample(one.name, one.labels, one.value) for one in family.samples]
    # Baselines have been looked up: a key that has none now is known to have none.
    lines.append("# TYPE all:flow_policy_baseline:looked_up gauge")
    lines.append(_sample("all:flow_policy_baseline:looked_up", {}, 1.0))
    lines.append("# TYPE key:flow_policy_baseline:typical gauge")
    lines += [
        _sample("key:flow_policy_baseline:typical", labels | {"baseline": "weeks"}, value)
        for labels, value in usual
    ]
    return "\n".join([*lines, "# EOF"]) + "\n"


def values_at(settings: ClickHouse, moment: int) -> Usual:
    """Values of the policies' keys at a moment, such as one that was as usual."""
    return [
        (dict(one.labels), one.value)
        for family in _evaluated(settings, moment)
        for one in family.samples
        if one.name == "flow_policy_value"
    ]


def _evaluated(settings: ClickHouse, moment: int) -> list[Metric]:
    registry = CollectorRegistry()
    evaluator = PolicyEvaluator(
        lambda: connect(settings),
        load_policies(ROOT / "alerting/policies.yaml"),
        delay_seconds=0,
        query_timeout_seconds=60,
        clock=lambda: float(moment),
    )
    registry.register(PolicyCollector(evaluator))
    evaluator.evaluate_due()
    return [family for family in registry.collect() if family.name.startswith("flow_policy")]


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    told = ",".join(f"{label}={json.dumps(text)}" for label, text in labels.items())
    return f"{name}{{{told}}} {value} {time.time() - 5:.3f}"


def state(url: str) -> tuple[str, Context]:
    """The dashboard that a link opens, and its state: what the link says, else its defaults."""
    uid, context = opened(url)
    held = {
        name: variable.get("current", {}).get("value", variable.get("query"))
        for name, variable in variables(DASHBOARDS[uid]).items()
        if variable["type"] != "adhoc"
    }
    held = {name: "*" if value == "$__all" else value for name, value in held.items()}
    return uid, replace(context, variables=held | dict(context.variables))


def rows(client: Client, url: str, title: str, ref: str = "A") -> list[dict[str, Any]]:
    """What a panel of the dashboard that a link opens shows."""
    uid, context = state(url)
    [sql] = [
        target["rawSql"]
        for panel in panels(DASHBOARDS[uid])
        for target in panel["targets"]
        if panel["title"] == title and target["refId"] == ref
    ]
    return list(client.query(expand_sql(sql, context)).named_results())


def mean(line: Mapping[float, float], begin: float, minutes: int) -> float:
    """The mean of so many minutes of a line from ``begin`` on: one minute's draw varies."""
    return fmean(line[begin + 60 * minute] for minute in range(minutes))


def click(
    url: str,
    panel_title: str,
    link_title: str,
    row: dict[str, Any] | None = None,
    column: str = "Key",
) -> str:
    """The URL behind a link of a row's key, or without a row of the dashboard itself."""
    uid, context = state(url)
    if row is None:
        candidates = DASHBOARDS[uid]["links"]
    else:
        [panel] = [panel for panel in panels(DASHBOARDS[uid]) if panel["title"] == panel_title]
        candidates = [
            link
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["options"] == column
            for changed in override["properties"]
            if changed["id"] == "links"
            for link in changed["value"]
        ]
    [target] = [link["url"] for link in candidates if link["title"] == link_title]
    return followed(target, context, row)
