"""What `flow-exporter up` tells the parts that it starts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from exporter.cli.times import parse_length
from exporter.cli.up import print_places
from exporter.config import Config, load_config
from exporter.up.demo import Demo, make_demo
from exporter.up.errors import UpError
from exporter.up.plan import Plan, make_plan
from exporter.up.ports import Ports
from exporter.up.supervisor import Child, Task

PORTS = Ports(1, 2, 3, 4, 5, 6)
NOW = 1_795_386_000  # 2026-11-22 22:20 UTC
DEMO = Demo({"load-spike": NOW, "rogue-host": NOW + 240}, 28 * 86400)


def names(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps]


def task(plan: Plan, name: str) -> list[str]:
    [found] = [step for step in plan.steps if step.name == name and isinstance(step, Task)]
    return list(found.argv)


def test_the_collector_has_a_spool_below_the_data_directory(tmp_path: Path) -> None:
    make_plan(Config(), tmp_path, PORTS, demo=None)
    written = load_config(tmp_path / "config" / "flow-exporter.yaml").clickhouse.spool
    assert Path(written.directory).is_relative_to(tmp_path)


def test_the_demo_names_its_as_numbers_and_is_scraped(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, PORTS, demo=DEMO)
    geo = load_config(tmp_path / "config" / "flow-exporter.yaml").geo
    assert "123456,Example Transit" in Path(geo.as_names_file).read_text()
    prometheus = yaml.safe_load((tmp_path / "config" / "prometheus.yml").read_text())
    (job,) = (job for job in prometheus["scrape_configs"] if job["job_name"] == "demo")
    assert job["static_configs"] == [{"targets": ["127.0.0.1:6"]}]
    assert any(file.endswith("rules/application.yml") for file in prometheus["rule_files"])
    assert "demo" in names(plan)


def test_without_the_demo_nothing_of_it_is_left(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, PORTS, demo=None)
    assert "demo" not in (tmp_path / "config" / "prometheus.yml").read_text()
    assert not load_config(tmp_path / "config" / "flow-exporter.yaml").geo.as_names_file
    assert not {"history", "demo", "backfill"} & set(names(plan))


def test_all_that_is_listened_on_is_told_whole(tmp_path: Path) -> None:
    receive = {"grpc": {}, "dnstap": [{"port": 6000}, {"socket": "/run/dns/tap.sock"}]}
    data = tmp_path / ("long" * 20)
    plan = make_plan(Config.model_validate({"receive": receive}), data, PORTS, demo=DEMO)
    with (tmp_path / "said").open("w+") as out:
        print_places(plan, Console(file=out, width=60, soft_wrap=True))
        out.seek(0)
        said = out.read()
    for place in ("127.0.0.1:2055", "127.0.0.1:2056", "127.0.0.1:6000", "/run/dns/tap.sock"):
        assert f"  {place}\n" in said
    assert f"  {data / 'config' / 'flow-exporter.yaml'}\n" in said
    assert "in two to six minutes" in said


def test_links_of_notifications_lead_to_this_machine(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, PORTS, demo=None)
    [alertmanager] = [step for step in plan.steps if step.name == "alertmanager"]
    assert "--web.external-url=http://127.0.0.1:4" in alertmanager.argv


@pytest.mark.parametrize("setting", ["web_config_file", "webhook_token_file"])
def test_a_collector_that_its_own_prometheus_could_not_ask_is_refused(
    tmp_path: Path, setting: str
) -> None:
    config = Config.model_validate({"http": {setting: "/etc/flow-exporter/file"}})
    with pytest.raises(UpError, match=f"http.{setting}.*flow-exporter run"):
        make_plan(config, tmp_path, PORTS, demo=None)
    [collector] = [
        step
        for step in make_plan(Config(), tmp_path, PORTS, demo=None).steps
        if isinstance(step, Child) and step.name == "collector"
    ]
    assert collector.environment == {"FLOW_WEBHOOK_TOKEN": ""}


def test_a_spool_of_the_users_stays(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"clickhouse": {"spool": {"directory": "/big", "max_bytes": 1 << 40}}}
    )
    make_plan(config, tmp_path, PORTS, demo=None)
    assert load_config(tmp_path / "config" / "flow-exporter.yaml").clickhouse.spool == (
        config.clickhouse.spool
    )


def test_the_demo_has_a_past_and_a_present_before_prometheus_starts(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, PORTS, demo=DEMO)
    assert names(plan)[:7] == [
        "store", "collector", "history", "demo", "backfill", "alertmanager", "prometheus",
    ]  # fmt: skip
    history, backfill = task(plan, "history"), task(plan, "backfill")
    assert "--resume" in history
    assert parse_length(history[history.index("--history") + 1]) == 28 * 86400
    assert "load-spike@2026-11-22T22:20:00" in history
    [live] = [step.argv for step in plan.steps if step.name == "demo"]
    assert "rogue-host@2026-11-22T22:24:00" in live
    assert backfill[backfill.index("--days") + 1] == "28"
    assert backfill[backfill.index("--until") + 1] == "now"


@pytest.mark.parametrize(("away", "days"), [(3600, None), (86400 * 2.5, "3")])
def test_later_only_what_is_missing_is_computed(
    tmp_path: Path, away: float, days: str | None
) -> None:
    wal = tmp_path / "prometheus" / "wal"
    wal.mkdir(parents=True)
    (wal / "00000001").touch()
    os.utime(wal / "00000001", (time.time() - away,) * 2)
    plan = make_plan(Config(), tmp_path, PORTS, demo=DEMO)
    assert "history" in names(plan)
    assert ("backfill" in names(plan)) == (days is not None)
    if days:
        backfill = task(plan, "backfill")
        assert backfill[backfill.index("--days") + 1] == days


def test_the_past_is_not_written_into_a_clickhouse_of_the_users(tmp_path: Path) -> None:
    config = Config.model_validate({"clickhouse": {"url": "http://clickhouse:8123"}})
    assert not {"history", "backfill"} & set(names(make_plan(config, tmp_path, PORTS, demo=DEMO)))


def test_without_history_the_demo_only_sends(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, PORTS, demo=Demo(DEMO.begins, 0))
    assert not {"history", "backfill"} & set(names(plan))
    assert "demo" in names(plan)


def test_at_the_first_start_incidents_are_under_way_and_one_is_to_come(tmp_path: Path) -> None:
    begins = make_demo(tmp_path, NOW, 0).begins
    assert begins["load-spike"] < NOW
    assert begins["query-fanin"] < NOW + 120
    assert NOW < begins["rogue-host"] < NOW + 300
    assert begins["registry-429"] == NOW // 86400 * 86400 + 8 * 3600, "earlier on this day"


def test_in_the_morning_the_registry_was_pushed_to_on_the_day_before(tmp_path: Path) -> None:
    morning = NOW // 86400 * 86400 + 9 * 3600
    begin = make_demo(tmp_path, morning, 0).begins["registry-429"]
    assert begin == NOW // 86400 * 86400 + 8 * 3600 - 86400


def test_a_later_start_goes_on_with_what_still_goes_on(tmp_path: Path) -> None:
    first = make_demo(tmp_path, NOW, 0).begins
    soon = make_demo(tmp_path, NOW + 600, 0).begins
    assert soon == first
    later = make_demo(tmp_path, NOW + 86400, 0).begins
    assert later["rogue-host"] == first["rogue-host"], "it stays, and is new only once"
    assert NOW + 86400 < later["load-spike"] < NOW + 86400 + 300
    assert later["registry-429"] == first["registry-429"] + 86400
