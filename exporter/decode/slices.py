"""Octets of varying length as codes and different values, without a Python loop over rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.decode.values import distinct

_Offsets = NDArray[np.int64]


def sliced_bytes(
    buffer: bytes | memoryview, fields: Sequence[tuple[_Offsets, _Offsets]]
) -> list[tuple[NDArray[np.uint32], list[bytes]]]:
    """Codes and different values of one field or more, all of equally many rows.

    A field is where octets begin in ``buffer``, and where they end. Arrow tells them apart where
    they lie, those of one row after the other, since these are neighbours. To Arrow, strings follow
    each other without a gap, so what lies between slices is a string as well, but null: nobody
    looks at it, and slices may come in any order.
    """
    count, width = len(fields[0][0]), len(fields)
    bounds = np.empty(2 * count * width + 2, np.int64)
    bounds[0], bounds[-1] = 0, len(buffer)
    np.stack(
        [told for field in fields for told in field], 1, bounds[1:-1].reshape(count, 2 * width)
    )
    parts = len(bounds) - 1
    slices = np.full(parts // 8 + 1, 0b10101010, np.uint8)  # every other one, from the second on
    array = pa.Array.from_buffers(
        pa.large_binary(), parts, [pa.py_buffer(data) for data in (slices, bounds, buffer)],
        null_count=count * width + 1,
    )  # fmt: skip
    encoded = array.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    codes = np.frombuffer(encoded.indices.buffers()[1], np.uint32)[1:parts:2]
    result = []
    for column in codes.reshape(count, width).T:
        used, places = distinct(column)
        result.append((places.astype(np.uint32), [values[code] for code in used.tolist()]))
    return result
