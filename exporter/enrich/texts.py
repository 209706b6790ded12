"""Texts by number, to the text columns of batches."""

from __future__ import annotations

import numpy as np

from exporter.batch import Array, DictColumn


class Texts:
    """Gives texts numbers in the order in which they come up; the empty one has 0."""

    def __init__(self) -> None:
        self._numbers = {"": 0}
        self._texts = [""]

    def __len__(self) -> int:
        return len(self._texts)

    def number(self, text: str) -> int:
        """The number of a text, its old one if it has one."""
        number = self._numbers.setdefault(text, len(self._texts))
        if number == len(self._texts):
            self._texts.append(text)
        return number

    def column(self, numbers: Array) -> DictColumn:
        """A column whose rows have these numbers.

        It shares all texts that there are, so that it costs nothing for each.
        """
        return DictColumn(numbers.astype(np.uint32, copy=False), self._texts)
