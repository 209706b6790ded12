"""The keys that a policy follows: picked up when large, kept for a while, never too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from exporter.policies.model import Policy
from exporter.policies.pins import Pin, matches

#: Columns that tell of another one what is known of it now, and may tell something else later.
_TOLD_OF: Final = {
    "src_addr": ("src_host", "src_network", "src_internal", "src_country"),
    "dst_addr": ("dst_host", "dst_network", "dst_internal", "dst_country"),
    "in_if": ("in_if_name",),
    "out_if": ("out_if_name",),
    "device_addr": ("device", "site", "role", "owner"),
    "device": ("site", "role", "owner"),
}


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
    ``picks``: of how many windows it was among the largest since it is followed.
    """

    labels: Mapping[str, str]
    value: float
    picked_at: float
    devices: tuple[str, ...] = ()
    pinned: bool = False
    picks: int = 1


class FollowedKeys:
    """The followed keys of one policy by their hash.

    A key is picked up in a window in which it is one of the ``top`` largest, one of the ``per.top``
    largest of its group, and not below ``minimum``. From then on its true value is told, 0 when
    there is no traffic, until ``expiry`` has passed since it was last picked. When there are more
    than ``key_limit``, those go first that are not picked now, and of these the ones that were
    picked least often: whoever brings many large keys for a while cannot hide that another, which
    was there for long, has stopped. ``evicted`` counts what went.

    Pinned keys are picked up whenever they have traffic, and stay. A pin that no key matches is
    told itself, as 0.

    A key without traffic is followed no longer when another has it that differs in names alone: the
    host, the network or the interface was named meanwhile, and has not stopped.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._pins: list[Pin] = policy.pins
        self._keys: dict[int, Key] = {}
        self._end = 0.0
        self.evicted = 0
        self._unmatched = [Key(pin, 0.0, 0.0, pinned=True) for pin in self._pins]
        told = {name for of in policy.dimensions for name in _TOLD_OF.get(of, ())}
        self._lasting = [name for name in policy.dimensions if name not in told]

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
        self._end = end
        for key in keys.values():
            key.value = 0.0
            key.picked_at = min(key.picked_at, end)  # the clock may have been set back
        picked = 0
        groups: Counter[str] = Counter()
        ordered = sorted(rows, key=lambda row: row.value, reverse=True)
        for row in ordered:
            large = picked < policy.top and row.value >= policy.minimum
            if large and policy.per is not None:
                group = row.labels[policy.per.dimension]
                large = groups[group] < policy.per.top
                groups[group] += large
            picked += large
            known = keys.get(row.key)
            pinned = known.pinned if known is not None else self._is_pinned(row.labels)
            if large or pinned:
                picks = known.picks + 1 if known is not None else 1
                keys[row.key] = Key(row.labels, row.value, end, row.devices, pinned, picks)
            elif known is not None:
                known.value = row.value
        self._keys = {
            hashed: key
            for hashed, key in keys.items()
            if key.pinned or end - key.picked_at < policy.expiry
        }
        self._forget_renamed(ordered)
        self._shrink()

    def forget(self, names: Mapping[str, Set[str]]) -> None:
        """Follow no key longer that has one of these names, by column, unless it is pinned."""
        for hashed, key in list(self._keys.items()):
            if not key.pinned and any(
                text in names.get(column, ()) for column, text in key.labels.items()
            ):
                del self._keys[hashed]

    def unobserved(self, fresh: Collection[str]) -> list[Key]:
        """Keys of which one of the devices that report them is not among ``fresh``."""
        return [key for key in self._keys.values() if not set(key.devices) <= set(fresh)]

    def _forget_renamed(self, rows: Collection[Row]) -> None:
        if len(self._lasting) == len(self._policy.dimensions):
            return
        present = {row.key for row in rows}
        named = {self._lasting_part(row.labels) for row in rows}
        for hashed, key in list(self._keys.items()):
            if hashed not in present and self._lasting_part(key.labels) in named:
                del self._keys[hashed]

    def _lasting_part(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(labels[name] for name in self._lasting)

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
                self.evicted += 1

    def _worth(self, hashed: int) -> tuple[float, ...]:
        key = self._keys[hashed]
        return key.pinned, key.picked_at == self._end, key.picks, key.picked_at, key.value
