"""Which row of the alert history an observation belongs to, and what it changes there.

One alert is seen many times: by two Prometheus replicas, through Alertmanager, again every minute.
Its rows are intervals of one fingerprint; observations that overlap an interval are about that one,
whatever they say about its start, so that a start that a replica saw seconds later adds no row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from exporter.incidents.alert import Observation

#: Starts and ends this close are the same: replicas evaluate within a scrape interval or so.
FOLD: Final = timedelta(seconds=120)

#: A firing alert that only notifications tell of is over when none repeated it for this long.
_UNREPEATED: Final = timedelta(hours=26)

#: A firing alert read back from the table is over unless it is seen again within this time.
_REREAD: Final = timedelta(minutes=15)

#: A firing alert's row is written anew this often, so that its last sighting outlives a restart.
_REFRESH: Final = timedelta(minutes=5)

#: Prometheus repeats an end for 15 minutes.
_FORGET: Final = timedelta(hours=2)

#: What the table tells two times apart by.
_TICK: Final = timedelta(milliseconds=1)

#: Alerts that are remembered; each has some 32 KiB of text at most.
_MAX_ROWS: Final = 20_000


@dataclass(slots=True)
class AlertRow:
    """A row of table ``alerts``; while it fires, ``valid_until`` is when it ends unless repeated
    and ``ends_at`` is ``None``. ``shown``: whether others were told that it fires."""

    fingerprint: str
    starts_at: datetime
    ends_at: datetime | None
    updated_at: datetime
    labels: dict[str, str]
    annotations: dict[str, str]
    generator_url: str
    source: str
    valid_until: datetime
    dirty: bool = True
    written_at: datetime | None = None
    shown: bool = False

    def update(self, now: datetime) -> None:
        """It has changed; the table keeps the latest, also when the clock was set back."""
        self.updated_at = max(now, self.updated_at + _TICK)
        self.dirty = True

    @property
    def resolved(self) -> bool:
        """Whether it has ended."""
        return self.ends_at is not None

    @property
    def value(self) -> float:
        """The value that the alert's ``value`` annotation tells; NaN without one."""
        try:
            return float(self.annotations.get("value", ""))
        except ValueError:
            return math.nan


class History:
    """The rows that may still change. Not for use by several threads."""

    def __init__(self) -> None:
        self._rows: dict[str, list[AlertRow]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[AlertRow]:
        for rows in self._rows.values():
            yield from rows

    def restore(self, rows: Iterable[AlertRow], now: datetime) -> None:
        """Take in rows as the table has them; to be done before the first observation."""
        for row in rows:
            row.dirty = False
            row.written_at = row.updated_at
            if not row.resolved:
                row.valid_until = now + _REREAD
            self._add(row)

    def observe(self, seen: Observation) -> bool:
        """Take in an observation; ``False`` if there is no room for one more alert."""
        row = self._row_of(seen)
        if row is None:
            if self._count >= _MAX_ROWS:
                return False
            self._add(_new_row(seen))
        else:
            _change(row, seen)
        return True

    def expire(self, now: datetime) -> None:
        """End what nobody vouches for any more, and forget what ended long ago."""
        for fingerprint in list(self._rows):
            kept = []
            for row in self._rows[fingerprint]:
                if not row.resolved and row.valid_until <= now:
                    row.ends_at = max(row.valid_until, row.starts_at)
                    row.update(now)
                if row.dirty or not row.resolved or now - row.updated_at < _FORGET:
                    kept.append(row)
                else:
                    self._count -= 1
            if kept:
                self._rows[fingerprint] = kept
            else:
                del self._rows[fingerprint]

    def unwritten(self) -> list[AlertRow]:
        """Rows that differ from the table's."""
        return [row for row in self if row.dirty]

    def _add(self, row: AlertRow) -> None:
        self._rows.setdefault(row.fingerprint, []).append(row)
        self._count += 1

    def _row_of(self, seen: Observation) -> AlertRow | None:
        for row in reversed(self._rows.get(seen.fingerprint, [])):
            row_end = row.ends_at or max(row.valid_until, seen.seen_at)
            seen_end = seen.ends_at if seen.resolved and seen.ends_at else seen.seen_at
            same_start = abs(seen.starts_at - row.starts_at) <= FOLD
            if same_start or (seen.starts_at < row_end and row.starts_at < seen_end):
                return row
        return None


def _new_row(seen: Observation) -> AlertRow:
    return AlertRow(
        fingerprint=seen.fingerprint,
        starts_at=seen.starts_at,
        ends_at=seen.ends_at if seen.resolved else None,
        updated_at=seen.seen_at,
        labels=seen.labels,
        annotations=seen.annotations,
        generator_url=seen.generator_url,
        source=seen.source,
        valid_until=_valid_until(seen),
    )


def _valid_until(seen: Observation) -> datetime:
    if seen.ends_at is not None:
        return seen.ends_at
    return seen.seen_at + _UNREPEATED


def _change(row: AlertRow, seen: Observation) -> None:
    """Bring a row up to what was seen of its alert; what changes it is to be written."""
    if seen.resolved:
        changed = _end(row, seen)
    elif row.resolved:
        changed = _fire_again(row, seen)
    else:
        changed = _still_fire(row, seen)
    if not changed:
        return
    row.update(seen.seen_at)
    if seen.annotations:
        row.annotations = seen.annotations


def _end(row: AlertRow, seen: Observation) -> bool:
    told = seen.ends_at
    if row.ends_at is not None and (told is None or told <= row.ends_at + FOLD):
        return False
    row.ends_at = max(told or seen.seen_at, row.starts_at)
    return True


def _fire_again(row: AlertRow, seen: Observation) -> bool:
    # A notification reaches us after its group's wait: what it calls firing may be over.
    if seen.source == "webhook":
        return False
    row.ends_at = None
    row.valid_until = _valid_until(seen)
    return True


def _still_fire(row: AlertRow, seen: Observation) -> bool:
    if seen.ends_at is not None or row.source == "webhook":
        row.valid_until = _valid_until(seen)
    if seen.source == "prometheus":
        row.source = seen.source
    return row.written_at is None or seen.seen_at - row.written_at >= _REFRESH
