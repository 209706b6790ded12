"""The folder of the embedded store."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from exporter.store.server.folder import Folder, StoreInUseError


def test_what_is_in_it_is_its_owner_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Folder(tmp_path / "store") as folder:
        for part in (folder.path, folder.config, folder.data, folder.backups, folder.temporary):
            assert not stat.S_IMODE(part.stat().st_mode) & 0o027
    assert not caplog.records


def test_it_is_told_when_everybody_may_write_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o777)
    with Folder(tmp_path):
        pass
    assert "everybody may write there" in caplog.text


def test_one_at_a_time_has_it(tmp_path: Path) -> None:
    with Folder(tmp_path), pytest.raises(StoreInUseError, match="in use by another"):
        Folder(tmp_path).__enter__()
    with Folder(tmp_path):
        pass


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "left"
    left.mkdir(parents=True)
    with Folder(tmp_path) as folder:
        assert list(folder.temporary.iterdir()) == []
