"""The named network of an address, and whether it is one of ours."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import DictColumn, FlowBatch
from exporter.config import Network
from exporter.enrich.prefixes import PrefixTable
from exporter.enrich.texts import Texts

#: Addresses that are nobody's on the internet: internal where no network says otherwise. RFC 1918,
#: RFC 6598 (carrier-grade NAT), RFC 3927, RFC 4193 and RFC 4291 (link-local).
PRIVATE: Final = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
)


class Networks:
    """Named networks, by number: 0 is that of addresses in none. The longest prefix wins."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._texts = Texts()
        self._table = PrefixTable(
            (ipaddress.ip_network(prefix), self._texts.number(network.name))
            for network in networks
            for prefix in network.prefixes
        )
        self._names = list(dict.fromkeys(["", *(network.name for network in networks)]))
        internal = {network.name: network.internal for network in networks}
        self._internal = np.array([internal.get(name, False) for name in self._names])
        self._private = PrefixTable((ipaddress.ip_network(prefix), 1) for prefix in PRIVATE)
        #: The last answer: all facts ask for the same addresses, one after the other.
        self._found = np.zeros((0, 16), np.uint8), np.zeros(0, np.uint32)

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The number of each address's network; for one thread."""
        last, numbers = self._found
        if addresses is not last:
            numbers = self._table.find(addresses).astype(np.uint32)
            self._found = addresses, numbers
        return numbers

    def name(self, number: int) -> str:
        """The name of a network."""
        return self._names[number]

    def column(self, numbers: NDArray[np.uint32]) -> DictColumn:
        """Names of networks as a column."""
        return self._texts.column(numbers)

    def internal(
        self, addresses: NDArray[np.uint8], numbers: NDArray[np.uint32]
    ) -> NDArray[np.bool_]:
        """Whether addresses are ours: as their network says, else those that are private."""
        told: NDArray[np.bool_] = self._internal[numbers]
        return np.where(numbers != 0, told, self._private.find(addresses) != 0)


class NetworkFact:
    """Fills ``src_network``, ``src_internal`` and the same of the destination."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """Twice the number of the network, and 1 more for internal addresses."""
        numbers = self._networks.find(addresses)
        return 2 * numbers + self._networks.internal(addresses, numbers).astype(np.uint32)

    def changed(self) -> Sequence[bytes] | None:
        """None: other networks make another one."""
        return ()

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add the columns of one end."""
        batch.columns[f"{side}_network"] = self._networks.column(numbers >> np.uint32(1))
        batch.columns[f"{side}_internal"] = (numbers & np.uint32(1)).astype(np.uint8)
