"""What a receiver hands to the decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

#: Octets of a batch's buffer that follow its last payload, so that whoever reads a structure of
#: this size at a payload's last octet does not leave the buffer.
SPARE_BYTES: Final = 64


@dataclass(slots=True)
class DatagramBatch:
    """``n`` UDP payloads in the order of their reception, side by side in one buffer.

    ``buffer`` is ``uint8`` of one dimension; payload ``i`` has ``lengths[i]`` octets from
    ``starts[i]`` on (both ``int64``). Starts ascend and are multiples of 4. What lies between the
    payloads, and in at least :data:`SPARE_BYTES` octets after the last, is no one's. The buffer
    belongs to the batch alone: whoever keeps a view of it keeps all of it in memory.

    ``senders`` is ``uint8`` of shape ``(n, 16)`` (IPv6, IPv4 mapped), ``ports`` (``uint16``) the
    senders' UDP ports, ``time_received`` (``int64``) milliseconds since the epoch, UTC.
    """

    buffer: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    senders: NDArray[np.uint8]
    ports: NDArray[np.uint16]
    time_received: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        payloads: Sequence[bytes | memoryview],
        senders: NDArray[np.uint8],
        ports: NDArray[np.uint16],
        time_received: NDArray[np.int64],
    ) -> Self:
        """Copies of payloads that lie anywhere."""
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        rooms = (lengths + 3) & ~3
        parts: list[bytes | memoryview] = []
        for payload, gap in zip(payloads, (rooms - lengths).tolist(), strict=True):
            parts.append(payload)
            if gap:
                parts.append(bytes(gap))
        parts.append(bytes(SPARE_BYTES))
        buffer = np.frombuffer(b"".join(parts), np.uint8)
        return cls(buffer, np.cumsum(rooms) - rooms, lengths, senders, ports, time_received)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def payloads(self) -> list[memoryview]:
        """The payloads one by one, as views of the buffer."""
        view = self.buffer.data
        ends = self.starts + self.lengths
        return [
            view[start:end] for start, end in zip(self.starts.tolist(), ends.tolist(), strict=True)
        ]

    def take(self, rows: NDArray[Any]) -> DatagramBatch:
        """The datagrams that an index or a mask selects, in the same buffer."""
        return DatagramBatch(
            self.buffer, self.starts[rows], self.lengths[rows], self.senders[rows],
            self.ports[rows], self.time_received[rows],
        )  # fmt: skip
