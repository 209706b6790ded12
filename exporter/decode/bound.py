"""Data sets of a batch of NetFlow v9 or IPFIX, and how far the flows among them are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.binding import Binding
from exporter.decode.datagrams import Datagrams, Sets
from exporter.decode.devices import Stream, WaitingSet
from exporter.decode.flows import DataSets
from exporter.decode.grouping import ByStream
from exporter.decode.records import TAIL, Offsets

#: Rows of one call: more than a batch of real datagrams can hold.
MAX_ROWS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Arrived:
    """Datagrams of one protocol in ``buffer``.

    ``stream`` points into ``streams``, per datagram, which ``groups`` has sorted by it.
    """

    buffer: memoryview
    datagrams: Datagrams
    stream: NDArray[np.intp]
    streams: list[Stream]
    groups: ByStream

    def take(self, rows: NDArray[Any]) -> Arrived:
        """The datagrams that an index or a mask selects."""
        stream = self.stream[rows]
        return replace(
            self, datagrams=self.datagrams.take(rows), stream=stream,
            groups=ByStream.group(stream),
        )  # fmt: skip


@dataclass(slots=True)
class Bound:
    """Sets of a batch with their templates, and how far the flows among them are decoded.

    ``steps`` are records per datagram, ``complete`` whether all were decoded. ``budget`` is how
    many rows there may be yet, ``decoded`` the octet of the buffer up to which flows are done.
    """

    arrived: Arrived
    binding: Binding
    table: DataSets
    steps: Offsets
    complete: NDArray[np.bool_]
    budget: int = MAX_ROWS
    decoded: int = 0


def data_sets(arrived: Arrived, sets: Sets) -> DataSets:
    """All sets, with what their datagrams tell."""
    datagrams = arrived.datagrams
    return DataSets(
        arrived.buffer, arrived.streams, sets.number, sets.start, sets.length,
        sets.spread(arrived.stream), sets.datagram, sets.spread(datagrams.received),
        sets.spread(datagrams.exported), sets.spread(datagrams.uptime),
    )  # fmt: skip


def uptimes(arrived: Arrived) -> Offsets:
    """The device's uptime at the export of IPFIX, if options told when it started."""
    told = [stream.device.system_init for stream in arrived.streams]
    if not any(told):
        return np.full(len(arrived.datagrams), -1)
    started = np.array(told, np.int64)[arrived.stream]
    return np.where(started > 0, (arrived.datagrams.exported - started) & 0xFFFFFFFF, -1)


def waiting_sets(stream: Stream, number: int, waiting: Sequence[WaitingSet]) -> DataSets:
    length = np.array([len(w.body) for w in waiting], np.int64)
    count = len(waiting)

    def column(values: Iterable[Any]) -> Offsets:
        return np.fromiter(values, np.int64, count)

    return DataSets(
        b"".join([*(w.body for w in waiting), bytes(TAIL)]), [stream],
        np.full(count, number), np.cumsum(length) - length, length, np.zeros(count, np.intp),
        np.full(count, -1), column(w.received for w in waiting),
        column(w.exported for w in waiting), column(w.uptime for w in waiting),
    )  # fmt: skip
