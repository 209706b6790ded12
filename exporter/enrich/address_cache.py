"""What is known of addresses, kept from batch to batch.

A fact is found once for each address and then read by its number. The addresses of a batch are
numbered once, for all facts and both ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.address import is_ipv4
from exporter.batch import Array, FlowBatch
from exporter.distinct import distinct_addresses
from exporter.key_index import KeyIndex

_SMALLEST: Final = 1024
_NONE: Final = np.zeros((0, 16), np.uint8)


class AddressFact(Protocol):
    """One thing that can be found about an address, as a number of 32 bits.

    What the number means is its own affair: an index into texts, an AS number, a flag.
    """

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The number of each of the ``(n, 16)`` addresses."""
        ...

    def changed(self) -> Sequence[bytes] | None:
        """Addresses whose number may be another than before, ``None`` for all. Once per batch."""
        ...

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add columns about one end, ``src`` or ``dst``; ``numbers`` has one per row.

        Number 0 stands for an end whose address is not in the batch.
        """


class AddressCache:
    """Numbers addresses and keeps ``facts`` by number; when there are too many it starts anew.

    Not for several threads. ``max_addresses`` bounds the memory, or the addresses of one batch
    where they are more: 50 bytes for each at most, and 4 for each fact, twice that while it grows.
    """

    def __init__(self, facts: Sequence[AddressFact], max_addresses: int) -> None:
        self._facts = facts
        self._max = max_addresses
        self.restarts = 0
        self.misses = 0
        self._forget()

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self._known.nbytes + self._ipv4.bytes + self._ipv6.bytes

    def refresh(self) -> None:
        """Find again what has changed; to be called before a batch is numbered."""
        for row, fact in enumerate(self._facts):
            changed = fact.changed()
            if changed is None:
                self._forget()
            elif changed and self._count:
                addresses = _rows(dict.fromkeys(changed))
                numbers = self._find(addresses)
                kept = numbers != 0
                self._known[row, numbers[kept]] = fact.find(addresses[kept])

    def numbers(self, columns: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.intp]]:
        """The numbers of the ``(n, 16)`` addresses in the columns of one batch.

        They hold until the next call.
        """
        addresses = np.concatenate([_NONE, *columns])
        found = self._find(addresses)
        missing = self._missing(addresses, found)
        if self._count + len(missing) > self._max and self._count:
            self.restarts += 1
            self._forget()
            found[:] = 0
            missing = self._missing(addresses, found)
        if len(missing):
            self._add(missing)
            new = np.flatnonzero(found == 0)
            found[new] = self._find(addresses.take(new, axis=0))
        ends = accumulate(map(len, columns))
        of_all = found.astype(np.intp)
        return [of_all[end - len(c) : end] for end, c in zip(ends, columns, strict=True)]

    def fact(self, row: int) -> NDArray[np.uint32]:
        """One fact of all addresses, to be indexed with what :meth:`numbers` gave."""
        known: NDArray[np.uint32] = self._known[row]
        return known

    def _forget(self) -> None:
        self._count = 0
        self._known = np.zeros((len(self._facts), _SMALLEST), np.uint32)
        self._ipv4 = KeyIndex(np.uint32)
        self._ipv6 = KeyIndex(np.uint64, np.uint64)

    def _missing(
        self, addresses: NDArray[np.uint8], found: NDArray[np.uint32]
    ) -> NDArray[np.uint8]:
        """The distinct addresses that have no number."""
        rows = np.flatnonzero(found == 0)
        return distinct_addresses(addresses.take(rows, axis=0))[1] if len(rows) else _NONE

    def _add(self, addresses: NDArray[np.uint8]) -> None:
        self.misses += len(addresses)
        first = self._count + 1
        numbers = np.arange(first, first + len(addresses), dtype=np.uint32)
        self._count += len(addresses)
        if self._count >= self._known.shape[1]:
            larger = np.zeros((len(self._facts), 2 * self._count), np.uint32)
            larger[:, : self._known.shape[1]] = self._known
            self._known = larger
        for row, fact in enumerate(self._facts):
            self._known[row, first : first + len(addresses)] = fact.find(addresses)
        mapped = is_ipv4(addresses)
        for index, keys, rows in (
            (self._ipv4, _ipv4_keys, np.flatnonzero(mapped)),
            (self._ipv6, _ipv6_keys, np.flatnonzero(~mapped)),
        ):
            index.add(keys(addresses.take(rows, axis=0)), numbers.take(rows))

    def _find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        mapped = is_ipv4(addresses)
        if mapped.all():
            return self._ipv4.find(_ipv4_keys(addresses))
        numbers = np.empty(len(addresses), np.uint32)
        rows = np.flatnonzero(mapped)
        numbers[rows] = self._ipv4.find([_ipv4_keys(addresses)[0].take(rows)])
        rows = np.flatnonzero(~mapped)
        numbers[rows] = self._ipv6.find(_ipv6_keys(addresses.take(rows, axis=0)))
        return numbers


def _rows(addresses: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)


def _ipv4_keys(addresses: NDArray[np.uint8]) -> tuple[Array]:
    return (np.ascontiguousarray(addresses).view(np.uint32)[:, 3],)


def _ipv6_keys(addresses: NDArray[np.uint8]) -> tuple[Array, Array]:
    words = np.ascontiguousarray(addresses).view(np.uint64)
    return words[:, 0], words[:, 1]
