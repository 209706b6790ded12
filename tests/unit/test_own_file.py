"""Files that a collector has to itself: the templates' and that of interfaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.collector import CollectorProcess
from exporter.config import Config, ConfigError
from exporter.own_file import OwnFile


def holding(file: Path) -> subprocess.Popen[str]:
    """Another process that has it."""
    program = (
        "import sys, pathlib; from exporter.own_file import OwnFile\n"
        "own = OwnFile('s'); own.hold(pathlib.Path(sys.argv[1])); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def configured(spool: Path, templates: Path) -> Config:
    return Config.model_validate(
        {
            "receive": {"udp": [{"address": "127.0.0.1", "port": 0}]},
            "http": {"port": 0},
            "decode": {"template_file": str(templates)},
            "clickhouse": {"spool": {"directory": str(spool)}},
        }
    )


def test_a_shared_template_file_is_refused_until_its_holder_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "templates.json"
    with holding(file) as other:
        try:
            with pytest.raises(ConfigError) as told:
                CollectorProcess(configured(tmp_path / "refused", file), None)
            assert str(told.value) == (
                f"decode.template_file: {file}: another collector uses it (process {other.pid}); "
                "give each its own"
            )
        finally:
            other.kill()
    started = CollectorProcess(configured(tmp_path / "spool", file), None)
    with started, pytest.raises(ConfigError) as told:
        OwnFile("decode.template_file").hold(file)
    assert f"(process {os.getpid()})" in str(told.value)
    OwnFile("decode.template_file").hold(file)  # stopped, it has let go
    assert json.loads(file.read_text())["streams"] == []


def test_another_file_is_held_in_place_of_the_one_before(tmp_path: Path) -> None:
    own, other = OwnFile("a"), OwnFile("b")
    own.hold(tmp_path / "first")
    own.hold(tmp_path / "first")
    other.hold(tmp_path / "second")
    with pytest.raises(ConfigError):
        own.hold(tmp_path / "second")
    other.hold(tmp_path / "first")
    own.hold(tmp_path / "second")
    own.release()
    other.hold(tmp_path / "second")


def test_where_no_lock_can_be_made_that_is_said_and_all_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnFile("decode.template_file")
    own.hold(tmp_path / "missing" / "templates.json")
    own.hold(tmp_path / "missing" / "templates.json")
    assert len(caplog.messages) == 1
    assert "nothing keeps other collectors from templates.json" in caplog.text
