"""What a receiver hands to the decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class DatagramBatch:
    """UDP payloads in the order of their reception.

    ``payloads`` holds ``bytes`` or ``memoryview``s that stay valid only until the next batch of
    the same receiver: whoever keeps one copies it. ``senders`` is ``uint8`` of shape ``(n, 16)``
    (IPv6, IPv4 mapped), ``ports`` the senders' UDP ports, ``time_received`` milliseconds since
    the epoch, UTC, all of length ``n``.
    """

    payloads: Sequence[bytes | memoryview]
    senders: NDArray[np.uint8]
    ports: NDArray[np.uint16]
    time_received: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.payloads)
