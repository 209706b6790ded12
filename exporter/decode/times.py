"""Flow times: from whatever a record tells to two times that make sense."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.decode.values import NO_TIME
from exporter.schema import TimeSource

Times = NDArray[np.int64]

#: A flow that ends later than this after its reception, or earlier than that before, has times
#: that cannot be (milliseconds).
MAX_FUTURE: Final = 3_600_000
MAX_PAST: Final = 86_400_000
#: Longest flow that is believed.
MAX_DURATION: Final = 366 * 86_400_000
#: A start this little after the end is rounding.
_ROUNDING: Final = 1_000

#: Base of uptimes of devices whose start is not known: differences still hold.
FLOATING: Final = -(1 << 61)


class Uptimes:
    """Turns uptimes (32 bits of milliseconds) into milliseconds since the epoch.

    ``at_export`` is the device's uptime at export, per row. Where it is below 0 it is not known;
    then times come out relative to :data:`FLOATING`.
    """

    def __init__(self, at_export: Times) -> None:
        self._known = at_export >= 0
        self._all_known = bool(self._known.all())
        self._at_export = at_export.astype(np.uint32)

    def times(self, uptimes: NDArray[np.uint32], exported: Times) -> Times:
        """Times of a field, given when each row was exported.

        The difference to the uptime at export is signed: a flow may end after the header was
        written, and the counter wraps every 49.7 days.
        """
        times: Times = exported - (self._at_export - uptimes).view(np.int32)
        if self._all_known:
            return times
        return np.where(self._known, times, FLOATING + uptimes.astype(np.int64))


def _all_sane(start: Times, end: Times, received: Times) -> bool:
    """Whether all flows surely have sane times, told by few looks at them.

    :data:`NO_TIME` is far from all of them; differences that overflow are large as well.
    """
    if not len(received):
        return True
    if end.max() > received.min() + MAX_FUTURE or end.min() < received.max() - MAX_PAST:
        return False
    length = (end - start).view(np.uint64)
    return bool(length.max() <= MAX_DURATION)


def _first_told(*told: Array | None) -> Times:
    """Per row the first time that is one, else the last; 0 is none: the flow has not ended yet."""
    *others, times = (column for column in told if column is not None)
    for column in reversed(others):
        times = np.where((column == NO_TIME) | (column == 0), times, column)
    return times


def flow_times(
    columns: dict[str, Array], received: Times
) -> tuple[Times, Times, NDArray[np.int8], int]:
    """Start, end and ``time_source`` per row, and how many rows got the time of reception.

    ``columns`` may hold ``time_flow_start``, ``time_flow_end``, ``duration`` and ``event_time``.
    Where the end makes no sense the flow ends at its reception; its duration is kept if it does.
    """
    count = len(received)
    start = columns.pop("time_flow_start", None)
    end = columns.pop("time_flow_end", None)
    duration = columns.pop("duration", None)
    event = columns.pop("event_time", None)
    if start is not None and end is not None and _all_sane(start, end, received):
        return start, end, np.zeros(count, np.int8), 0
    told = np.zeros(1, np.int64)
    if duration is not None:
        told = np.minimum(duration, np.uint64(MAX_DURATION)).astype(np.int64)
    start = _first_told(start, np.full(count, NO_TIME))
    # Where no time is told, both are none and yet as far apart as the flow is long.
    end = _first_told(end, event, start + told)
    start = np.where(start == NO_TIME, end - told, start)
    late = start > end
    believed = (end <= received + MAX_FUTURE) & (end >= received - MAX_PAST)
    believed &= ~late & (start >= end - MAX_DURATION)
    source = np.zeros(count, np.int8)
    if believed.all():
        return start, end, source, 0
    rounding = late & (start - end <= _ROUNDING)
    length = np.where((start <= end) & (end - start <= MAX_DURATION), end - start, 0)
    in_time = (end <= received + MAX_FUTURE) & (end >= received - MAX_PAST)
    odd = ~believed & ~(rounding & in_time)
    end = np.where(in_time, end, received)
    start = np.where(believed, start, end - length)
    source[odd] = TimeSource.RECEIVED
    return start, end, source, int(np.count_nonzero(odd))
