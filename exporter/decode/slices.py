"""Octets of varying length as codes and different values, without a Python loop over rows.

Every slice is told by a key of fixed size, and equal keys are equal slices, so only one slice of
each key is read. The key of a short slice is its octets, zeros, and its length. Longer ones are
sorted out by length into classes, each twice as long as the one before. Their key is the length,
the first octets and the last ones, which overlap.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.decode.gather import rows_at
from exporter.decode.values import fixed_codes
from exporter.receive.datagrams import SPARE_BYTES

_Codes = NDArray[np.uint32]
_Offsets = NDArray[np.int64]

#: Sizes of keys of short slices; these have fewer octets.
_SIZES: Final = (8, 16, 24, 32)
_LONG: Final = _SIZES[-1]
assert _LONG <= SPARE_BYTES

#: The class of each length: 0 below 32 octets, 1 up to 64, 2 up to 128, and so on.
_CLASS: Final = np.repeat(
    np.arange(12, dtype=np.uint8), np.diff([0, _LONG, *(1 + (_LONG << np.arange(1, 11))), 1 << 16])
)

#: By size, and length below that: which bits of a key are those of the slice.
_MASKS: Final = {
    size: np.tril(np.full((size, size), 255, np.uint8), -1).view(f"V{size}")[:, 0]
    for size in _SIZES
}


def sliced_bytes(
    buffer: bytes | memoryview, starts: _Offsets, ends: _Offsets
) -> tuple[_Codes, list[bytes]]:
    """Codes and different values of the octets at ``starts`` to ``ends`` of ``buffer``.

    Slices are of at most 65,535 octets, and ``SPARE_BYTES`` more follow the last one.
    """
    octets = np.frombuffer(buffer, np.uint8)
    lengths = ends - starts
    if lengths.max(initial=0) < _LONG:
        return _distinct(buffer, starts, lengths, _short_keys(octets, starts, lengths))
    classes = _CLASS[lengths]
    codes = np.empty(len(starts), np.uint32)
    values: list[bytes] = []
    for number in np.flatnonzero(np.bincount(classes)).tolist():
        rows = np.flatnonzero(classes == number)
        begin, length = starts[rows], lengths[rows]
        if number:
            keys = _long_keys(octets, begin, length, _LONG << number >> 1)
        else:
            keys = _short_keys(octets, begin, length)
        found, some = _distinct(buffer, begin, length, keys)
        codes[rows] = found + np.uint32(len(values))
        values.extend(some)
    return codes, values


def _distinct(
    buffer: bytes | memoryview, starts: _Offsets, lengths: _Offsets, keys: Array
) -> tuple[_Codes, list[bytes]]:
    """Codes of ``keys``, and the slice of each code."""
    found, count = fixed_codes(keys)
    row = np.empty(count, np.int64)
    row[found] = np.arange(len(found))  # whichever row of each key comes last
    first = starts[row]
    bounds = zip(first.tolist(), (first + lengths[row]).tolist(), strict=True)
    return found, [bytes(buffer[start:end]) for start, end in bounds]


def _short_keys(octets: NDArray[np.uint8], starts: _Offsets, lengths: _Offsets) -> Array:
    """Opaque rows that are equal where slices are."""
    longest = int(lengths.max(initial=0))
    size = next(size for size in _SIZES if size > longest)
    # A cheap look at each slice brings many at a time into the cache; gathering them does not.
    octets.take(starts)
    keys = rows_at(octets, starts, np.dtype((np.uint64, size // 8)))
    keys &= _MASKS[size][lengths].view(np.uint64).reshape(keys.shape)
    keys.view(np.uint8)[:, -1] = lengths
    return keys.view(f"V{size}")[:, 0]


def _long_keys(octets: NDArray[np.uint8], starts: _Offsets, lengths: _Offsets, half: int) -> Array:
    """The same for slices of ``half`` to 2 ``half`` octets."""
    part = np.dtype(f"V{half}")
    packed = np.empty(len(starts), [("length", np.int64), ("first", part), ("last", part)])
    packed["length"] = lengths
    packed["first"] = rows_at(octets, starts, part)
    packed["last"] = rows_at(octets, starts + lengths - half, part)
    return packed.view(f"V{packed.dtype.itemsize}")
