"""Numbers of names, to the text columns of one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.batch import Array, DictColumn


def name_column(codes: Array | None, numbers: Array, names: Sequence[str]) -> DictColumn:
    """A column in which row ``i`` reads ``names[numbers[codes[i]]]``.

    ``codes`` may be ``None`` when ``numbers`` has one per row already. Only names that occur
    get into the column, so that a batch does not carry all names there are.
    """
    used = np.bincount(numbers, minlength=len(names)) > 0
    local = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    found = local[numbers]
    values = [names[number] for number in np.flatnonzero(used).tolist()]
    return DictColumn(found if codes is None else found[codes], values)
