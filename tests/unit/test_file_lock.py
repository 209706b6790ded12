"""Files that one process at a time holds."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

import pytest

from exporter.file_lock import FileHeldError, hold, turn_in
from tests.support.stack import until


def test_others_are_told_who_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_text("4194304, who held it before\n")
    with hold(file), pytest.raises(FileHeldError) as told:
        hold(file)
    assert told.value.holder == str(os.getpid())
    hold(file).close()


def test_nobody_else_may_open_it(tmp_path: Path) -> None:
    with hold(tmp_path / "lock"):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_a_full_disk_keeps_nobody_from_holding_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.symlink_to("/dev/full")
    with hold(file), pytest.raises(FileHeldError):
        hold(file)


def test_whoever_wants_a_turn_in_a_folder_waits_for_it(tmp_path: Path) -> None:
    other = threading.Event()

    def wait() -> None:
        with turn_in(tmp_path):
            other.set()

    waiting = threading.Thread(target=wait)
    with turn_in(tmp_path):
        waiting.start()
        # Its second descriptor is that of the folder, for which it waits.
        until("the other to wait", 10, lambda: open_descriptors(tmp_path) == 2)
        assert not other.is_set()
    waiting.join(10)
    assert other.is_set()


def open_descriptors(path: Path) -> int:
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += descriptor.readlink() == path
    return found
