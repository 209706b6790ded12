"""What tests that were killed left behind goes away."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.folders import own_folder
from tests.support.stack import until

_TESTS = """
import time
from tests.support.store import running_store
with running_store() as store:
    print(store.pid, store.data_dir.parent, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_of_killed_tests_stay_neither_store_nor_folder() -> None:
    with subprocess.Popen([sys.executable, "-c", _TESTS], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, left = run.stdout.readline().split()
        folder = Path(left)
        make_old(folder)
        with own_folder("flow-store-"):
            assert folder.exists(), "its tests are running"
        run.kill()
    until("the store ends", 60, lambda: not Path(f"/proc/{pid}").exists())
    assert folder.exists()
    with own_folder("flow-store-") as another:
        assert not folder.exists()
        assert another.exists()
    assert not another.exists()


def test_what_is_new_or_anothers_stays(tmp_path: Path) -> None:
    new = tmp_path / "flow-store-new"
    new.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "flow-store-link"
    link.symlink_to(elsewhere)
    make_old(elsewhere)
    with own_folder("flow-store-"):
        assert new.exists()
        assert elsewhere.exists()
        make_old(new)
    with own_folder("flow-store-"):
        assert not new.exists()


def make_old(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2)
