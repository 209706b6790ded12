"""Names of hosts from all sources, which may change while flows come in.

Each source has a layer that it alone changes: :data:`SOURCES` has them in order. What is known of
an address is, field by field, what the first layer that has it says. Layers may be changed by any
thread; whoever enriches asks for the addresses that changed since it asked last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.enrich.address_changes import AddressChanges
from exporter.key_index import mixed, secret_factors
from exporter.metric_families import by_label

Source = Literal["static", "targets", "docker", "dns", "reverse_dns"]

#: Where names come from, best first: the configuration and its files, targets of Prometheus,
#: containers, names that clients resolved, and names of the reverse zones.
SOURCES: Final[tuple[Source, ...]] = ("static", "targets", "docker", "dns", "reverse_dns")

#: Changes that are remembered by address; whoever comes later looks at all addresses again.
_REMEMBERED_CHANGES: Final = 65_536

#: Places of the table that tells addresses apart that are surely not known.
_PLACES: Final = 1 << 20
_SMALLEST: Final = 1 << 12
_FACTORS: Final = secret_factors(2)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is known of a host; empty where it is not. Share one object among its addresses."""

    name: str = ""
    role: str = ""
    owner: str = ""

    def completed(self, other: HostFacts) -> HostFacts:
        """With the fields of ``other`` where there are none."""
        return HostFacts(
            self.name or other.name, self.role or other.role, self.owner or other.owner
        )

    @property
    def complete(self) -> bool:
        """Whether no other source can add anything."""
        return bool(self.name and self.role and self.owner)


NOTHING: Final = HostFacts()


class HostNames(Collector):
    """What all layers together know, by address (16 bytes, IPv4 mapped)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: dict[Source, dict[bytes, HostFacts]] = {source: {} for source in SOURCES}
        self._merged: dict[bytes, HostFacts] = {}
        self._changes = AddressChanges(_REMEMBERED_CHANGES)
        #: False at the places of addresses that are not known: most of a scan or a flood.
        self._perhaps = np.zeros(_PLACES, np.bool_)
        self._marked = 0

    def layer(self, source: Source) -> Layer:
        """The layer of one source, which is the only one to change it."""
        return Layer(self, source)

    @property
    def changes(self) -> int:
        """How many changes there were; what :meth:`changed_since` counts from."""
        return self._changes.count

    def changed_since(self, seen: int) -> tuple[int, list[bytes] | None]:
        """As :meth:`AddressChanges.since`: what is known of these may be something else now."""
        with self._lock:
            return self._changes.since(seen)

    def find(self, addresses: Iterable[bytes]) -> list[HostFacts | None]:
        """What is known of each address."""
        with self._lock:
            return list(map(self._merged.get, addresses))

    def known(
        self, addresses: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], list[tuple[bytes, HostFacts]]]:
        """Which of the ``(n, 16)`` addresses are known, with what is known of each."""
        with self._lock:
            rows = np.flatnonzero(self._perhaps[_places(addresses)])
            packed = addresses.take(rows, axis=0).view("V16").ravel().tolist()
            found = [self._merged.get(address) for address in packed]
        pairs = [(a, facts) for a, facts in zip(packed, found, strict=True) if facts is not None]
        return rows[[facts is not None for facts in found]], pairs

    def snapshot(self) -> dict[bytes, HostFacts]:
        """Everything that is known now."""
        with self._lock:
            return dict(self._merged)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_host_names``."""
        yield by_label(
            GaugeMetricFamily, "flow_exporter_host_names", "Addresses that a source knows.",
            "source", {source: len(layer) for source, layer in self._layers.items()},
        )  # fmt: skip

    def _change(
        self, source: Source, facts: Mapping[bytes, HostFacts], gone: Iterable[bytes]
    ) -> None:
        """Take over ``facts`` into a layer, and take ``gone`` out of it."""
        with self._lock:
            layer = self._layers[source]
            touched = [a for a, found in facts.items() if layer.get(a) != found]
            layer.update(facts)
            touched += [a for a in gone if layer.pop(a, None) is not None]
            for address in touched:
                self._merge(address)
            self._mark(touched)

    def _replace(self, source: Source, facts: Mapping[bytes, HostFacts]) -> None:
        gone = [a for a in list(self._layers[source]) if a not in facts]
        self._change(source, facts, gone)

    def _mark(self, addresses: Sequence[bytes]) -> None:
        """Note places of addresses that may be known from now on, at times without those gone."""
        self._marked += len(addresses)
        if self._marked > 2 * len(self._merged) + _SMALLEST:
            self._perhaps[:] = False
            addresses = list(self._merged)
            self._marked = len(addresses)
        if addresses:
            packed = np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)
            self._perhaps[_places(packed)] = True

    def _merge(self, address: bytes) -> None:
        merged = NOTHING
        for layer in self._layers.values():
            found = layer.get(address)
            if found is not None:
                merged = found if merged is NOTHING else merged.completed(found)
                if merged.complete:
                    break
        if merged == self._merged.get(address, NOTHING):
            return
        if merged == NOTHING:
            del self._merged[address]
        else:
            self._merged[address] = merged
        self._changes.add(address)


def _places(addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
    words = np.ascontiguousarray(addresses).view(np.uint64)
    found = mixed([words[:, 0], words[:, 1]], _FACTORS)
    found >>= np.uint64(64 - _PLACES.bit_length() + 1)
    return found.view(np.int64)


class Layer:
    """The names of one source; its owner bounds how many there are."""

    def __init__(self, names: HostNames, source: Source) -> None:
        self._names = names
        self._source = source

    def update(self, facts: Mapping[bytes, HostFacts]) -> None:
        """Add these or put them in the place of what was known of their addresses."""
        self._names._change(self._source, facts, ())

    def remove(self, addresses: Iterable[bytes]) -> None:
        """Forget these; those that are not known are passed over."""
        self._names._change(self._source, {}, addresses)

    def replace(self, facts: Mapping[bytes, HostFacts]) -> None:
        """Know these and no others."""
        self._names._replace(self._source, facts)
