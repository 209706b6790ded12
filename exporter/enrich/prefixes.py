"""Longest prefix match of many addresses at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from exporter.address import is_ipv4

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

_ALL = ipaddress.IPv6Network("::/0")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class PrefixTable:
    """Nested prefixes as disjoint ranges, in which a binary search finds an address.

    ``prefixes`` are given with the number that their addresses are to have; 0 is for addresses
    in none of them. Where a prefix is given twice, the last one counts.
    """

    def __init__(self, prefixes: Iterable[tuple[Prefix, int]]) -> None:
        numbers = {_as_ipv6(prefix): number for prefix, number in prefixes}
        self._empty = not numbers
        longest_last = sorted(numbers, key=lambda prefix: prefix.prefixlen)
        starts, self._numbers = _ranges(((p, numbers[p]) for p in longest_last), _ALL)
        self._starts = np.array([start.to_bytes(16, "big") for start in starts], "S16")
        # The mapped addresses once more as 32-bit numbers, which are quicker to search.
        mapped = (
            (p if p.prefixlen > _MAPPED.prefixlen else _MAPPED, numbers[p])
            for p in longest_last
            if p.overlaps(_MAPPED)
        )
        starts, self._numbers4 = _ranges(mapped, _MAPPED)
        self._starts4 = np.array(starts, np.uint32)

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.intp]:
        """The number of each of the ``(n, 16)`` addresses."""
        if self._empty:
            return np.zeros(len(addresses), np.intp)
        words = np.ascontiguousarray(addresses).view(">u4")
        places = np.searchsorted(self._starts4, words[:, 3].astype(np.uint32), "right") - 1
        found = self._numbers4[places]
        others = np.flatnonzero(~is_ipv4(addresses))
        if len(others):
            # S16 compares like the numbers: zeros that it drops at the end are the smallest bytes.
            packed = addresses.take(others, axis=0).view("S16").ravel()
            found[others] = self._numbers[np.searchsorted(self._starts, packed, "right") - 1]
        return found


def _as_ipv6(prefix: Prefix) -> ipaddress.IPv6Network:
    if isinstance(prefix, ipaddress.IPv6Network):
        return prefix
    address = int(prefix.network_address) | int(_MAPPED.network_address)
    return ipaddress.IPv6Network((address, prefix.prefixlen + _MAPPED.prefixlen))


def _ranges(
    prefixes: Iterable[tuple[ipaddress.IPv6Network, int]], whole: ipaddress.IPv6Network
) -> tuple[list[int], NDArray[np.intp]]:
    """Where ranges of one number begin, counted from the start of ``whole``, and the numbers.

    ``prefixes`` lie in ``whole``; of equal ones, the last counts.
    """
    base = int(whole.network_address)
    spans = [
        (int(prefix.network_address) - base, prefix.num_addresses, number)
        for prefix, number in prefixes
    ]
    changes = {0: 0}
    around: list[tuple[int, int]] = []  # (end, number) of the spans that hold the address

    def leave(until: int) -> None:
        while around and around[-1][0] <= until:
            end, _ = around.pop()
            changes[end] = around[-1][1] if around else 0

    for start, size, number in sorted(spans, key=lambda span: (span[0], -span[1])):
        leave(start)
        changes[start] = number
        around.append((start + size, number))
    leave(whole.num_addresses)
    changes.pop(whole.num_addresses, None)
    starts = sorted(changes)
    return starts, np.array([changes[start] for start in starts], np.intp)
