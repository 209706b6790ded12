"""Inserts that ClickHouse refuses, kept for a person: a file, and the reason beside it."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporter.store.insert import Insert
from exporter.store.insert_file import UNFINISHED, pack, write_durably

FOLDER: Final = "quarantine"
_SUFFIX: Final = ".insert"
_REASON: Final = ".reason"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One file; ``rows`` is what its name says, 0 where that says nothing."""

    path: Path
    size: int
    rows: int
    reason: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def since(self) -> float:
        """When it came here, in seconds of Unix time; 0 where the name does not tell."""
        text = self.name.partition("-")[0]
        return int(text) / 1000 if text.isdigit() else 0.0


class Quarantine:
    """The folder ``quarantine`` of a spool. The command line uses it beside a running collector.

    At most ``max_bytes``: the oldest give way.
    """

    def __init__(self, spool: Path, max_bytes: int) -> None:
        self.folder = spool / FOLDER
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._last = 0

    def add(self, insert: Insert, reason: str) -> int:
        """Keep an insert and why; returns how many rows of older ones gave way.

        Raises:
            OSError: it cannot be written.
        """
        data = pack(insert)
        with self._lock:
            dropped = self._make_room(len(data))
            path = self._path(insert.rows)
            self._write_reason(path, reason)
            write_durably(path, data)
        return dropped

    def set_aside(self, spooled: Path, rows: int, reason: str) -> int:
        """Move a file of the spool here; returns how many rows of older ones gave way.

        Raises:
            OSError: it cannot be moved.
        """
        with self._lock:
            dropped = self._make_room(spooled.stat().st_size)
            path = self._path(rows)
            with contextlib.suppress(OSError):  # of a full disk: better without than not at all
                self._write_reason(path, reason)
            spooled.rename(path)
        return dropped

    def files(self) -> list[Quarantined]:
        """What is here, the oldest first."""
        found = []
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):  # somebody took it meanwhile
                rows = path.stem.partition("-")[2]
                reason = ""
                with contextlib.suppress(OSError):
                    reason = path.with_suffix(_REASON).read_text(encoding="utf-8").strip()
                count = int(rows) if rows.isdigit() else 0
                found.append(Quarantined(path, path.stat().st_size, count, reason))
        return found

    def sizes(self) -> Iterator[int]:
        """Bytes of each file, in no order."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                yield path.stat().st_size

    def remove(self, file: Quarantined) -> None:
        """Forget one."""
        file.path.unlink(missing_ok=True)
        file.path.with_suffix(_REASON).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what a death in the middle of :meth:`add` left behind."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob(f"*{_REASON}"):
            if not path.with_suffix(_SUFFIX).exists():
                path.unlink(missing_ok=True)

    def _make_room(self, size: int) -> int:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if size > self._max_bytes:
            raise OSError(errno.EFBIG, "larger than clickhouse.spool.quarantine_max_bytes")
        dropped = 0
        files = self.files()
        total = size + sum(file.size for file in files)
        for file in files:
            if total <= self._max_bytes:
                break
            self.remove(file)
            total -= file.size
            dropped += file.rows
        return dropped

    def _path(self, rows: int) -> Path:
        self._last = max(self._last + 1, int(time.time() * 1000))
        return self.folder / f"{self._last:015d}-{rows}{_SUFFIX}"

    def _write_reason(self, path: Path, reason: str) -> None:
        path.with_suffix(_REASON).write_text(reason.strip() + "\n", encoding="utf-8")
