"""Structures gathered from any places of a buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array

Index = NDArray[np.int64]


def rows_at(data: NDArray[np.uint8], offsets: Index, layout: np.dtype[Any]) -> Array:
    """A structure of ``layout`` at each of ``offsets``, all within ``data``."""
    # Gathering opaque rows and naming their fields afterwards is several times quicker.
    opaque = np.dtype(f"V{layout.itemsize}")
    view = np.ndarray((len(data) - layout.itemsize + 1,), opaque, data, strides=(1,))
    return view[offsets].view(layout)
