"""Files that one process at a time holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.file_lock import FileHeldError, hold


def test_others_are_told_who_holds_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_text("4194304, who held it before\n")
    with hold(file), pytest.raises(FileHeldError) as told:
        hold(file)
    assert told.value.holder == str(os.getpid())
    hold(file).close()


def test_a_full_disk_keeps_nobody_from_holding_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.symlink_to("/dev/full")
    with hold(file), pytest.raises(FileHeldError):
        hold(file)
