"""The datagrams of a batch by the stream that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def sort(self, column: NDArray[Any]) -> NDArray[Any]:
        """A column of the datagrams in this order."""
        return column if len(self.first) == 1 else column[self.order]

    @classmethod
    def one(cls, count: int) -> ByStream:
        """All datagrams are of stream 0."""
        some = min(count, 1)
        return cls(np.arange(count), np.zeros(some, np.intp), np.full(some, count - 1), [0] * some)

    @classmethod
    def by_keys(cls, keys: NDArray[Any]) -> tuple[ByStream, Places]:
        """Group datagrams by a key of their stream; streams are numbered, and told for each."""
        order, first, last = _sorted(keys)
        stream = np.empty(len(keys), np.intp)
        stream[order] = np.repeat(np.arange(len(first)), last - first + 1)
        return cls(order, first, last, list(range(len(first)))), stream

    @classmethod
    def group(cls, stream: Places) -> ByStream:
        """Group datagrams by the number of their stream."""
        order, first, last = _sorted(stream)
        return cls(order, first, last, stream[order[first]].tolist())


def _sorted(keys: NDArray[Any]) -> tuple[Places, Places, Places]:
    """Rows in the order of their keys, and where there each key begins and ends."""
    order = keys.argsort(kind="stable")
    ordered = keys[order]
    turns = np.flatnonzero(ordered[1:] != ordered[:-1])
    some = min(len(keys), 1)
    first = np.concatenate((np.zeros(some, np.intp), turns + 1))
    return order, first, np.concatenate((turns, np.full(some, len(keys) - 1)))
