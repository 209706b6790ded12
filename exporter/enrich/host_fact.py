"""The name of a host, by its address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.batch import FlowBatch
from exporter.enrich.host_names import HostNames
from exporter.enrich.texts import Texts

#: Names that have come up, above which they are numbered anew: those of the past do not stay.
_MAX_TEXTS: Final = 1_000_000


class Correction(Protocol):
    """Knows better which name some flows get."""

    def correct(
        self, batch: FlowBatch, side: str, names: NDArray[np.uint32], texts: Texts
    ) -> NDArray[np.uint32]:
        """The numbers of the names of one end, by ``texts``; those of before stay as they are."""
        ...


class HostFact:
    """Fills ``src_host`` and ``dst_host``."""

    def __init__(self, hosts: HostNames, correction: Correction | None = None) -> None:
        self._hosts = hosts
        self._correction = correction
        self._seen = hosts.changes
        self._texts = Texts()

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The number of the name, 0 for none."""
        numbers = np.zeros(len(addresses), np.uint32)
        rows, found = self._hosts.known(addresses)
        numbers[rows] = [self._texts.number(facts.name) for _, facts in found]
        return numbers

    def changed(self) -> Sequence[bytes] | None:
        """Addresses that may have another name than before."""
        self._seen, addresses = self._hosts.changed_since(self._seen)
        if len(self._texts) > _MAX_TEXTS:
            self._texts = Texts()
            return None
        return addresses

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add the names of one end."""
        if self._correction is not None:
            numbers = self._correction.correct(batch, side, numbers, self._texts)
        batch.columns[f"{side}_host"] = self._texts.column(numbers)
