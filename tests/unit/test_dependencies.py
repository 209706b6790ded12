"""What pyproject.toml names is used, and what is used is named, in the group that it belongs to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Imported by name only, or by what we import.
_OTHERWISE = {
    "chdb": "chdb._chdb",
    "httptools": "uvicorn.protocols.http.httptools_impl",
}


def _name(requirement: str) -> str:
    found = re.match(r"[\w-]+", requirement)
    assert found
    return _normal(found[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


CORE = {_name(each) for each in PROJECT["dependencies"]}
EXTRAS = {
    _name(each)
    for group in ("docker", "embedded", "snmp")
    for each in PROJECT["optional-dependencies"][group]
}


def _imported() -> dict[str, set[str]]:
    """Files that import a distribution, by its name; those of protobuf's code aside."""
    distributions = packages_distributions()
    users: dict[str, set[str]] = {}
    for file in (ROOT / "exporter").rglob("*.py"):
        if "proto" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top == "exporter":
                    continue
                for found in distributions.get(top, [top]):
                    users.setdefault(_normal(found), set()).add(file.name)
    return users


def test_every_requirement_is_used() -> None:
    used = set(_imported()) | {"protobuf"}
    code = "".join(file.read_text() for file in (ROOT / "exporter").rglob("*.py"))
    used |= {name for name, mark in _OTHERWISE.items() if mark in code}
    assert not (CORE | EXTRAS) - used


def test_everything_used_is_required() -> None:
    used = {name: files for name, files in _imported().items() if name not in CORE | EXTRAS}
    # A module that is newer than Python 3.11 and falls back to one that is required; namespaces.
    assert not {name for name in used if not name.startswith(("compression", "google"))}, used


def test_requirements_have_both_bounds() -> None:
    groups = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *(each for g in groups.values() for each in g)]:
        assert re.search(r">=[\d.]+,<|==\d", requirement), requirement


def test_make_installs_the_oldest_engine_anew_when_its_version_changes(tmp_path: Path) -> None:
    def would_install(version: str) -> bool:
        told = subprocess.run(
            ["make", "--dry-run", "test", f"OLDEST_ENGINE={tmp_path}", f"OLDEST_CHDB={version}"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return f"'chdb=={version}.*'" in told.stdout

    assert would_install("3.7")
    (tmp_path / ".chdb-3.7").touch()
    assert not would_install("3.7")
    assert would_install("3.8")
