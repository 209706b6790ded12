"""The replay of rules over the past says what Prometheus itself says, minute by minute."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.programs import program
from tests.support.remote_write import Series
from tests.support.rule_replay import load_rules, replay
from tests.support.tracked import MONDAY

RULES = Path(__file__).resolve().parents[2] / "alerting" / "rules"
MINUTES = 240
POLICY = {
    "flow_policy_static_threshold": ({"bound": "above"}, 100.0),
    "flow_policy_breach_needed": ({"of": "5m"}, 2.0),
    "flow_policy_info": ({"severity": "warning", "combine": "all", "no_baseline": "skip"}, 1.0),
}
HELD = """
groups:
  - name: held
    rules:
      - {alert: Held, expr: 'flow_policy_value >= 100', for: 3m}
      - {alert: HeldAndKept, expr: 'flow_policy_value >= 100', for: 2m, keep_firing_for: 4m}
"""


def test_alerts_fire_in_the_same_minutes_as_in_promtool(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    # Above and below for some minutes each, and twenty minutes in which nothing is told.
    values = np.repeat(random.choice([20.0, 150.0], MINUTES // 2), random.integers(1, 5))[:MINUTES]
    values = np.resize(values, MINUTES)
    there = np.ones(MINUTES, np.bool_)
    there[100:120] = False
    labels = {"policy": "p", "dst_host": "h"}
    held = tmp_path / "held.yml"
    held.write_text(HELD)
    times = MONDAY + np.arange(MINUTES) * 60
    with replay(tmp_path) as past:
        past.write(
            Series({"__name__": name, "policy": "p", **own}, times, np.full(MINUTES, value))
            for name, (own, value) in POLICY.items()
        )
        told = Series({"__name__": "flow_policy_value", **labels}, times[there], values[there])
        past.write([told])
        rules = load_rules(RULES / "policies.yml", RULES / "baselines.yml", held)
        alerts = past.run(rules, MONDAY, MONDAY + MINUTES * 60)
    firing = {found["alertname"]: minutes for found, minutes in alerts.firing()}
    assert set(firing) == {"FlowPolicyAbove", "Held", "HeldAndKept"}
    assert all(0 < minutes.sum() < MINUTES for minutes in firing.values())

    def series(name: str, own: dict[str, str], numbers: list[str]) -> dict[str, str]:
        matchers = ",".join(f'{label}="{text}"' for label, text in {"policy": "p", **own}.items())
        return {"series": f"{name}{{{matchers}}}", "values": " ".join(numbers)}

    shown = [
        f"{value:g}" if is_there else "_" for value, is_there in zip(values, there, strict=True)
    ]
    document = {
        "rule_files": [str(RULES / "policies.yml"), str(RULES / "baselines.yml"), str(held)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    series("flow_policy_value", {"dst_host": "h"}, shown),
                    *(series(n, own, [f"{v:g}"] * MINUTES) for n, (own, v) in POLICY.items()),
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                        "eval_time": f"{minute}m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                    }
                    for name, minutes in firing.items()
                    for minute, fires in enumerate(minutes)
                    # What stood before is seen for five more minutes here, and not by the alerts.
                    if there[minute]
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(document))
    command = [program("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


def test_rules_are_ordered_by_what_they_read(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(
        "groups: [{name: g, rules: ["
        "{record: 'a:c:d', expr: 'a:b:c + a:x:y offset 1d'}, {record: 'a:b:c', expr: 'value'},"
        "{record: 'a:x:y', expr: 'a:c:d'}]}]"
    )
    assert [rule.name for rule in load_rules(file)] == ["a:b:c", "a:c:d", "a:x:y"]
    file.write_text(file.read_text().replace(" offset 1d", ""))
    with pytest.raises(ValueError, match="in a circle"):
        load_rules(file)
    file.write_text(file.read_text().replace("a:x:y'}", "a:x:y offset 5m'}").replace(
        "+ a:x:y", "+ a:x:y offset 5m"
    ))  # fmt: skip
    with pytest.raises(ValueError, match="of 5m ago"):
        load_rules(file)
