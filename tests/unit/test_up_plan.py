"""What `flow-exporter up` tells the parts that it starts."""

from __future__ import annotations

from pathlib import Path

from exporter.config import Config, load_config
from exporter.up.plan import Ports, make_plan


def test_the_collector_has_a_spool_below_the_data_directory(tmp_path: Path) -> None:
    make_plan(Config(), tmp_path, Ports(1, 2, 3, 4, 5, 6), demo=False)
    written = load_config(tmp_path / "config" / "flow-exporter.yaml").clickhouse.spool
    assert Path(written.directory).is_relative_to(tmp_path)


def test_a_spool_of_the_users_stays(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"clickhouse": {"spool": {"directory": "/big", "max_bytes": 1 << 40}}}
    )
    make_plan(config, tmp_path, Ports(1, 2, 3, 4, 5, 6), demo=False)
    assert load_config(tmp_path / "config" / "flow-exporter.yaml").clickhouse.spool == (
        config.clickhouse.spool
    )
