"""Records of inserted parts, by which the engine knows an insert that is sent again.

Each table's folder has ``deduplication_logs/deduplication_log_N.txt`` with lines ``1<tab>part<tab>
token``, for a part that was added, and ``2…`` for one dropped (ClickHouse's
MergeTreeDeduplicationLog.cpp). The engine writes the record first and then puts the part in its
place. Where that fails, or the process is killed in between, the record stays without its part: the
same insert, sent again, would be acknowledged and not stored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

_RECORD: Final = re.compile(r"([12])\t(?P<part>[^\t\n]+)\t[^\t\n]+\n")
_PART: Final = re.compile(r"(?P<partition>[^_]+)_(?P<first>\d+)_(?P<last>\d+)_\d+(?:_\d+)?")
_LOGS: Final = "deduplication_logs"


def tables(data: Path) -> list[Path]:
    """Folders of all tables with such records; they are called by the table's UUID."""
    return [logs.parent for logs in data.glob(f"store/*/*/{_LOGS}")]


def has_part(table: Path, record: str) -> bool:
    """Whether the part that a record names is in its place, merged or not yet."""
    return _is_whole(table / _RECORD.sub(r"\g<part>", record))


def without_part(table: Path) -> set[str]:
    """The records of parts that were added and are nowhere, not even merged into another.

    An insert that runs right now may have one for a moment. Parts that were too old and went have
    one as well, and need it no longer.

    Raises:
        OSError: the folder cannot be read.
    """
    spans: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for folder in table.iterdir():
        if (found := _PART.fullmatch(folder.name)) and _is_whole(folder):
            spans[found["partition"]].append((int(found["first"]), int(found["last"])))

    def is_there(part: str) -> bool:
        found = _PART.fullmatch(part)
        return found is None or any(
            first <= int(found["first"]) and int(found["last"]) <= last
            for first, last in spans[found["partition"]]
        )

    return {
        record
        for _, records in _logs(table)
        for record in records
        if record.startswith("1") and not is_there(_RECORD.sub(r"\g<part>", record))
    }


def check_writable(table: Path) -> None:
    """Whether :func:`forget` can do its work.

    Raises:
        OSError: it cannot.
    """
    for log, _ in _logs(table):
        log.open("ab").close()


def forget(table: Path, lost: Collection[str]) -> None:
    """Take these records out, and lines that are none: what follows such a line is not read.

    The engine must not have the table open.

    Raises:
        OSError: the folder cannot be written.
    """
    for log, records in _logs(table):
        kept = "".join(record for record in records if record not in lost)
        if kept != log.read_text(encoding="utf-8", errors="replace"):
            new = log.parent.parent / f"{log.name}.new"  # any name beside the logs is read as one
            new.write_text(kept, encoding="utf-8")
            new.replace(log)


def _is_whole(part: Path) -> bool:
    return (part / "checksums.txt").is_file()


def _logs(table: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each log with its records."""
    for log in (table / _LOGS).glob("deduplication_log_*.txt"):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        yield log, [line for line in lines if _RECORD.fullmatch(line)]
