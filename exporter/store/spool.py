"""Where inserts wait on disk while ClickHouse does not take them.

One file per insert, written whole or not at all (:mod:`.insert_file`), so that neither the death of
the process nor of the machine leaves anything else. Names sort by age.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final

from exporter.config import ConfigError
from exporter.config import Spool as SpoolSettings
from exporter.file_lock import FileHeldError, hold
from exporter.logs import RareLog
from exporter.own_file import in_use
from exporter.store.insert import Insert
from exporter.store.insert_file import (
    UNFINISHED,
    DamagedFileError,
    pack,
    read_insert,
    sync_folder,
    write_durably,
)
from exporter.store.quarantine import Quarantine
from exporter.store.spool_stats import SpoolStats

log = logging.getLogger(__name__)

#: An insert that ClickHouse may have taken already, or not.
_TRIED: Final = ".tried"
_UNTRIED: Final = ".insert"
#: After so many failures of the first insert by ClickHouse's own word, the second has its turn too.
_SUSPECT_FAILURES: Final = 3
#: It is the insert's own fault when, after so many failures, others pass by it so many times.
_GUILTY_FAILURES: Final = 8
_GUILTY_PASSED: Final = 3


class SpoolError(Exception):
    """An insert cannot be kept on disk; the text says why and what to do."""


@dataclass(slots=True, eq=False)
class Spooled:
    """A file of the spool; ``since`` is when it came, by the clock that nobody sets."""

    path: Path
    sequence: int
    rows: int
    size: int
    tried: bool
    since: float
    replaying: bool = False
    failures: int = 0
    yielded: int = 0
    passed: int = 0


class Spool:
    """The folder of one collector, which it locks. Any thread may call.

    What ClickHouse may have taken already comes out first, as its tokens are remembered for a
    number of inserts only; then the oldest. Beyond ``max_bytes`` and ``max_age_seconds`` the oldest
    are dropped and counted. Ages are measured, whatever the machine's clock is set to meanwhile.
    That of files of an earlier run is told by it, so these are dropped only when they have waited
    for as long in this run: the clock may be wrong.

    Raises:
        ConfigError: the folder cannot be used, or another collector has it.
    """

    def __init__(self, settings: SpoolSettings, stats: SpoolStats) -> None:
        self._settings = settings
        self._folder = Path(settings.directory)
        self._stats = stats
        self._lock = threading.Lock()
        self._tried: dict[int, Spooled] = {}
        self._untried: dict[int, Spooled] = {}
        self._bytes = 0
        self._rows = 0
        self._last = 0
        self._began = time.monotonic()
        self._closed = False
        self._log = RareLog(log)
        self._quarantine = Quarantine(self._folder, settings.quarantine_max_bytes)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._held = hold(self._folder / "lock")
            self._find()
        except FileHeldError as error:
            raise in_use("clickhouse.spool.directory", self._folder, error) from error
        except OSError as error:
            raise ConfigError(
                f"clickhouse.spool.directory: {self._folder}: {error.strerror}"
            ) from error
        stats.quarantine_sizes = self._quarantine.sizes
        if len(self):
            log.info("%d inserts of an earlier run wait in %s", len(self), self._folder)

    def __len__(self) -> int:
        return len(self._tried) + len(self._untried)

    def append(self, insert: Insert, *, tried: bool) -> None:
        """Keep an insert; ``tried``: ClickHouse may have taken it already.

        Raises:
            SpoolError: the disk does not take it.
        """
        data = pack(insert)
        try:
            path, sequence = self._reserve(len(data), insert.rows, tried=tried)
            try:
                write_durably(path, data)
            except OSError:
                with self._lock:
                    self._bytes -= len(data)
                raise
        except OSError as error:
            with self._stats.lock:
                self._stats.write_failures += 1
            raise SpoolError(
                f"cannot write to the spool {self._folder}: {error.strerror}. Flows wait in memory "
                "until this is mended: is the disk full?"
            ) from error
        entry = Spooled(path, sequence, insert.rows, len(data), tried, time.monotonic())
        with self._lock:
            (self._tried if tried else self._untried)[sequence] = entry
            self._rows += insert.rows
            with self._stats.lock:
                self._stats.spooled_rows += insert.rows
            self._count()

    def next(self) -> tuple[Spooled, Insert] | None:
        """What to replay now, to be given to one of the methods below; ``None``: nothing is left.

        Files found torn or damaged on the way are set aside.
        """
        while True:
            with self._lock:
                self._drop_aged()
                entry = self._choose()
                if entry is None:
                    return None
                entry.replaying = True
            try:
                return entry, read_insert(entry.path)
            except (OSError, DamagedFileError) as error:
                self._set_aside(entry, str(error))

    def taken(self, entry: Spooled) -> None:
        """ClickHouse has it."""
        with self._lock:
            for other in islice(self._waiting(), 2):
                if other is not entry and other.failures >= _SUSPECT_FAILURES:
                    other.passed += 1
            self._remove(entry)
        with self._stats.lock:
            self._stats.replayed_rows += entry.rows

    def failed(self, entry: Spooled, *, by_clickhouse: bool) -> bool:
        """ClickHouse did not take it; ``by_clickhouse``: it said so itself.

        Returns whether the insert is to blame, as ClickHouse takes others again and again, but
        never this one.
        """
        with self._lock:
            entry.replaying = False
            if by_clickhouse:
                entry.failures += 1
            return entry.failures >= _GUILTY_FAILURES and entry.passed >= _GUILTY_PASSED

    def quarantine(
        self, insert: Insert, reason: str, text: str, entry: Spooled | None = None
    ) -> bool:
        """Keep an insert that ClickHouse refuses; whether that worked.

        ``entry`` is where it lies here: its file is moved, for which a full disk has room.
        """
        if self._closed:
            return False
        why = f"{reason}: {text}"
        try:
            if entry is None:
                dropped = self._quarantine.add(insert, why)
            else:
                dropped = self._quarantine.set_aside(entry.path, entry.rows, why)
        except OSError as error:
            with self._stats.lock:
                self._stats.write_failures += 1
            self._log.error("quarantine", f"cannot write to quarantine: {error.strerror}")
            return False
        with self._stats.lock:
            self._stats.quarantined_rows[reason] += insert.rows
            self._stats.quarantine_dropped_rows += dropped
        return True

    def remove(self, entry: Spooled) -> None:
        """Take it out: it is in quarantine now, or dropped."""
        with self._lock:
            self._remove(entry)

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        with self._lock:
            self._closed = True
            self._held.close()

    def _find(self) -> None:
        """Take in what an earlier process left, and clear away what it did not finish."""
        self._quarantine.tidy()
        for path in sorted(self._folder.iterdir()):
            if path.name.endswith(UNFINISHED):
                log.warning("%s: the write was cut short; its flows are lost", path)
                path.unlink()
                self._stats.corrupt_files += 1
        for file in waiting_files(self._folder):
            tried = file.path.suffix == _TRIED
            came = time.monotonic() - max(0.0, time.time() - file.sequence / 1000)
            entry = Spooled(file.path, file.sequence, file.rows, file.size, tried, came)
            (self._tried if tried else self._untried)[entry.sequence] = entry
            self._last = max(self._last, entry.sequence)
            self._bytes += entry.size
            self._rows += entry.rows
        sync_folder(self._folder)
        with self._stats.lock:
            self._stats.bytes_limit = self._settings.max_bytes
        self._count()

    def _reserve(self, size: int, rows: int, *, tried: bool) -> tuple[Path, int]:
        """Make room for a file and name it."""
        limit = self._settings.max_bytes
        with self._lock:
            if self._closed or size > limit:
                raise OSError(0, "closed" if self._closed else "one insert exceeds max_bytes")
            while self._bytes + size > limit and (oldest := self._oldest()) is not None:
                self._drop(oldest, "full")
            self._bytes += size
            self._last = max(self._last + 1, int(time.time() * 1000))
            suffix = _TRIED if tried else _UNTRIED
            return self._folder / f"{self._last:015d}-{rows}{suffix}", self._last

    def _waiting(self) -> chain[Spooled]:
        return chain(self._tried.values(), self._untried.values())

    def _choose(self) -> Spooled | None:
        """The first in line; where that fails again and again, the second once for each failure."""
        first, second = (*islice(self._waiting(), 2), None, None)[:2]
        if first is None or second is None or first.failures < _SUSPECT_FAILURES:
            return first
        if first.yielded == first.failures:
            return first
        first.yielded = first.failures
        return second

    def _oldest(self) -> Spooled | None:
        heads = (
            next((entry for entry in entries.values() if not entry.replaying), None)
            for entries in (self._tried, self._untried)
        )
        return min((e for e in heads if e is not None), key=lambda e: e.sequence, default=None)

    def _drop_aged(self) -> None:
        limit = time.monotonic() - self._settings.max_age_seconds
        while (
            self._began < limit and (oldest := self._oldest()) is not None and oldest.since < limit
        ):
            self._drop(oldest, "age")

    def _drop(self, entry: Spooled, reason: str) -> None:
        self._remove(entry)
        with self._stats.lock:
            self._stats.dropped_rows[reason] += entry.rows
        why = "is full" if reason == "full" else "holds flows longer than max_age_seconds"
        self._log.error(reason, f"the spool {self._folder} {why}: the oldest flows are dropped")

    def _set_aside(self, entry: Spooled, why: str) -> None:
        log.error("%s is damaged and set aside: %s", entry.path, why)
        dropped = 0
        try:
            dropped = self._quarantine.set_aside(entry.path, entry.rows, f"damaged: {why}")
        except OSError as error:
            log.error("%s cannot be set aside: %s", entry.path, error.strerror)
        with self._lock:
            self._remove(entry, unlink=False)
            with self._stats.lock:
                self._stats.corrupt_files += 1
                self._stats.quarantine_dropped_rows += dropped

    def _remove(self, entry: Spooled, *, unlink: bool = True) -> None:
        known = (self._tried if entry.tried else self._untried).pop(entry.sequence, None)
        if known is None or self._closed:
            return
        self._bytes -= entry.size
        self._rows -= entry.rows
        if unlink:
            try:
                entry.path.unlink(missing_ok=True)
            except OSError as error:
                # It may be sent once more at the next start, and is then taken for what it is.
                self._log.error("unlink", f"{entry.path} cannot be removed: {error.strerror}")
        self._count()

    def _count(self) -> None:
        heads = [
            next(iter(entries.values())).since
            for entries in (self._tried, self._untried)
            if entries
        ]
        with self._stats.lock:
            self._stats.bytes = self._bytes
            self._stats.batches = len(self)
            self._stats.rows = self._rows
            self._stats.oldest = min(heads, default=None)


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """An insert in the folder of a spool; ``sequence`` is when it came, in ms of Unix time."""

    path: Path
    sequence: int
    rows: int
    size: int


def waiting_files(folder: Path) -> list[WaitingFile]:
    """The inserts in a spool, the oldest first; those that ClickHouse takes meanwhile may lack."""
    found = []
    for path in sorted(folder.iterdir()):
        sequence, _, rows = path.stem.partition("-")
        if path.suffix in (_TRIED, _UNTRIED) and sequence.isdigit() and rows.isdigit():
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                found.append(WaitingFile(path, int(sequence), int(rows), size))
    return found
