"""compose.yaml cannot be run where there is no container engine; what can be checked is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from exporter.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _ports(service: str) -> set[str]:
    return {str(port).rsplit(":", 1)[-1] for port in SERVICES[service].get("ports", [])}


def _mounts() -> list[tuple[str, str, str]]:
    return [
        (name, *str(volume).split(":")[:2])
        for name, service in SERVICES.items()
        for volume in service.get("volumes", [])
    ]


def _exporter_config() -> Config:
    return load_config(_on_this_machine("exporter", SERVICES["exporter"]["command"][-1]))


def _on_this_machine(service: str, path: str) -> Path:
    """The file or folder of the checkout that a service sees at ``path``."""
    for name, source, target in _mounts():
        if name == service and source.startswith(".") and Path(path).is_relative_to(target):
            return ROOT / source / Path(path).relative_to(target)
    raise AssertionError(f"{service} has nothing mounted at {path}")


def test_the_file_follows_the_compose_specification() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    outcome = subprocess.run(
        [*checker, str(ROOT / "compose.yaml")], capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("service", "source", "target"), _mounts())
def test_every_mounted_path_exists_or_is_a_named_volume(
    service: str, source: str, target: str
) -> None:
    if source.startswith("."):
        assert (ROOT / source).exists(), f"{service} mounts {source}"
    else:
        assert source in COMPOSE["volumes"]


def test_logs_come_to_an_end() -> None:
    for name, service in SERVICES.items():
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_the_exporter_has_as_long_to_stop_and_as_much_memory_as_under_systemd() -> None:
    unit = (ROOT / "docs/examples/systemd/flow-exporter.service").read_text()
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    memory = re.search(r"^MemoryMax=(\d+)G$", unit, re.MULTILINE)
    assert seconds
    assert memory
    assert SERVICES["exporter"]["stop_grace_period"] == f"{seconds[1]}s"
    assert SERVICES["exporter"]["mem_limit"] == f"{memory[1]}g"


def test_the_exporter_may_do_nothing_but_what_it_needs() -> None:
    service = SERVICES["exporter"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_images_are_pinned_to_a_version() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: {service['image']}"


def test_no_password_has_a_default() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert re.fullmatch(r"\$\{\w+:\?.*\}", value), f"{name}: {variable}"


def test_everything_is_published_on_loopback_unless_the_user_says_otherwise() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${FLOW_LISTEN:-127.0.0.1}:"))


def test_the_exporter_listens_where_compose_publishes_it() -> None:
    config = _exporter_config()
    listening = {f"{listener.port}/udp" for listener in config.receive.udp}
    assert listening | {str(config.http.port)} == _ports("exporter")


def test_the_exporter_finds_clickhouse_by_its_service_name() -> None:
    host, _, port = _exporter_config().clickhouse.url.removeprefix("http://").partition(":")
    assert host in SERVICES
    assert port in _ports(host)


def test_the_exporter_keeps_what_must_outlive_it_on_its_volume() -> None:
    (volume,) = [target for name, source, target in _mounts() if source == "exporter"]
    config = _exporter_config()
    for kept in (config.clickhouse.spool.directory, config.decode.template_file):
        assert Path(kept).is_relative_to(volume)


def test_policies_are_mounted_where_the_exporter_looks() -> None:
    file = _on_this_machine("exporter", _exporter_config().policies.file)
    assert file == ROOT / "alerting" / "policies.yaml"


@pytest.mark.parametrize("service", ["prometheus", "alertmanager"])
def test_what_a_configuration_names_is_mounted_beside_it(service: str) -> None:
    (option,) = [o for o in SERVICES[service]["command"] if o.startswith("--config.file=")]
    file = _on_this_machine(service, option.partition("=")[2])
    document = yaml.safe_load(file.read_text())
    patterns = document.get("rule_files", []) + document.get("templates", [])
    assert patterns
    for pattern in patterns:
        assert list(file.parent.glob(pattern)), pattern


def test_what_docker_cannot_do_with_a_read_only_container_is_not_asked() -> None:
    """Compose copies inline `content` into the container, which the engine refuses there."""
    for kind in ("configs", "secrets"):
        for name, entry in COMPOSE.get(kind, {}).items():
            assert "file" in entry, f"{kind}.{name}"


def test_what_people_edit_is_mounted_as_a_folder() -> None:
    """An editor replaces a file; a container goes on with the one that was mounted."""
    for service in ("exporter", "prometheus", "alertmanager"):
        for name, source, _ in _mounts():
            if name == service and source.startswith("."):
                assert (ROOT / source).is_dir(), f"{service} mounts {source}"


def test_the_image_has_the_version_of_the_package() -> None:
    assert SERVICES["exporter"]["image"] == f"flow-exporter:{__version__}"


def test_prometheus_and_alertmanager_name_services_and_ports_of_compose() -> None:
    addresses = set()
    for file in ("prometheus.yml", "alertmanager.yml"):
        text = (ROOT / "alerting" / file).read_text()
        addresses |= set(re.findall(r"\b(clickhouse|exporter|alertmanager|prometheus):(\d+)", text))
    assert {name for name, _ in addresses} >= {"exporter", "alertmanager"}
    for name, port in addresses:
        assert port in _ports(name) | {"9363"}, f"{name}:{port}"


def test_grafana_gets_every_variable_that_its_provisioning_reads() -> None:
    wanted = set()
    for file in (ROOT / "grafana" / "provisioning").rglob("*.y*ml"):
        wanted |= set(re.findall(r"\$\{?(FLOW_\w+)", file.read_text()))
    assert wanted
    assert wanted <= set(SERVICES["grafana"]["environment"])


def test_clickhouse_users_take_passwords_that_compose_sets() -> None:
    users = (ROOT / "clickhouse/server/users.d/flow.xml").read_text()
    wanted = set(re.findall(r'from_env="(\w+)"', users))
    assert wanted
    assert wanted <= set(SERVICES["clickhouse"]["environment"])


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_says_whether_it_is_well_and_starts_again(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    if "build" not in SERVICES[service]:  # ours has its check in the image
        assert "127.0.0.1" in " ".join(SERVICES[service]["healthcheck"]["test"])


@pytest.mark.parametrize("service", ["exporter", "prometheus", "alertmanager"])
def test_what_needs_no_rights_has_none_and_writes_on_its_volume_only(service: str) -> None:
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert service in [source for name, source, _ in _mounts() if name == service]


def test_the_image_runs_as_an_ordinary_user_and_has_a_health_check() -> None:
    dockerfile = (ROOT / SERVICES["exporter"]["build"]["dockerfile"]).read_text()
    user = re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)
    assert user
    assert user[-1] not in ("root", "0")
    assert "HEALTHCHECK" in dockerfile
    for source in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
