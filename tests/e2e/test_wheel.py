"""What is built of the sources runs where there are no sources: every file it needs is in it."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from exporter import __version__
from tests.support.stack import Stack, until

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "LICENSE", "README.md", "pyproject.toml",
    "alerting", "clickhouse", "docs", "exporter", "grafana",
)  # fmt: skip
CAPTURE = ROOT / "tests" / "captures" / "netflow5.dat"


def _run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``flow-exporter`` of a wheel that was built of the source distribution."""
    made = tmp_path_factory.mktemp("build")
    sources = made / "sources"
    sources.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    hook = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    _run(sys.executable, "-c", hook, made, cwd=sources)
    with tarfile.open(made / f"flow_exporter-{__version__}.tar.gz") as archive:
        archive.extractall(made, filter="data")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    unpacked = made / f"flow_exporter-{__version__}"
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", made, unpacked, cwd=made)
    shutil.rmtree(sources)
    shutil.rmtree(unpacked)
    wheel = made / f"flow_exporter-{__version__}-py3-none-any.whl"
    environment = made / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    _run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=made)
    # What it depends on is that of the tests; their own .pth files, by which the checkout is
    # found, are not read from there.
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    found = _run(python, "-c", "import exporter; print(exporter.__file__)", cwd=made)
    assert Path(found.strip()).is_relative_to(environment)
    return environment / "bin" / "flow-exporter"


def test_it_tells_its_version(program: Path, tmp_path: Path) -> None:
    assert _run(program, "--version", cwd=tmp_path).split() == ["flow-exporter", __version__]


def test_shipped_policies_and_captures_are_read(program: Path, tmp_path: Path) -> None:
    assert "host_bits" in _run(program, "policies", "list", cwd=tmp_path)
    _run(program, "policies", "check", "--offline", cwd=tmp_path)
    flow, *_ = _run(program, "decode", CAPTURE, cwd=tmp_path).splitlines()
    assert json.loads(flow)["source"] == "netflow5"


def test_everything_runs_with_it(program: Path, tmp_path: Path) -> None:
    stack = Stack(tmp_path, {}, "--no-demo", program=[str(program)])
    try:
        config = stack.data / "config" / "flow-exporter.yaml"
        _run(program, "check", "--config", config, cwd=tmp_path)
        _run(program, "migrate", "--dry-run", "--config", config, cwd=tmp_path)
        target = f"127.0.0.1:{stack.flows}"
        _run(program, "replay", CAPTURE, "--to", target, cwd=tmp_path)
        until("flows", 60, lambda: int(stack.ask("SELECT count() AS n FROM flows")[0]["n"]))
        groups = stack.get(f"{stack.prometheus}/api/v1/rules")["data"]["groups"]
        alerts = [r for g in groups for r in g["rules"] if r["type"] == "alerting"]
        assert alerts
        for alert in alerts:
            if "runbook_url" in alert["annotations"]:
                page = Path(alert["annotations"]["runbook_url"].split("}}")[-1].lstrip("/"))
                prefix = program.parent.parent / "share" / "flow-exporter" / "docs"
                assert (prefix / page).is_file(), page
    finally:
        assert stack.interrupt() == 0
