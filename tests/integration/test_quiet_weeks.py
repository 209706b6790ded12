"""Normal traffic with its rhythms and noise, through the rules as they are: no false alarm.

A day here; ``python -m tests.bench.score`` takes four weeks.
"""

from __future__ import annotations

from pathlib import Path

from exporter.policies.model import load_policies
from tests.support.quiet_weeks import DAY, HABITS, WEEK
from tests.support.rule_replay import load_rules, replay
from tests.support.tracked import MONDAY, keys_of, settings

ALERTING = Path(__file__).resolve().parents[2] / "alerting"
# From Friday noon until Saturday noon of the fifth week.
FIRST = 4 * WEEK + 4 * DAY + DAY // 2
LAST = FIRST + DAY


def test_normal_traffic_of_all_shipped_policies_is_quiet(tmp_path: Path) -> None:
    policies = [p for p in load_policies(ALERTING / "policies.yaml").policies if p.has_baseline]
    keys = keys_of(policies, weeks=5, seed=7)
    assert {key.habit for key in keys} == set(HABITS)
    rules = load_rules(ALERTING / "rules" / "baselines.yml", ALERTING / "rules" / "policies.yml")
    with replay(tmp_path) as past:
        past.write(series for key in keys for series in key.hours(0, FIRST))
        past.write(settings(policies, FIRST, LAST))
        past.write(key.told(FIRST, LAST) for key in keys)
        start, end = MONDAY + FIRST * 60, MONDAY + LAST * 60
        alerts = past.run(rules, start, end)
        bands = past.ask("count(key:flow_policy_baseline:upper)", end - 60, end)
    fired = [
        f"{labels} {minutes.sum()} min" for labels, minutes in alerts.firing() if minutes.any()
    ]
    assert fired == []
    # Quiet, though all of them are watched.
    assert bands[0].values.tolist() == [len(keys)]
