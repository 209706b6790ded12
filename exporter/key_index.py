"""A hash table for numpy: many keys, such as addresses, are looked up or added at once.

Open addressing with linear probing: all keys look at their first place together, then those that
met another one at the next four. A lookup costs about 10 ns a key, however many are known; sorting
or hashing each batch anew, and searching tables for its distinct keys, costs several times that.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.distinct import distinct

_SMALLEST: Final = 1 << 12
#: A place holds a tag in the high half and a number in the low one, or nothing.
_NOTHING: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_NO_NUMBER: Final = np.uint64(0xFFFF_FFFF)
_HALF: Final = np.uint64(32)
_NEXT_PLACES: Final = np.arange(1, 5).reshape(-1, 1)


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


class KeyIndex:
    """Numbers that were given to keys; a key is a row of unsigned columns of these ``kinds``.

    Number 0 stands for keys that are not in it.
    """

    def __init__(self, *kinds: Any) -> None:
        #: Keys of 32 bits are their own tag; of others, by number, whose tag might be another's.
        self._keys = (
            []
            if [np.dtype(kind) for kind in kinds] == [np.uint32]
            else [np.zeros(_SMALLEST, kind) for kind in kinds]
        )
        self._factors = secret_factors(len(kinds))
        self._resize(_SMALLEST)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self._table.nbytes + sum(keys.nbytes for keys in self._keys)

    def find(self, keys: Sequence[Array]) -> NDArray[np.uint32]:
        """The number of each key."""
        tags, places = self._first(keys)
        found = self._table.take(places, mode="clip")
        # Of the same tag only the number is left; what has another is larger.
        found ^= tags
        others = np.flatnonzero(found >= _NO_NUMBER)
        if len(others):
            tags = tags.take(others)
            taken = np.flatnonzero(found.take(others) ^ tags != _NOTHING)
            found[others] = 0
            others = others.take(taken)
            found[others] = self._next(tags.take(taken), places.take(others))
        numbers = found.astype(np.uint32)
        if self._keys:
            self._correct(numbers, keys)
        return numbers

    def add(self, keys: Sequence[Array], numbers: NDArray[np.uint32]) -> None:
        """Give ``numbers`` (from 1) to keys that are distinct and not in it."""
        self._count += len(numbers)
        largest = int(numbers.max(initial=0))
        for row, (own, key) in enumerate(zip(self._keys, keys, strict=False)):
            if largest >= len(own):
                self._keys[row] = np.zeros(2 * largest, own.dtype)
                self._keys[row][: len(own)] = own
            self._keys[row][numbers] = key
        if 2 * self._count > len(self._table):
            old = self._table[self._table != _NOTHING]
            known = (old & _NO_NUMBER).astype(np.uint32)
            self._resize(1 << int(4 * self._count - 1).bit_length())
            self._put([own[known] for own in self._keys] or [old >> _HALF], known)
        self._put(keys, numbers)

    def find_or_add(self, keys: Array) -> tuple[NDArray[np.uint32], Array]:
        """The number of each key of one column, and the keys that had none, each once.

        These got the numbers that follow the last one, in their order.
        """
        numbers = self.find([keys])
        rows = np.flatnonzero(numbers == 0)
        if not len(rows):
            return numbers, keys[:0]
        codes, new = distinct(keys.take(rows))
        added = np.arange(self._count + 1, self._count + 1 + len(new), dtype=np.uint32)
        self.add([new], added)
        numbers[rows] = added.take(codes)
        return numbers, new

    def _next(self, tags: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The numbers of keys whose first place has another one."""
        numbers = np.zeros(len(tags), np.uint64)
        rows = np.arange(len(tags))
        while len(rows):
            held = self._table.take((places + _NEXT_PLACES) & self._mask, mode="clip")
            found = (held ^ tags).min(axis=0)
            met = found < _NO_NUMBER
            numbers[rows[met]] = found[met]
            again = np.flatnonzero(~met & (held != _NOTHING).all(axis=0))
            rows, tags, places = rows.take(again), tags.take(again), places.take(again)
            places += len(_NEXT_PLACES)
        return numbers

    def _correct(self, numbers: NDArray[np.uint32], keys: Sequence[Array]) -> None:
        """Look again for keys that got the number of another with their tag: one in billions."""
        other = numbers != 0
        same = np.ones(len(numbers), np.bool_)
        for own, key in zip(self._keys, keys, strict=True):
            same &= own.take(numbers, mode="clip") == key
        other &= ~same
        for row in np.flatnonzero(other).tolist():
            known = (self._table[self._table != _NOTHING] & _NO_NUMBER).astype(np.uint32)
            for own, key in zip(self._keys, keys, strict=True):
                known = known[own[known] == key[row]]
            numbers[row] = known[0] if len(known) else 0

    def _put(self, keys: Sequence[Array], numbers: NDArray[np.uint32]) -> None:
        tags, places = self._first(keys)
        held = tags | numbers
        while len(held):
            free = self._table[places] == _NOTHING
            self._table[places[free]] = held[free]  # of several for one place, one stays
            left = np.flatnonzero(self._table[places] != held)
            places, held = (places[left] + 1) & self._mask, held[left]

    def _resize(self, size: int) -> None:
        self._table = np.full(size, _NOTHING)
        self._mask = size - 1
        self._shift = np.uint64(64 - (size.bit_length() - 1))

    def _first(self, keys: Sequence[Array]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Tags, in the high half, and first places."""
        found = mixed(keys, self._factors)
        if self._keys:
            tags = found << _HALF
            tags ^= found
            tags &= ~_NO_NUMBER
        else:
            tags = keys[0].astype(np.uint64)
            tags <<= _HALF
        found >>= self._shift
        return tags, found.view(np.int64)
