"""Services that a port means at some addresses only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, FlowBatch
from exporter.config import Service
from exporter.distinct import distinct
from exporter.enrich.network_fact import Networks
from exporter.enrich.prefixes import Prefix, PrefixTable

_PORT_BITS: Final = 18  # transport and port


class ServiceScope:
    """Which services an address has, as an :class:`~exporter.enrich.address_cache.AddressFact`.

    The number of an address is that of its class: all addresses with the same services have one.
    ``services`` come with the place of each and its port (transport and port in 18 bits). Of
    several for one port the longest prefix wins, and prefixes win over networks.
    """

    def __init__(self, services: Iterable[tuple[Service, int, int]], networks: Networks) -> None:
        self._networks = networks
        of_prefix: dict[Prefix, dict[int, int]] = {}
        self._of_network: dict[str, dict[int, int]] = {}
        for service, port, place in services:
            for text in service.addresses:
                of_prefix.setdefault(ipaddress.ip_network(text), {})[port] = place
            for name in service.networks:
                self._of_network.setdefault(name, {})[port] = place
        self._of_prefix = [{}, *(_with_wider(prefix, of_prefix) for prefix in of_prefix)]
        self._prefixes = PrefixTable((prefix, n) for n, prefix in enumerate(of_prefix, 1))
        self._classes: dict[tuple[int, str], int] = {}
        self._keys = np.zeros(0, np.uint64)
        self._places = np.zeros(0, np.uint32)
        self._of_side: dict[str, NDArray[np.uint32]] = {}

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The class of each address, 0 where no such service is."""
        prefixes = self._prefixes.find(addresses).astype(np.uint64)
        networks = self._networks.find(addresses).astype(np.uint64)
        codes, pairs = distinct(prefixes << np.uint64(32) | networks)
        classes = [self._class(pair >> 32, self._networks.name(pair & 0xFFFFFFFF))
                   for pair in pairs.tolist()]  # fmt: skip
        return np.array(classes, np.uint32)[codes]

    def changed(self) -> Sequence[bytes] | None:
        """None: other services make another one."""
        return ()

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Keep the classes of one end for :meth:`replace`."""
        self._of_side[side] = numbers

    def replace(self, side: str, ports: Array, places: NDArray[np.uint32]) -> None:
        """Put the places of these services into ``places``, which has one per row."""
        classes = self._of_side[side]
        rows = np.flatnonzero(classes)
        if not len(rows):
            return
        keys = classes[rows].astype(np.uint64) << np.uint64(_PORT_BITS) | ports[rows].astype(
            np.uint64
        )
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        same = self._keys[at] == keys
        places[rows[same]] = self._places[at[same]]

    def _class(self, prefix: int, network: str) -> int:
        services = self._of_network.get(network, {}) | self._of_prefix[prefix]
        if not services:
            return 0
        number = self._classes.setdefault((prefix, network), len(self._classes) + 1)
        if number == len(self._classes):
            keys = [number << _PORT_BITS | port for port in services]
            self._keys = np.concatenate([self._keys, np.array(keys, np.uint64)])
            self._places = np.concatenate([self._places, np.array([*services.values()], np.uint32)])
            order = np.argsort(self._keys)
            self._keys, self._places = self._keys[order], self._places[order]
        return number


def _with_wider(prefix: Prefix, services: dict[Prefix, dict[int, int]]) -> dict[int, int]:
    """The services of a prefix and of all that it lies in, by port."""
    found: dict[int, int] = {}
    for length in range(prefix.prefixlen + 1):
        found |= services.get(prefix.supernet(new_prefix=length), {})
    return found
