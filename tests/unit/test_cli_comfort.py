"""Every command explains itself with an example, and answers machines without ornaments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from exporter.cli import app
from exporter.resources import resource

POLICIES = str(resource("alerting/policies.yaml"))


def _commands(group: Any, name: str = "flow-exporter") -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    assert name in COMMANDS[name].help.partition("Try it:")[2]


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_table_that_is_not_for_a_terminal_has_neither_colours_nor_folded_lines() -> None:
    lines = _run("policies", "list", "--file", POLICIES).splitlines()
    listed = json.loads(_run("policies", "list", "--json", "--file", POLICIES))
    assert len(lines) == 1 + len(listed)
    assert "\x1b" not in "".join(lines)
    assert [line.split()[0] for line in lines[1:]] == [policy["name"] for policy in listed]


def test_the_spool_is_told_to_machines(tmp_path: Path) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text(yaml.safe_dump({"clickhouse": {"spool": {"directory": str(tmp_path)}}}))
    told = json.loads(_run("spool", "list", "--json", "--config", str(config)))
    empty = {"inserts": 0, "flows": 0, "bytes": 0, "since": None}
    assert told == {"spool": empty, "quarantine": []}


def test_what_check_finds_is_told_to_machines(tmp_path: Path) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text(yaml.safe_dump({"policies": {"file": POLICIES}}))
    told = json.loads(_run("check", "--offline", "--json", "--config", str(config)))
    assert told["ok"]["configuration"] == str(config)
    assert told["faults"] == []
    config.write_text("polices: {}\n")
    result = CliRunner().invoke(app, ["check", "--json", "--config", str(config)])
    assert result.exit_code == 2
    (fault,) = json.loads(result.stdout)["faults"]
    assert f"{config}:1" in fault


def test_check_names_the_setting_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text(
        "policies: {file: gone.yaml}\n"
        "geo: {files: [gone.mmdb]}\n"
        "host_files: [gone.csv]\n"
        "host_targets: {files: ['gone/*.json']}\n"
        "clickhouse: {password_file: gone.password}\n"
    )
    result = CliRunner().invoke(app, ["check", "--offline", "--json", "--config", str(config)])
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    missing = "No such file or directory"
    assert found["faults"] == [
        f"{tmp_path}/gone.yaml: {missing} (policies.file)",
        f"{tmp_path}/gone.mmdb: {missing} (geo.files.0)",
    ]
    assert found["warnings"] == [
        f"{tmp_path}/gone.csv: there is no such file (host_files)",
        f"{tmp_path}/gone/*.json: there is no such file (host_targets.files)",
        f"{tmp_path}/gone.password: {missing} (clickhouse.password_file)",
    ]


def test_check_warns_of_secrets_that_everybody_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "writer.password"
    secret.write_text("geheim")
    config = tmp_path / "flow-exporter.yaml"
    config.write_text(yaml.safe_dump({"clickhouse": {"password_file": str(secret)}}))
    for mode, warned in ((0o600, False), (0o640, False), (0o644, True)):
        secret.chmod(mode)
        printed = _run("check", "--offline", "--json", "--config", str(config))
        assert ("everybody here can read it" in printed) is warned
        assert "geheim" not in printed


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("explore --by dst_netw", ["dst_network"]),
        ("explore --measure packets", ["packets_per_second"]),
        ("simulate load", ["load-spike"]),
        ("polic", ["policies"]),
    ],
)
def test_the_shell_completes_commands_and_values(words: str, offered: list[str]) -> None:
    completing = {
        "_FLOW_EXPORTER_COMPLETE": "complete_bash",
        "COMP_WORDS": f"flow-exporter {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    result = CliRunner().invoke(app, [], prog_name="flow-exporter", env=completing)
    assert result.stdout.split("\n")[0].split() == offered


@pytest.mark.parametrize(
    "command",
    [["explore"], ["policies", "check"], ["migrate"], ["incidents", "list"], ["spool", "replay"]],
    ids=" ".join,
)
def test_a_password_file_that_is_not_there_is_a_fault_of_the_configuration(
    tmp_path: Path, command: list[str]
) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text("clickhouse: {password_file: gone, spool: {directory: spool}}\n")
    (tmp_path / "spool").mkdir()
    result = CliRunner().invoke(app, [*command, "--config", str(config)])
    assert result.exit_code == 2
    assert f"{tmp_path}/gone: No such file or directory" in result.stderr
    assert "ConfigError" not in result.stderr
