"""The keys that a policy follows: picked up when large, kept for a while, never too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from exporter.policies.model import Policy
from exporter.policies.pins import Pin, matches


class Row(NamedTuple):
    """A key's value in a window: ``key`` is its hash, ``devices`` are those that reported it."""

    key: int
    labels: Mapping[str, str]
    value: float
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class Key:
    """One combination of dimension values.

    ``picked_at`` is the end of the last window in which it was among the largest (seconds since
    the epoch), ``devices`` those that reported it then. ``pinned``: whether the policy names it.
    """

    labels: Mapping[str, str]
    value: float
    picked_at: float
    devices: tuple[str, ...] = ()
    pinned: bool = False


class FollowedKeys:
    """The followed keys of one policy by their hash.

    A key is picked up in a window in which it is one of the ``top`` largest, one of the ``per.top``
    largest of its group, and not below ``minimum``. From then on its true value is told, 0 when
    there is no traffic, until ``expiry`` has passed since it was last picked. When there are more
    than ``key_limit``, those picked longest ago go first.

    Pinned keys are picked up whenever they have traffic, and stay. A pin that no key matches is
    told itself, as 0.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._pins: list[Pin] = policy.pins
        self._keys: dict[int, Key] = {}
        self._unmatched = [Key(pin, 0.0, 0.0, pinned=True) for pin in self._pins]

    def __len__(self) -> int:
        return len(self._keys) + len(self._unmatched)

    def hashes(self) -> list[int]:
        """The hash of each key, as the query knows it."""
        return list(self._keys)

    def __iter__(self) -> Iterator[Key]:
        yield from self._keys.values()
        yield from self._unmatched

    def limit_to(self, policy: Policy) -> None:
        """Go by another edition of the policy that asks the same of ClickHouse."""
        self._policy = policy
        self._pins = policy.pins
        for key in self._keys.values():
            key.pinned = self._is_pinned(key.labels)
        self._shrink()

    def update(self, rows: Iterable[Row], end: float) -> None:
        """Take in a window's rows: all followed and pinned keys with traffic, and at least the
        largest of the others, as many as may be picked up."""
        policy, keys = self._policy, self._keys
        for key in keys.values():
            key.value = 0.0
        picked = 0
        groups: Counter[str] = Counter()
        for row in sorted(rows, key=lambda row: row.value, reverse=True):
            large = picked < policy.top and row.value >= policy.minimum
            if large and policy.per is not None:
                group = row.labels[policy.per.dimension]
                large = groups[group] < policy.per.top
                groups[group] += large
            picked += large
            known = keys.get(row.key)
            pinned = known.pinned if known is not None else self._is_pinned(row.labels)
            if large or pinned:
                keys[row.key] = Key(row.labels, row.value, end, row.devices, pinned)
            elif known is not None:
                known.value = row.value
        self._keys = {
            hashed: key
            for hashed, key in keys.items()
            if key.pinned or end - key.picked_at < policy.expiry
        }
        self._shrink()

    def unobserved(self, fresh: Collection[str]) -> list[Key]:
        """Keys of which one of the devices that report them is not among ``fresh``."""
        return [key for key in self._keys.values() if not set(key.devices) <= set(fresh)]

    def _is_pinned(self, labels: Mapping[str, str]) -> bool:
        return any(matches(pin, labels) for pin in self._pins)

    def _shrink(self) -> None:
        if self._pins:
            pinned = [key.labels for key in self._keys.values() if key.pinned]
            self._unmatched = [
                Key(pin, 0.0, 0.0, pinned=True)
                for pin in self._pins
                if not any(matches(pin, labels) for labels in pinned)
            ]
        else:
            self._unmatched = []
        surplus = len(self) - self._policy.key_limit
        if surplus > 0:
            leaving = sorted(self._keys, key=self._worth)
            for hashed in leaving[:surplus]:
                del self._keys[hashed]

    def _worth(self, hashed: int) -> tuple[bool, float, float]:
        key = self._keys[hashed]
        return key.pinned, key.picked_at, key.value
