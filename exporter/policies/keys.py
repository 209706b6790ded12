"""The keys that a policy follows: picked up when large, kept for a while, never too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from exporter.policies.model import Policy


@dataclass(slots=True)
class Key:
    """One combination of dimension values; ``picked_at`` is the end of the last window in which
    it was among the largest (seconds since the epoch)."""

    labels: Mapping[str, str]
    value: float
    picked_at: float


class FollowedKeys:
    """The followed keys of one policy by their hash.

    A key is picked up in a window in which it is one of the ``top`` largest and not below
    ``minimum``. From then on its true value is told, 0 when there is no traffic, until ``expiry``
    has passed since it was last picked. When there are more than ``key_limit``, those picked
    longest ago go first.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._keys: dict[int, Key] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def hashes(self) -> list[int]:
        """The hash of each key, as the query knows it."""
        return list(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def limit_to(self, policy: Policy) -> None:
        """Go by another edition of the policy that asks the same of ClickHouse."""
        self._policy = policy
        self._shrink()

    def update(self, rows: Iterable[tuple[int, Mapping[str, str], float]], end: float) -> None:
        """Take in a window's ``(hash, labels, value)``: all followed keys with traffic, and at
        least the ``top`` largest of the others."""
        policy = self._policy
        by_value = sorted(rows, key=lambda row: row[2], reverse=True)
        for key in self._keys.values():
            key.value = 0.0
        for rank, (hashed, labels, value) in enumerate(by_value):
            known = self._keys.get(hashed)
            if rank < policy.top and value >= policy.minimum:
                self._keys[hashed] = Key(labels, value, end)
            elif known is not None:
                known.value = value
        self._keys = {
            hashed: key for hashed, key in self._keys.items() if end - key.picked_at < policy.expiry
        }
        self._shrink()

    def _shrink(self) -> None:
        surplus = len(self._keys) - self._policy.key_limit
        if surplus > 0:
            leaving = sorted(
                self._keys, key=lambda h: (self._keys[h].picked_at, self._keys[h].value)
            )
            for hashed in leaving[:surplus]:
                del self._keys[hashed]
