"""Small file systems that a test can fill or make read-only; for root only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import until


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """``folder`` on a disk of its own of that size (``16m``); skips the test if not allowed to."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """What is opened in ``folder`` from now on cannot be written; skips the test likewise."""

    def mounted() -> bool:
        """Whether nobody opened a file to write between the two steps of it."""
        _mount("--bind", str(folder), str(folder))
        done = subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=False)
        if done.returncode:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return not done.returncode

    until("a moment without writers", 60, mounted)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all room that is left; called again, it takes what has become free."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast
