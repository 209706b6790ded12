"""The datagrams of a batch by the stream that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ByStream:
    """Rows of datagrams sorted by stream, found once for all who look at streams one by one.

    ``order`` has the rows, those of a stream in the order of their reception. ``first`` and
    ``last`` are the places in ``order`` where each stream that has any begins and ends, and
    ``numbers`` which streams these are.
    """

    order: Places
    first: Places
    last: Places
    numbers: list[int]

    @classmethod
    def group(cls, stream: Places, streams: int) -> ByStream:
        """Group datagrams; ``stream`` is the stream of each, a number below ``streams``."""
        count = len(stream)
        if streams == 1 or not count:
            some = min(count, 1)
            return cls(
                np.arange(count), np.zeros(some, np.intp), np.full(some, count - 1), [0] * some
            )
        order = np.argsort(stream, kind="stable")
        of = stream[order]
        begins = np.ones(count, np.bool_)
        np.not_equal(of[1:], of[:-1], out=begins[1:])
        first = np.flatnonzero(begins)
        last = np.append(first[1:] - 1, count - 1)
        return cls(order, first, last, of[first].tolist())
