"""Folders of tests that stay behind for no longer than the next test run."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

#: A folder may be this old before its maker has locked it.
_NEW_SECONDS: Final = 60.0


@contextmanager
def own_folder(prefix: str) -> Iterator[Path]:
    """A new folder among temporary files, removed at the end.

    Of a process that was killed it stays behind: it is removed when the next one is made.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_left(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_left(folder: Path) -> None:
    """Remove a folder of ours, unless its maker lives, or a store in it, which ends soon."""
    with ExitStack() as held:
        if not _take(folder, held) or not all(_take(lock, held) for lock in folder.glob("*/lock")):
            return
        about = folder.stat()
        if about.st_uid == os.getuid() and time.time() - about.st_mtime > _NEW_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _take(path: Path, held: ExitStack) -> bool:
    """Lock it; False where somebody else has it, or it is gone."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        held.callback(os.close, opened)
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
