"""Files that a collector writes as a whole, and that no other may share with it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import IO

from exporter.config import ConfigError
from exporter.file_lock import FileHeldError, hold

log = logging.getLogger(__name__)


def in_use(setting: str, path: Path, error: FileHeldError) -> ConfigError:
    """The fault of a setting that names what another collector has."""
    return ConfigError(
        f"{setting}: {path}: another collector uses it (process {error.holder}); give each its own"
    )


class OwnFile:
    """Holds the file that ``setting`` names by a lock beside it, until it is let go of or this
    process ends in any way. The file itself is replaced at each write, so it cannot be the lock.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._path: Path | None = None
        self._lock: IO[str] | None = None

    def hold(self, path: Path) -> None:
        """Hold this file, and no other any more. Where no lock can be made, that is logged.

        Raises:
            ConfigError: another collector has it.
        """
        if path == self._path:
            return
        self.release()
        lock = path.with_name(f"{path.name}.lock")
        try:
            self._lock = hold(lock)
        except FileHeldError as error:
            raise in_use(self._setting, path, error) from error
        except OSError as error:
            log.warning(
                "%s: %s: %s: nothing keeps other collectors from %s",
                self._setting, lock, error.strerror, path.name,
            )  # fmt: skip
        self._path = path

    def release(self) -> None:
        """Let go of it."""
        if self._lock is not None:
            self._lock.close()
        self._path = self._lock = None
