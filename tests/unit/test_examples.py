"""What ops people copy: systemd units and Kubernetes manifests, and the commands of their CI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from exporter import __version__
from exporter.cli.app import app
from exporter.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "docs" / "examples" / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
MANIFEST = ROOT / "docs" / "examples" / "kubernetes" / "flow-exporter.yaml"
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))
PROGRAM = "/opt/flow-exporter/bin/flow-exporter"


def _object(kind: str, name: str = "flow-exporter") -> dict[str, Any]:
    (found,) = [o for o in OBJECTS if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def _mounted_config(tmp_path: Path) -> Config:
    file = tmp_path / "flow-exporter.yaml"
    file.write_text(_object("ConfigMap")["data"]["flow-exporter.yaml"])
    return load_config(file)


def _systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "install the Debian package systemd"
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_systemd_accepts_the_units_without_a_warning(tmp_path: Path) -> None:
    copies = []
    for unit in UNITS:
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
        copies.append(str(copy))
    outcome = _systemd_analyze("verify", *copies)
    ours = [line for line in outcome.stderr.splitlines() if str(tmp_path) in line]
    assert (outcome.returncode, ours) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_expose_little(unit: Path) -> None:
    outcome = _systemd_analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_call_commands_that_exist_with_options_that_exist(unit: Path) -> None:
    commands = re.findall(rf"^Exec\w+={PROGRAM} (.+)$", unit.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        name, *rest = command.split()
        text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        assert "Usage" in text, command
        for option in (word for word in rest if word.startswith("-")):
            assert option in text, command


def test_the_configuration_of_the_units_loads_and_writes_where_they_may() -> None:
    config = load_config(SYSTEMD / "flow-exporter.yaml")
    state = Path("/var/lib/flow-exporter")
    assert "StateDirectory=flow-exporter\n" in (SYSTEMD / "flow-exporter.service").read_text()
    for file in (config.decode.template_file, config.clickhouse.spool.directory):
        assert Path(file).is_relative_to(state)
    assert all(listener.address == "127.0.0.1" for listener in config.receive.udp)


@pytest.mark.parametrize("index", range(len(OBJECTS)), ids=lambda i: OBJECTS[i]["kind"])
def test_manifests_follow_the_schemas_of_kubernetes(index: int) -> None:
    kubernetes_validate.validate(OBJECTS[index], "1.31", strict=True)


def test_image_and_wheel_are_named_with_this_version() -> None:
    pages = "".join(
        (ROOT / "docs/how-to" / name).read_text()
        for name in ("run-on-kubernetes.md", "run-with-systemd.md")
    )
    named = re.findall(
        r"\b(?:flow-exporter:|flow_exporter-)(\d[\d.]*)", MANIFEST.read_text() + pages
    )
    assert len(named) >= 3
    assert set(named) == {__version__}


def test_the_pod_listens_where_services_and_policy_point(tmp_path: Path) -> None:
    config = _mounted_config(tmp_path)
    (container,) = _object("StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = {(p["containerPort"], p.get("protocol", "TCP")) for p in container["ports"]}
    assert ports == {(u.port, "UDP") for u in config.receive.udp} | {(config.http.port, "TCP")}
    allowed = {
        (port["port"], port["protocol"])
        for rule in _object("NetworkPolicy")["spec"]["ingress"]
        for port in rule["ports"]
    }
    assert allowed == ports
    names = {p["name"] for p in container["ports"]}
    for name in ("flow-exporter", "flow-exporter-pods"):
        assert {p["targetPort"] for p in _object("Service", name)["spec"]["ports"]} <= names


def test_the_pod_writes_on_its_volume_and_reads_what_is_mounted(tmp_path: Path) -> None:
    config = _mounted_config(tmp_path)
    spec = _object("StatefulSet")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    claims = {c["metadata"]["name"] for c in _object("StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]} | claims
    for file in (config.decode.template_file, config.clickhouse.spool.directory):
        assert Path(file).is_relative_to(mounts["data"])
    assert Path(config.policies.file).is_relative_to(mounts["policies"])
    for file in (config.clickhouse.password_file, config.http.webhook_token_file):
        assert Path(file).is_relative_to(mounts["secrets"])


def test_the_unit_makes_the_folder_in_which_resolvers_find_the_socket() -> None:
    unit = (SYSTEMD / "flow-exporter.service").read_text()
    folder = re.search(r"^RuntimeDirectory=(.+)$", unit, re.MULTILINE)
    assert folder
    page = (ROOT / "docs/how-to/connect-a-resolver.md").read_text()
    [socket] = set(re.findall(r"- socket: (\S+)", page))
    assert Path(socket).parent == Path("/run") / folder[1]


def test_the_commands_for_ci_pass_on_what_we_ship(tmp_path: Path) -> None:
    for file in (SYSTEMD / "flow-exporter.yaml", ROOT / "alerting" / "policies.yaml"):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "alerting" / "lists", tmp_path / "lists")
    page = (ROOT / "docs/how-to/use-rules-and-dashboards.md").read_text()
    commands = re.findall(r"^flow-exporter (.+?)(?:\s+#.*)?$", page, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        arguments = command.replace("flow-exporter.yaml", str(tmp_path / "flow-exporter.yaml"))
        outcome = subprocess.run(
            [sys.executable, "-m", "exporter", *arguments.split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome.returncode == 0, command + outcome.stdout + outcome.stderr
