"""Addresses of which something changed, for whoever asks what is new since he asked last."""

from __future__ import annotations

from collections import deque
from itertools import islice


class AddressChanges:
    """The last ``most`` changes, numbered from the first one. Its owner locks."""

    def __init__(self, most: int) -> None:
        self._last: deque[bytes] = deque(maxlen=most)
        #: How many there were.
        self.count = 0

    def add(self, address: bytes) -> None:
        """Note a change."""
        self._last.append(address)
        self.count += 1

    def since(self, seen: int) -> tuple[int, list[bytes] | None]:
        """``(count, addresses)``: those that changed after ``seen`` changes, ``None`` for any.

        The latest stand first. An address may be in the list more than once.
        """
        missed = self.count - seen
        if missed > len(self._last):
            return self.count, None
        return self.count, list(islice(reversed(self._last), missed))
