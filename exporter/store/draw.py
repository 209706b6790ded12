"""Which flows are drawn, to stand for all where all are too many to look at.

Flows are drawn by size (threshold sampling: Duffield, Lund and Thorup, "Learn more, sample less",
IEEE Trans. Inf. Theory 51(5), 2005): those that matter to a sum are always drawn, and of the small
ones one of :data:`LARGEST_WEIGHT`. A sum of drawn flows' values times their weights estimates that
of all, without bias whatever is summed; the variance of a sum of bytes is at most the sum times
:data:`THRESHOLD` flows of mean size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from exporter.batch import Array, FlowBatch

#: A drawn flow stands for at most so many.
LARGEST_WEIGHT: Final = 32
#: A flow of so many times the mean size, and any larger one, is always drawn.
THRESHOLD: Final = 16
_CHANCES: Final = 1 << 32
#: By weight, the highest of so many chances with which a flow is drawn: as many of them are left as
#: one of the weight takes. Flows of weight 1 always are.
_HIGHEST: Final = np.array(
    [0, *((_CHANCES - 1) // weight for weight in range(1, LARGEST_WEIGHT + 1))], np.uint32
)


def drawn_weights(batches: Sequence[FlowBatch], random: np.random.Generator) -> Array:
    """How many flows each of all batches stands for, of shape ``(n,)``; 0 where it is not drawn."""
    sizes = np.concatenate([batch.array("bytes") for batch in batches]).astype(np.float32)
    threshold = max(LARGEST_WEIGHT, THRESHOLD * float(sizes.mean()))
    weights = np.clip(threshold / np.maximum(sizes, 1), 1, LARGEST_WEIGHT).astype(np.uint8)
    weights *= random.integers(0, _CHANCES, len(sizes), np.uint32) <= _HIGHEST.take(weights)
    return weights
