"""Files that one process at a time holds, whose name the others tell."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

#: Characters of a process's id, and some more.
_LONGEST: Final = 32


class FileHeldError(Exception):
    """Another process holds the file; ``holder`` is its id as text."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by process {holder}")
        self.holder = holder


def hold(path: Path) -> IO[str]:
    """Hold the file until it is closed, or this process ends in any way. It is made for the user of
    this process alone: whoever may read a file could hold it.

    Raises:
        FileHeldError: another process does.
        OSError: it cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    file = open(descriptor, "a+", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor, no path
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read(_LONGEST).strip() or "unknown"
        file.close()
        raise FileHeldError(holder) from error
    with contextlib.suppress(OSError):  # a full disk has no room for who holds it
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
    return file


@contextlib.contextmanager
def turn_in(folder: Path) -> Iterator[None]:
    """Change a file of the folder while nobody else who asks for a turn does; waits for it.

    Raises:
        OSError: there is no such folder, or it may not be read.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
