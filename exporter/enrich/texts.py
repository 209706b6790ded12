"""Texts by number, to the text columns of batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn


class Texts:
    """Gives texts numbers in the order in which they come up; the empty one has 0."""

    def __init__(self) -> None:
        self._numbers = {"": 0}
        self._new: list[str] = []
        self._texts: NDArray[Any] = np.array([""], object)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, text: str) -> int:
        """The number of a text, its old one if it has one."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self._numbers)
            self._new.append(text)
        return number

    def column(self, numbers: Array) -> DictColumn:
        """A column whose rows have these numbers.

        Only texts that occur get into it, so that a batch does not carry all that there are.
        """
        self._take_over()
        index = numbers.astype(np.intp)  # numpy indexes twice as fast with its own kind
        used = np.zeros(len(self._numbers), np.bool_)
        used[index] = True
        local = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
        return DictColumn(local.take(index), self._texts[np.flatnonzero(used)].tolist())

    def _take_over(self) -> None:
        count = len(self._numbers)
        if count > len(self._texts):
            larger = np.empty(2 * count, object)
            larger[: len(self._texts)] = self._texts
            self._texts = larger
        if self._new:
            self._texts[count - len(self._new) : count] = self._new
            self._new = []
