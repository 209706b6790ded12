"""Octets of varying length as codes and different values, without a Python loop over rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def sliced_bytes(
    buffer: bytes | memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], list[bytes]]:
    """Codes and different values of the octets at ``starts`` to ``ends`` of ``buffer``.

    Arrow tells them apart where they lie. To Arrow, strings follow each other without a gap, so
    what lies between slices is a string as well, but null: nobody looks at it, and neighbours may
    come in any order.
    """
    count = len(starts)
    bounds = np.empty((count + 1, 2), np.int64)
    bounds[0, 0], bounds[count, 1] = 0, len(buffer)
    bounds[:count, 1] = starts
    bounds[1:, 0] = ends
    parts = 2 * count + 1
    slices = np.full(parts // 8 + 1, 0b10101010, np.uint8)  # every other one, from the second on
    array = pa.Array.from_buffers(
        pa.large_binary(), parts, [pa.py_buffer(data) for data in (slices, bounds, buffer)],
        null_count=count + 1,
    )  # fmt: skip
    encoded = array.dictionary_encode()
    codes = np.frombuffer(encoded.indices.buffers()[1], np.uint32)
    return codes[1:parts:2].copy(), encoded.dictionary.to_pylist()
