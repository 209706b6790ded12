"""A wheel holds the files beside the package that it needs."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Folders that `exporter.resources` finds files in; rules' tests are for a checkout.
FOLDERS = (
    "alerting",
    "clickhouse",
    "docs/reference/alerts",
    "grafana/dashboards",
    "grafana/provisioning",
)
LEFT_OUT = ROOT / "alerting" / "rules" / "tests"


def test_every_file_that_is_used_at_run_time_is_in_the_wheel_at_its_place() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = {
        (Path(target) / file.name, file)
        for target, patterns in settings["tool"]["setuptools"]["data-files"].items()
        for pattern in patterns
        for file in ROOT.glob(pattern)
    }
    needed = {
        (Path("share/flow-exporter") / file.relative_to(ROOT), file)
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and LEFT_OUT not in file.parents
    }
    assert packed == needed
    assert needed
