"""What is no regular file is refused wherever a file is configured: to read it may never end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exporter.cli import app
from exporter.config import Config, ConfigError, load_config, load_yaml, read_secret
from exporter.config.name_files import load_devices, load_hosts, load_networks, load_targets
from exporter.decode import state_file
from exporter.decode.elements import ElementTable
from exporter.decode.state import State
from exporter.enrich.geo_as_names import read_names
from exporter.enrich.geo_mmdb import MmdbFile
from exporter.policies.lists import ListError, read_list
from exporter.policies.model import load_policies
from exporter.web_config import TlsServerConfig, load_web_config, tls_context


def _certificate(path: Path) -> object:
    return tls_context(TlsServerConfig(cert_file=str(path), key_file=str(path)))


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "configuration": (load_config, "flow-exporter.yaml"),
    "policies": (load_policies, "policies.yaml"),
    "list": (lambda path: read_list(path, "addresses"), "list.txt"),
    "devices": (load_devices, "devices.yaml"),
    "devices, CSV": (load_devices, "devices.csv"),
    "networks": (load_networks, "networks.csv"),
    "hosts": (load_hosts, "hosts"),
    "targets": (load_targets, "targets.json"),
    "countries": (lambda path: MmdbFile(str(path)), "country.mmdb"),
    "names of AS": (lambda path: read_names(str(path)), "as.csv"),
    "web configuration": (lambda path: load_web_config(str(path)), "web.yml"),
    "certificate": (_certificate, "cert.pem"),
    "secret": (lambda path: read_secret(str(path), ""), "password"),
}


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """What is said; in a thread of its own, as who does not refuse never comes back."""
    told: list[str] = []

    def attempt() -> None:
        try:
            read(path)
        except (ConfigError, ListError) as error:
            told.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(120)
    assert told, "nothing was refused"
    return told[0]


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_by_name(tmp_path: Path, name: str) -> None:
    read, file = READERS[name]
    os.mkfifo(tmp_path / file)
    said = refusal(read, tmp_path / file)
    assert str(tmp_path / file) in said
    assert "is a pipe, where a regular file is needed" in said


def test_a_device_is_refused_as_well(tmp_path: Path) -> None:
    link = tmp_path / "flow-exporter.yaml"
    link.symlink_to("/dev/zero")
    assert refusal(load_config, link) == f"{link}: is a device, where a regular file is needed"


def test_links_to_files_are_followed_as_kubernetes_makes_them(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_23").mkdir()
    (tmp_path / "..2026_11_23" / "flow-exporter.yaml").write_text("http: {port: 9999}\n")
    (tmp_path / "..data").symlink_to("..2026_11_23")
    (tmp_path / "flow-exporter.yaml").symlink_to("..data/flow-exporter.yaml")
    assert load_yaml(tmp_path / "flow-exporter.yaml", Config).http.port == 9999


def test_a_saved_state_that_is_no_file_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "templates.json"
    os.mkfifo(file)
    state = State(Config().decode, (), ElementTable(()))
    thread = threading.Thread(target=state_file.load, args=(file, state), daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    assert "is a pipe" in caplog.text


def test_the_command_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.yaml")

    def check(path: Path) -> None:
        result = CliRunner().invoke(app, ["check", "--config", str(path)])
        raise ConfigError(f"exit {result.exit_code}: {result.output}")

    said = refusal(check, tmp_path / "c.yaml")
    assert said.startswith("exit 2: ")
    assert "c.yaml: is a pipe" in said
