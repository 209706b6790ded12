"""Grafana as `flow-exporter up` starts it, where it is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from exporter.up.grafana import grafana
from exporter.up.supervisor import Child

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed Grafana: a program on the PATH; its home is the folder of it."""
    found = tmp_path / "usr" / "grafana"
    found.parent.mkdir()
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    monkeypatch.setenv("PATH", str(found.parent))
    return found


def started(folder: Path, home: Path, plugins: Path) -> Child | None:
    return grafana(
        folder,
        port=1,
        store=2,
        prometheus=3,
        alertmanager=4,
        reader_password="secret",
        home=home,
        plugins=plugins,
    )


def test_without_grafana_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert started(tmp_path / "data", tmp_path, tmp_path) is None
    assert not (tmp_path / "data").exists()


def test_it_takes_the_plugin_that_is_installed(tmp_path: Path, program: Path) -> None:
    (tmp_path / "plugins/grafana-clickhouse-datasource").mkdir(parents=True)
    child = started(tmp_path / "data", program.parent, tmp_path / "plugins")
    assert child is not None
    assert child.environment["GF_PATHS_PLUGINS"] == str(tmp_path / "plugins")
    assert "GF_PLUGINS_PREINSTALL" not in child.environment


def test_it_fetches_the_plugin_of_the_dashboards_where_there_is_none(
    tmp_path: Path, program: Path
) -> None:
    child = started(tmp_path / "data", program.parent, tmp_path / "plugins")
    assert child is not None
    assert child.environment["GF_PATHS_PLUGINS"] == str(tmp_path / "data/plugins")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    same = compose["services"]["grafana"]["environment"]["GF_PLUGINS_PREINSTALL"]
    assert child.environment["GF_PLUGINS_PREINSTALL"] == same


def test_the_password_is_read_from_a_file_of_the_owner(tmp_path: Path, program: Path) -> None:
    """By Grafana's own ``$__file{}``; names that end in ``__FILE`` are for containers only."""
    child = started(tmp_path / "data", program.parent, tmp_path)
    assert child is not None
    told = re.fullmatch(r"\$__file\{(.+)\}", child.environment["GF_SECURITY_ADMIN_PASSWORD"])
    assert told is not None
    password = Path(told[1])
    assert len(password.read_text()) > 20
    assert password.stat().st_mode & 0o077 == 0
    assert not any(name.endswith("__FILE") for name in child.environment)


def test_the_password_stays_but_an_empty_one_is_none(tmp_path: Path, program: Path) -> None:
    password = tmp_path / "data/admin.password"
    password.parent.mkdir()
    password.touch()  # as a start leaves it that ends too early
    assert started(tmp_path / "data", program.parent, tmp_path)
    first = password.read_text()
    assert len(first) > 20
    assert started(tmp_path / "data", program.parent, tmp_path)
    assert password.read_text() == first


def test_a_folder_of_plugins_that_may_not_be_looked_at_is_none(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(path: Path) -> bool:
        if path.is_relative_to(tmp_path / "plugins"):
            raise PermissionError
        return True

    monkeypatch.setattr(Path, "is_dir", look)
    child = started(tmp_path / "data", program.parent, tmp_path / "plugins")
    assert child is not None
    assert "GF_PLUGINS_PREINSTALL" in child.environment


def test_it_has_what_provisioning_asks_for(tmp_path: Path, program: Path) -> None:
    child = started(tmp_path / "data", program.parent, tmp_path)
    assert child is not None
    asked = {
        name
        for file in (ROOT / "grafana/provisioning").rglob("*.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
        for name in re.findall(r"(?<!\$)\$(FLOW_\w+)", line)
    }
    assert asked
    assert asked <= child.environment.keys()
