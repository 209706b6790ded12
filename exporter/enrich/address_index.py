"""A hash table of addresses for numpy: many are looked up, or added, at once.

Open addressing with linear probing: all addresses take their first step together, those that met
another one take the next. A lookup costs about 15 ns an address, however many are known; sorting
or hashing each batch anew, and searching tables for its distinct addresses, costs several times
that.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array

_SMALLEST: Final = 1 << 12


def mixed(words: Sequence[Array], factors: Sequence[np.uint64]) -> NDArray[np.uint64]:
    """One number from each row of unsigned columns; its high bits depend on all of theirs.

    ``factors`` are odd, random and secret, one for each column: nobody can choose rows that get the
    same number.
    """
    found = words[0].astype(np.uint64)
    found *= factors[0]
    for word, factor in zip(words[1:], factors[1:], strict=False):
        found ^= found >> np.uint64(32)
        found += word
        found *= factor
    return found


def secret_factors(count: int) -> tuple[np.uint64, ...]:
    """Factors for :func:`mixed`, other ones in each process."""
    return tuple(np.uint64(secrets.randbits(64) | 1) for _ in range(count))


_FACTORS: Final = secret_factors(2)


class AddressIndex:
    """Numbers that were given to keys; a key is a row of one or two unsigned columns.

    Number 0 stands for keys that are not in it.
    """

    def __init__(self, *kinds: Any) -> None:
        self._kinds = [np.dtype(kind) for kind in kinds]
        self._resize(_SMALLEST)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self._numbers.nbytes + sum(keys.nbytes for keys in self._keys)

    def find(self, keys: Sequence[Array]) -> NDArray[np.uint32]:
        """The number of each key."""
        places = self._first(keys)
        numbers, same = self._read(places, keys)
        others = np.flatnonzero((numbers != 0) & ~same)
        places = places.take(others)
        keys = [key.take(others) for key in keys]
        while len(others):
            places += 1
            places &= self._mask
            found, same = self._read(places, keys)
            numbers[others] = found
            again = np.flatnonzero((found != 0) & ~same)
            others, places = others.take(again), places.take(again)
            keys = [key.take(again) for key in keys]
        return np.ascontiguousarray(numbers)

    def add(self, keys: Sequence[Array], numbers: NDArray[np.uint32]) -> None:
        """Give ``numbers`` (from 1) to keys that are distinct and not in it."""
        self._count += len(numbers)
        if 2 * self._count > len(self._numbers):
            taken = np.flatnonzero(self._numbers)
            old = [key[taken] for key in self._keys], self._numbers[taken]
            self._resize(1 << int(4 * self._count - 1).bit_length())
            self._put(*old)
        self._put(keys, numbers)

    def _put(self, keys: Sequence[Array], numbers: NDArray[np.uint32]) -> None:
        places = self._first(keys)
        while len(numbers):
            free = self._numbers[places] == 0
            self._numbers[places[free]] = numbers[free]  # of several for one place, one stays
            put = self._numbers[places] == numbers
            for own, key in zip(self._keys, keys, strict=True):
                own[places[put]] = key[put]
            left = ~put
            places = (places[left] + 1) & self._mask
            keys, numbers = [key[left] for key in keys], numbers[left]

    def _resize(self, size: int) -> None:
        #: A number and its key in one word, where they fit: both come at the price of one.
        self._pairs: NDArray[np.uint64] | None = None
        if self._kinds == [np.dtype(np.uint32)]:
            self._pairs = np.zeros(size, np.uint64)
            halves = self._pairs.view(np.uint32).reshape(-1, 2)
            self._numbers, self._keys = halves[:, 0], [halves[:, 1]]
        else:
            self._keys = [np.zeros(size, kind) for kind in self._kinds]
            self._numbers = np.zeros(size, np.uint32)
        self._mask = size - 1
        self._shift = np.uint64(64 - (size.bit_length() - 1))

    def _first(self, keys: Sequence[Array]) -> NDArray[np.int64]:
        found = mixed(keys, _FACTORS)
        found >>= self._shift
        return found.view(np.int64)

    def _read(
        self, places: Array, keys: Sequence[Array]
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """The numbers at some places, and whether the keys there are these."""
        if self._pairs is not None:
            pairs = self._pairs.take(places).view(np.uint32).reshape(-1, 2)
            return pairs[:, 0], pairs[:, 1] == keys[0]
        same: NDArray[np.bool_] = self._keys[0].take(places) == keys[0]
        for own, key in zip(self._keys[1:], keys[1:], strict=True):
            same &= own.take(places) == key
        return self._numbers.take(places), same
