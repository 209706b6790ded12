"""The named network of an address: the one with the longest prefix that holds it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.batch import FlowBatch
from exporter.config import Network
from exporter.enrich.prefixes import PrefixTable
from exporter.enrich.texts import Texts


class NetworkFact:
    """Fills ``src_network`` and ``dst_network``."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._texts = Texts()
        self._table = PrefixTable(
            (ipaddress.ip_network(prefix), self._texts.number(network.name))
            for network in networks
            for prefix in network.prefixes
        )

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The number of the name, 0 for none."""
        return self._table.find(addresses).astype(np.uint32)

    def changed(self) -> Sequence[bytes] | None:
        """None: other networks make another step."""
        return ()

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add the names of one end."""
        batch.columns[f"{side}_network"] = self._texts.column(numbers)
