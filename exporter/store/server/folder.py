"""The store's folder: one process has it, and it is laid out before anything is written."""

from __future__ import annotations

import logging
import shutil
import stat
from pathlib import Path
from typing import IO, Self

from exporter.file_lock import FileHeldError, hold

log = logging.getLogger(__name__)


class StoreInUseError(Exception):
    """Another process has the data directory."""


class Folder:
    """Holds the data directory while open; a context manager.

    ``config``, ``data``, ``backups`` and ``temporary`` are folders in it; its own files are the
    passwords and the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.config = self.path / "config"
        self.data = self.path / "data"
        self.backups = self.path / "backups"
        self.temporary = self.path / "tmp"
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        """Take it, and make what is missing.

        Raises:
            StoreInUseError: another process has it.
            OSError: it cannot be written.
        """
        self._lock = _lock(self.path)
        if self.path.stat().st_mode & stat.S_IWOTH:
            log.warning(
                "%s: everybody may write there, the passwords included: `chmod o-w` it", self.path
            )
        try:
            # What a process that was killed has left there.
            shutil.rmtree(self.temporary, ignore_errors=True)
            for folder in (self.config, self.data, self.backups, self.temporary):
                folder.mkdir(exist_ok=True, mode=0o750)
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _lock(data_dir: Path) -> IO[str]:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    try:
        return hold(data_dir / "lock")
    except FileHeldError as error:
        raise StoreInUseError(
            f"{data_dir}: in use by another flow-exporter store (process {error.holder}); "
            "stop that one or choose another --data-dir"
        ) from error
