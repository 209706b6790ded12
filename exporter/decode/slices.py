"""Octets of varying length as codes and different values, without a Python loop over rows.

Rows are sorted out by length into classes, each about twice as long as the one before. In a class
every slice is told by a key of fixed size that lies within it: its length, its first octets and
its last ones, which overlap. Equal keys are equal slices, so only one slice of each key is read.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.decode.packet import rows_at
from exporter.decode.values import fixed_codes

_Codes = NDArray[np.uint32]
_Offsets = NDArray[np.int64]

#: Up to this many octets are read as one number.
_WORD: Final = 8
#: The class of each length: 0 up to 8 octets, 1 up to 16, 2 up to 32, and so on.
_CLASS: Final = np.repeat(
    np.arange(14, dtype=np.uint8), np.diff([0, *(1 + (_WORD << np.arange(13))), 1 << 16])
)


def sliced_bytes(
    buffer: bytes | memoryview, starts: _Offsets, ends: _Offsets
) -> tuple[_Codes, list[bytes]]:
    """Codes and different values of the octets at ``starts`` to ``ends`` of ``buffer``.

    Slices are of at most 65,535 octets, and at least 8 more follow the last one.
    """
    lengths = ends - starts
    classes = _CLASS[lengths]
    codes = np.empty(len(starts), np.uint32)
    values: list[bytes] = []
    present = np.flatnonzero(np.bincount(classes)).tolist()
    for number in present:
        rows = slice(None) if len(present) == 1 else np.flatnonzero(classes == number)
        begin, length = starts[rows], lengths[rows]
        found, count = fixed_codes(_keys(buffer, begin, length, _WORD << number >> 1))
        codes[rows] = found + np.uint32(len(values)) if values else found
        row = np.empty(count, np.int64)
        row[found] = np.arange(len(found))  # whichever row of each key comes last
        first = begin[row]
        bounds = zip(first.tolist(), (first + length[row]).tolist(), strict=True)
        values.extend([bytes(buffer[start:end]) for start, end in bounds])
    return codes, values


def _keys(buffer: bytes | memoryview, starts: _Offsets, lengths: _Offsets, half: int) -> Array:
    """Opaque rows that are equal where slices are; slices have ``half`` to 2 ``half`` octets."""
    octets = np.frombuffer(buffer, np.uint8)
    if half < _WORD:
        keys = np.empty((len(starts), 2), np.uint64)
        word = rows_at(octets, starts, np.dtype(">u8"))
        keys[:, 0] = lengths
        # A shift by all 64 bits gives 0.
        keys[:, 1] = word >> (8 * (_WORD - lengths)).astype(np.uint64)
        return keys.view("V16")[:, 0]
    part = np.dtype(f"V{half}")
    packed = np.empty(len(starts), [("length", np.int64), ("first", part), ("last", part)])
    packed["length"] = lengths
    packed["first"] = rows_at(octets, starts, part)
    packed["last"] = rows_at(octets, starts + lengths - half, part)
    return packed.view(f"V{packed.dtype.itemsize}")
