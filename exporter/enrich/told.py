"""Which name each client was told for an address, to be asked for many flows at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.distinct import distinct
from exporter.key_index import KeyIndex, mixed, secret_factors

_FACTORS: Final = secret_factors(4)


class ToldNames:
    """What holds for pairs of an address and a client (each 16 bytes), at most ``max_pairs``.

    One thread puts, another finds. When there are too many pairs, the quarter of them goes that was
    told longest ago. Each takes about 250 bytes and its name.
    """

    def __init__(self, max_pairs: int) -> None:
        self._lock = threading.Lock()
        self._max = max_pairs
        #: Where a pair is in the arrays; 0 is nobody's place.
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []
        self._names = [""]
        self._since = np.zeros(max_pairs + 1, np.uint32)
        self._until = np.zeros(max_pairs + 1, np.float64)
        self._index = KeyIndex(np.uint64)
        #: Pairs that are not in the index yet: they are put into it many at once.
        self._new: list[bytes] = []

    def __len__(self) -> int:
        return len(self._slots)

    def put(self, address: bytes, client: bytes, name: str, time: float, until: float) -> None:
        """The client was told a name at that time, which holds from then on.

        A name that still held then has held since it was told first.
        """
        pair = address + client
        with self._lock:
            slot = self._slots.pop(pair, 0)
            held = self._names[slot] == name and self._until[slot] > time
            if not slot:
                slot = self._take_slot()
                self._new.append(pair)
            self._slots[pair] = slot
            self._until[slot] = until
            if not held:
                self._names[slot] = name
                self._since[slot] = int(time)

    def find(
        self, addresses: NDArray[np.uint8], clients: NDArray[np.uint8], now: float
    ) -> tuple[Array, list[str], NDArray[np.uint32]]:
        """What holds for each pair of the ``(n, 16)`` addresses at the time ``now``.

        Returns ``(codes, names, since)``: pair ``i`` has ``names[codes[i]]``, empty where no name
        holds, since then.
        """
        keys = _keys(np.concatenate([addresses, clients], axis=1))
        with self._lock:
            if self._new:
                self._add(self._new)
                self._new = []
            slots = self._index.find([keys])
            slots[self._until[slots] <= now] = 0
            codes, found = distinct(slots)
            return codes, [self._names[slot] for slot in found.tolist()], self._since[found]

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        if len(self._names) <= self._max:
            self._names.append("")
            return len(self._names) - 1
        for pair in list(islice(self._slots, max(1, self._max // 4))):
            self._free.append(self._slots.pop(pair))
        self._index = KeyIndex(np.uint64)
        self._new = list(self._slots)
        return self._free.pop()

    def _add(self, pairs: Sequence[bytes]) -> None:
        keys = _keys(np.frombuffer(b"".join(pairs), np.uint8).reshape(-1, 32))
        slots = np.array([self._slots[pair] for pair in pairs], np.uint32)
        keys, first = np.unique(keys, return_index=True)
        self._index.add([keys], slots[first])


def _keys(pairs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One number for each of the ``(n, 32)`` pairs; that two pairs share one is no concern."""
    return mixed(list(np.ascontiguousarray(pairs).view(np.uint64).T), _FACTORS)
