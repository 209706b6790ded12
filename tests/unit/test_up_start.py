"""What stands in the way of `flow-exporter up` is said at once, and what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.config.receive import UdpListener
from exporter.policies.blocks import all_or_none, finish_moving, has_blocks
from exporter.up.errors import UpError
from exporter.up.lines import readable, shortened
from exporter.up.lock import locked
from exporter.up.ports import check_udp
from tests.support.stack import free_port


def test_a_folder_in_which_everything_runs_is_left_alone(tmp_path: Path) -> None:
    with locked(tmp_path / "demo"):
        story = tmp_path / "demo" / "story.json"
        story.write_text("{}")
        command = [sys.executable, "-m", "exporter", "up", "--data-dir", str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert second.returncode == 1
        assert f"it runs already in {tmp_path / 'demo'} (process {os.getpid()})" in second.stderr
        assert "--data-dir" in second.stderr
        assert {file.name for file in story.parent.iterdir()} == {"story.json", "up.lock"}
        assert story.read_text() == "{}"
    with locked(tmp_path / "demo"):
        pass


def test_a_taken_flow_port_is_found_before_anything_starts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", free_port(socket.SOCK_DGRAM)))
        listener = UdpListener(address="127.0.0.1", port=other.getsockname()[1])
        with pytest.raises(UpError, match=rf"UDP port {listener.port} of 127.0.0.1.*receive\.udp"):
            check_udp([listener])
    check_udp([listener])


def test_without_prometheus_one_is_told_how_to_get_it(tmp_path: Path) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text("receive: {udp: [{port: 0}]}")  # the usual ones may be in use here
    command = [sys.executable, "-m", "exporter", "up", "--config", str(config)]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path)],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "apt-get install --no-install-recommends prometheus" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            "time=2026-11-23T00:17:46.991Z level=info logger=exporter.store.readiness "
            'msg="ClickHouse is ready"',
            "ClickHouse is ready",
        ),
        (
            "ts=2026-11-23T00:25:59.012Z caller=main.go:1 level=warn component=tsdb "
            'msg="said \\"no\\"" err="disk full"',
            'warn: said "no"; err: disk full',
        ),
        ("flows: 10 %, about 135 s left", "flows: 10 %, about 135 s left"),
        ("a=1 is no log line", "a=1 is no log line"),
        ("", ""),
    ],
)
def test_log_lines_are_shown_as_a_person_reads_them(line: str, shown: str) -> None:
    assert readable(line) == shown


def test_a_line_of_pages_is_cut() -> None:
    assert shortened("slow query: SELECT 1") == "slow query: SELECT 1"
    assert len(shortened("slow query: " + "x" * 10_000)) < 600


def test_blocks_of_the_past_are_there_all_or_none(tmp_path: Path) -> None:
    def write(folder: Path, name: str) -> None:
        (folder / name).mkdir()
        (folder / name / "meta.json").write_text("{}")

    def interrupted() -> None:
        with all_or_none(tmp_path) as folder:
            write(folder, "first")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    write_killed = tmp_path / "backfill.tmp"
    write_killed.mkdir()
    write(write_killed, "of one that was killed")
    with all_or_none(tmp_path) as folder:
        write(folder, "first")
        write(folder, "second")
        assert not has_blocks(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}
    assert has_blocks(tmp_path)


def test_blocks_that_were_moving_when_all_was_killed_are_moved_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed_after_one(self: Path, target: Path) -> Path:
        if (tmp_path / "one").exists() or (tmp_path / "two").exists():
            raise KilledError
        return rename(self, target)

    def write() -> None:
        with all_or_none(tmp_path) as folder:
            (folder / "one").mkdir()
            (folder / "two").mkdir()

    rename = Path.rename
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed_after_one)
        with pytest.raises(KilledError):
            write()
    assert len(list(tmp_path.iterdir())) == 2, "one is there, the other on its way"
    finish_moving(tmp_path)
    finish_moving(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}
