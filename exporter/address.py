"""Addresses as columns hold them: 16 bytes, IPv6 or IPv4 mapped into it (RFC 4291, 2.5.5.2)."""

from __future__ import annotations

import ipaddress
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: What an IPv4 address has before it in an address column.
MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"

#: Its third word, and its second half, of which the mask takes that word alone: as memory has them.
_MAPPED: Final = np.frombuffer(b"\0\0\xff\xff", np.uint32)[0]
_MAPPED_LOW: Final = np.frombuffer(b"\0\0\xff\xff\0\0\0\0", np.uint64)[0]
_LOW_MASK: Final = np.frombuffer(b"\xff\xff\xff\xff\0\0\0\0", np.uint64)[0]


def pack_address(text: str) -> bytes:
    """An address as the 16 bytes of an address column."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return MAPPED_PREFIX + address.packed
    return address.packed


def is_ipv4(addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the ``(n, 16)`` addresses are mapped ones."""
    words = np.ascontiguousarray(addresses).view(np.uint64)
    found: NDArray[np.bool_] = (words[:, 1] & _LOW_MASK) == _MAPPED_LOW
    found &= words[:, 0] == 0
    return found


def ipv4_of(addresses: NDArray[np.uint8]) -> NDArray[np.uint32] | None:
    """IPv4 addresses as numbers, if each of the ``(n, 16)`` addresses is a mapped one."""
    words = np.ascontiguousarray(addresses).view(np.uint32)
    if words[:, :2].any() or (words[:, 2] != _MAPPED).any():
        return None
    return words[:, 3].byteswap()


def mapped(numbers: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """IPv4 addresses from numbers to ``(n, 16)`` IPv4-mapped IPv6."""
    addresses = np.zeros((len(numbers), 16), np.uint8)
    addresses[:, 10:12] = 0xFF
    addresses[:, 12:] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    return addresses
