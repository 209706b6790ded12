"""Flow columns as label values: rows to small numbers per batch, numbers to text once."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, FlowBatch, format_address, format_mac
from exporter.distinct import distinct_addresses
from exporter.schema import BY_NAME, Kind

#: Devices choose some texts (interface names, VRFs): longer ones are cut before they are exposed.
MAX_LABEL_LENGTH = 200


@dataclass(slots=True)
class Factored:
    """One column of one batch as numbers.

    ``codes`` has a number below ``size`` for each row, or is ``None`` when all rows are equal.
    ``keys`` holds for each number what stands for its value in every batch, 0 for a text that no
    series has; ``None``: the number itself does. ``values`` are what a text's or an address's
    numbers stand for in this batch.
    """

    codes: Array | None
    size: int
    keys: NDArray[np.uint64] | None = None
    values: Sequence[str | bytes] = ()


class LabelColumn:
    """A column used in labels. Remembers only texts that a series was made of."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._column = BY_NAME[name]
        self._keys: dict[str | bytes, int] = {}
        self._values: list[str | bytes] = [""]
        self._free: list[int] = []
        #: Values of the last batch and their keys: the next one may share them, and some more.
        self._last: Sequence[str | bytes] = ()
        self._last_keys = np.zeros(0, np.uint64)

    def factor(self, batch: FlowBatch) -> Factored:
        """The column of this batch as numbers."""
        kind = self._column.kind
        column = batch.columns.get(self.name)
        if kind is Kind.ADDRESS:
            if column is None:
                return self._look_up(None, [bytes(16)])
            codes, uniques = distinct_addresses(batch.array(self.name))
            return self._look_up(codes, [row.tobytes() for row in uniques])
        if kind in (Kind.TEXT, Kind.NAME):
            texts = batch.dictionary(self.name)
            constant = len(texts.values) == 1
            return self._look_up(None if constant else texts.codes, texts.values)
        if column is None:
            return Factored(None, 1)
        numbers = batch.array(self.name)
        return Factored(numbers, int(numbers.max(initial=0)) + 1)

    def _look_up(self, codes: Array | None, values: Sequence[str | bytes]) -> Factored:
        if values is not self._last:
            self._last, self._last_keys = values, np.zeros(0, np.uint64)
        if len(self._last_keys) < len(values):
            get = self._keys.get
            new = values[len(self._last_keys) :]
            keys = np.fromiter((get(value, 0) for value in new), np.uint64, len(new))
            self._last_keys = np.append(self._last_keys, keys)
        return Factored(codes, len(values), self._last_keys, values)

    def remember(self, factored: Factored, code: int) -> int:
        """The key of a batch's number ``code``, made now if its value has none yet."""
        if factored.keys is None:
            return code
        value = factored.values[code]
        key = self._keys.get(value)
        if key is None:
            if not self._free:
                self._free.append(len(self._values))
                self._values.append("")
            key = self._keys[value] = self._free.pop()
            self._values[key] = value
        factored.keys[code] = key
        return key

    def keep(self, used: Set[int]) -> None:
        """Forget texts whose key is not ``used`` by any series; other texts get these keys."""
        for value, key in list(self._keys.items()):
            if key not in used:
                del self._keys[value]
                self._values[key] = ""
                self._free.append(key)
        self._last, self._last_keys = (), np.zeros(0, np.uint64)

    def label(self, key: int) -> str:
        """The label value that ``key`` stands for."""
        column = self._column
        if column.enum is not None:
            return column.enum(key).name.lower()
        if column.kind is Kind.MAC:
            return format_mac(key)
        if column.kind is Kind.ADDRESS:
            value = self._values[key]
            assert isinstance(value, bytes)
            return format_address(value)
        if column.kind in (Kind.TEXT, Kind.NAME):
            value = self._values[key]
            assert isinstance(value, str)
            return value[:MAX_LABEL_LENGTH].encode("utf-8", "replace").decode("utf-8")
        return str(key)
