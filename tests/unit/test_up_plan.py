"""What `flow-exporter up` tells the parts that it starts."""

from __future__ import annotations

from pathlib import Path

import yaml

from exporter.config import Config, load_config
from exporter.up.plan import Ports, make_plan


def test_the_collector_has_a_spool_below_the_data_directory(tmp_path: Path) -> None:
    make_plan(Config(), tmp_path, Ports(1, 2, 3, 4, 5, 6), demo=False)
    written = load_config(tmp_path / "config" / "flow-exporter.yaml").clickhouse.spool
    assert Path(written.directory).is_relative_to(tmp_path)


def test_the_demo_names_its_as_numbers_and_is_scraped(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, Ports(1, 2, 3, 4, 5, 6), demo=True)
    geo = load_config(tmp_path / "config" / "flow-exporter.yaml").geo
    assert "123456,Example Transit" in Path(geo.as_names_file).read_text()
    prometheus = yaml.safe_load((tmp_path / "config" / "prometheus.yml").read_text())
    (job,) = (job for job in prometheus["scrape_configs"] if job["job_name"] == "demo")
    assert job["static_configs"] == [{"targets": ["127.0.0.1:6"]}]
    assert any(file.endswith("demo/*.yml") for file in prometheus["rule_files"])
    assert plan.children[-1].name == "demo"


def test_without_the_demo_nothing_of_it_is_left(tmp_path: Path) -> None:
    plan = make_plan(Config(), tmp_path, Ports(1, 2, 3, 4, 5, 6), demo=False)
    assert "demo" not in (tmp_path / "config" / "prometheus.yml").read_text()
    assert not load_config(tmp_path / "config" / "flow-exporter.yaml").geo.as_names_file
    assert not any(child.name == "demo" for child in plan.children)


def test_a_spool_of_the_users_stays(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"clickhouse": {"spool": {"directory": "/big", "max_bytes": 1 << 40}}}
    )
    make_plan(config, tmp_path, Ports(1, 2, 3, 4, 5, 6), demo=False)
    assert load_config(tmp_path / "config" / "flow-exporter.yaml").clickhouse.spool == (
        config.clickhouse.spool
    )
