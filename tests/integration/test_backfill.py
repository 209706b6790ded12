"""`flow-exporter backfill`: a new policy's past out of the real store, in the real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect.driver.client import Client
from typer.testing import CliRunner

from exporter.cli import app
from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.model import Policy, PolicySet
from exporter.policies.past import HOUR_METRIC, VALUE_METRIC, PolicyPast
from exporter.policies.query import history_query, history_table
from exporter.resources import resource
from tests.support.database import Database, emptied
from tests.support.prometheus import running_prometheus
from tests.support.stack import until

NOW = int(time.time())
HOUR = NOW // 3600 * 3600
DAY = 86400


@pytest.fixture
def flows(database: Database) -> Iterator[Client]:
    with emptied(database, "flows") as client:
        yield client


def policy(**changes: Any) -> Policy:
    return Policy.model_validate(
        {
            "name": "hosts",
            "dimensions": ["dst_addr", "dst_host"],
            "measure": "bits_per_second",
            "window": "5m",
            "minimum": 100,
            "bounds": {"above": {"baseline_ratio": 3}},
        }
        | changes
    )


def insert(client: Client, source: str, time_s: str, addr: str, size: str) -> None:
    """One flow for each row of ``source``, the other arguments being expressions over it."""
    client.command(
        "INSERT INTO flows (time_received, dst_addr, dst_host, bytes) SELECT "
        f"fromUnixTimestamp64Milli(toInt64(({time_s}) * 1000)), toIPv6({addr}), 'h', {size} "
        f"FROM {source}"
    )


def told_by_evaluator(
    database: Database, watched: Policy, start: int, until: int
) -> dict[tuple[str, int], float]:
    """What an evaluator tells every five minutes, by address and time."""
    clock = [float(start)]
    evaluator = PolicyEvaluator(
        database.connect,
        PolicySet(policies=[watched]),
        delay_seconds=0,
        query_timeout_seconds=10,
        clock=lambda: clock[0],
    )
    told: dict[tuple[str, int], float] = {}
    for end in range(start + 60, until + 1, 60):
        clock[0] = end
        evaluator.evaluate_due()
        if end % 300 == 0:
            (state,) = evaluator.states()
            told |= {(key.labels["dst_addr"], end): key.value for key in state.keys}
    evaluator.stop()
    return told


def test_the_past_is_what_would_have_been_told_then(database: Database, flows: Client) -> None:
    start = HOUR - 6 * 3600
    # A host for each quarter of an hour, some of them small, and one that is always there.
    insert(
        flows, "numbers(3600)", f"{start} + number * 3",
        "concat('10.0.0.', toString(intDiv(number, 300)))",
        "if(intDiv(number, 300) % 3 = 1, 10, 3000 + number)",
    )  # fmt: skip
    insert(flows, "numbers(360)", f"{start} + number * 30", "'10.0.1.1'", "100000 + number")
    watched = policy(top=3, max_keys=4, expiry="20m", window="1m", minimum=50)
    # Two hours, and a boundary between two queries of the past.
    told = told_by_evaluator(database, watched, start, start + 2 * 3600)
    past = PolicyPast(flows, watched, start)
    samples = [s for stop in (3600, 7200) for s in past.samples(start + stop)]
    values = {
        (dict(s.labels)["dst_addr"], s.time): s.value for s in samples if s.metric == VALUE_METRIC
    }
    assert values == pytest.approx(told)
    assert 0.0 in values.values()
    assert len(values) > 50


@pytest.mark.parametrize("window", [30, 420, 3600])
def test_samples_lie_on_the_steps_that_rules_and_panels_need(flows: Client, window: int) -> None:
    start = HOUR - 10 * 3600
    insert(flows, "numbers(3600)", f"{start} + number * 10", "'10.0.0.1'", "10000")
    watched = policy(window=window, interval=min(window, 60))
    samples = list(PolicyPast(flows, watched, start).samples(start + 8 * 3600))
    for metric, step in ((VALUE_METRIC, 300), (HOUR_METRIC, 1800)):
        times = sorted({s.time for s in samples if s.metric == metric})
        assert {b - a for a, b in pairwise(times)} == {step}
        assert times[0] % step == 0
        assert times[-1] >= start + 7 * 3600
    assert {round(s.value) for s in samples} == {8000}


def test_the_past_with_quotas_and_pins_is_what_would_have_been_told(
    database: Database, flows: Client
) -> None:
    start = HOUR - 6 * 3600
    # Three groups, whose members take turns at being large; one of them is always small.
    flows.command(
        "INSERT INTO flows (time_received, dst_addr, dst_host, bytes) SELECT "
        f"fromUnixTimestamp64Milli(toInt64(({start} + number * 2) * 1000)), "
        "toIPv6(concat('10.', toString(number % 3), '.0.', toString(number % 12))), "
        "concat('g', toString(number % 3)), "
        "if(number % 12 = 5, 1, 1000 + number * (number % 12) * if(number % 240 < 60, 5, 1)) "
        "FROM numbers(3600)"
    )
    watched = policy(
        top=3, per={"dimension": "dst_host", "top": 1}, max_keys=30, expiry="5m", window="1m",
        pin=[{"dst_addr": "10.2.0.5"}], measure="share_of_total", minimum=1,
    )  # fmt: skip
    told = told_by_evaluator(database, watched, start, start + 3600)
    samples = PolicyPast(flows, watched, start).samples(start + 3600)
    values = {
        (dict(s.labels)["dst_addr"], s.time): s.value for s in samples if s.metric == VALUE_METRIC
    }
    assert values == pytest.approx(told)
    assert ("10.2.0.5", start + 3600) in values


def test_a_policy_that_the_rollup_can_tell_reads_it_and_says_the_same(flows: Client) -> None:
    start = HOUR - 6 * 3600
    flows.command("TRUNCATE TABLE flows_1m")
    flows.command(
        "INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, in_if, bytes) "
        f"SELECT fromUnixTimestamp64Milli(toInt64(({start} + number * 10) * 1000)) AS t, t, t, "
        "'edge', 1 + number % 2, 1000 + number FROM numbers(1080)"
    )
    interfaces = {
        "dimensions": ["device", "in_if"],
        "filter": "in_if != 0",
        "minimum": 0,
    }
    rolled_up, raw = policy(**interfaces), policy(**interfaces, window=330)
    assert (history_table(rolled_up), history_table(raw)) == ("flows_1m", "flows")
    asked = history_query(rolled_up, start * 1000, (start + 7200) * 1000)
    found = flows.query(asked.sql, parameters=asked.parameters).result_rows
    assert len(found) == 2 * 24
    flows.command("TRUNCATE TABLE flows_1m")
    assert not flows.query(asked.sql, parameters=asked.parameters).result_rows
    total = sum(row[-1] for row in found) * 300 / 8
    assert total == pytest.approx(sum(1000 + n for n in range(720)))


@pytest.mark.parametrize(
    ("changes", "table"),
    [
        ({"dimensions": ["device"], "filter": "proto = 6"}, "flows_1m"),
        ({"dimensions": ["device"], "filter": "dst_port = 53"}, "flows"),
        ({"dimensions": ["device", "src_as"]}, "flows"),
        ({"dimensions": ["device"], "measure": "unique_src_addr"}, "flows"),
        ({"dimensions": ["service"]}, "flows_once"),
        ({"dimensions": ["service"], "deduplicate": False}, "flows_1m"),
    ],
)
def test_the_rollup_tells_what_it_holds(changes: dict[str, Any], table: str) -> None:
    assert history_table(policy(**changes)) == table


def test_a_new_policy_has_a_baseline_at_once(
    database: Database, flows: Client, tmp_path: Path
) -> None:
    # Every half minute of 29 days: 1 Mbit/s by night, 2 by day, a third more in the last week.
    first = HOUR - 29 * DAY
    insert(
        flows, f"numbers({29 * 2880})", f"{first} + number * 30", "'10.0.0.1'",
        f"(4000000 + 4000000 * (toHour(toDateTime({first} + number * 30, 'UTC')) >= 12)) * 30 / 32"
        f" * if(number > {22 * 2880}, 4 / 3, 1)",
    )  # fmt: skip
    config = tmp_path / "flow-exporter.yaml"
    clickhouse = {
        "url": database.settings.url,
        "user": database.settings.user,
        "password_file": database.settings.password_file,
    }
    (tmp_path / "policies.yaml").write_text(
        yaml.safe_dump({"policies": [policy().model_dump(exclude_none=True, mode="json")]})
    )
    config.write_text(
        yaml.safe_dump({"clickhouse": clickhouse, "policies": {"file": "policies.yaml"}})
    )
    data = tmp_path / "data"
    data.mkdir()
    arguments = [
        "backfill",
        "--config",
        str(config),
        "--prometheus-data",
        str(data),
        "--days",
        "22",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip().endswith(" samples of 22 days")

    rules = yaml.safe_load(resource("alerting/rules/baselines.yml").read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    configuration = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.yml")],
    }
    with running_prometheus(tmp_path, configuration) as prometheus:
        noon = HOUR // DAY * DAY - 3 * DAY + 12 * 3600
        for at, expected in ((noon, 1e6 * 4 / 3), (noon + 3600, 2e6 * 4 / 3)):
            (found,) = prometheus.query(VALUE_METRIC, at)
            assert found["metric"]["dst_host"] == "h"
            assert float(found["value"][1]) == pytest.approx(expected, rel=0.01)
        (typical,) = until(
            "a baseline",
            60,
            lambda: prometheus.query(
                'key:flow_policy_baseline:typical{baseline="weeks"}', time.time()
            ),
        )
        by_day = time.gmtime().tm_hour >= 12
        # The median of three weeks, of which only the last was higher.
        near = time.gmtime().tm_hour in (11, 12, 23, 0)
        if not near:
            assert float(typical["value"][1]) == pytest.approx(2e6 if by_day else 1e6, rel=0.01)
        assert 0.9e6 < float(typical["value"][1]) < 2.1e6


def test_backfill_says_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text("clickhouse: {url: 'http://127.0.0.1:9'}\n")
    arguments = ["backfill", "--config", str(config), "--prometheus-data", str(tmp_path)]
    away = CliRunner().invoke(app, arguments)
    assert away.exit_code == 1
    assert "cannot be reached" in away.output
    unknown = CliRunner().invoke(app, [*arguments, "--policy", "nothing"])
    assert unknown.exit_code == 2
    assert "no policy is named 'nothing'" in unknown.output
    when = CliRunner().invoke(app, [*arguments, "--until", "yesterday"])
    assert when.exit_code == 2
    assert "'yesterday' is not a time" in when.output
    present = CliRunner().invoke(app, [*arguments, "--policy", "new_address"])
    assert present.exit_code == 2
    assert "new_src_addr cannot be known of the past" in present.output
