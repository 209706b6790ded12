"""Names that clients resolved, for the addresses that they got: known while they hold.

The rule, where one address has several names (a content network, a shared server): a flow has the
name that the client at its other end was given last; where that client did not ask, the name that
anybody was given last. A name is that which was asked for, whatever aliases led to the address. It
holds for the TTL of the answer and for ``hold_seconds`` at least, and not for flows that ended long
before it was given.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.address import MAPPED_PREFIX
from exporter.batch import FlowBatch
from exporter.config.dns import LearnedNames as Settings
from exporter.enrich.host_names import HostFacts, HostNames
from exporter.enrich.texts import Texts
from exporter.enrich.told import ToldNames

#: A name is not kept for longer, whatever its TTL.
_LONGEST_SECONDS: Final = 86_400.0
#: A flow may have ended so long before the name was given: reports come late, and clocks differ.
_SLACK_SECONDS: Final = 300
#: Clients whose answers are remembered, for each address on average.
_CLIENTS_PER_ADDRESS: Final = 2

_OTHER_SIDE: Final = {"src": "dst", "dst": "src"}


@dataclass(frozen=True, slots=True)
class Lesson:
    """An answer: ``client`` was told that ``name`` has ``addresses`` (each 16 bytes).

    ``ttl`` is in seconds, ``time`` is Unix time.
    """

    name: str
    client: bytes
    addresses: tuple[bytes, ...]
    ttl: float
    time: float


@dataclass(slots=True)
class _Entry:
    """The name of an address now, and its place in the arrays."""

    slot: int
    name: str
    until: float


class LearnedNames(Collector):
    """Learns in one thread, names in another; the layer ``dns`` of ``hosts`` is its own."""

    def __init__(self, hosts: HostNames, settings: Settings) -> None:
        self._hosts = hosts
        self._layer = hosts.layer("dns")
        self._settings = settings
        self._lock = threading.Lock()
        self._entries: dict[bytes, _Entry] = {}
        #: The names that each client was given.
        self.told = ToldNames(_CLIENTS_PER_ADDRESS * settings.max_addresses)
        self._ends: list[tuple[float, bytes]] = []
        self._free = list(range(settings.max_addresses, 0, -1))
        #: By slot: when its name was given first (Unix time), and whether it had another before.
        self.since = np.zeros(settings.max_addresses + 1, np.uint32)
        self.shared = np.zeros(settings.max_addresses + 1, np.bool_)
        self._lessons = 0
        self._evicted = 0

    def learn(self, lessons: Iterable[Lesson], now: float) -> None:
        """Take over answers, and forget names that hold no longer."""
        changed: dict[bytes, HostFacts] = {}
        with self._lock:
            gone = set(self._expired(now))
            for lesson in lessons:
                self._lessons += 1
                facts = HostFacts(lesson.name)
                for address in lesson.addresses:
                    if not _names_nobody(address):
                        gone |= self._learn(lesson, address)
                        changed[address] = facts
            # What was put in and had to go again at once.
            changed = {a: f for a, f in changed.items() if a in self._entries}
        # One that went and came again has another slot, of which readers hear by these two changes.
        self._layer.remove(gone)
        self._layer.update(changed)

    def slot(self, address: bytes, name: str) -> int:
        """The slot of an address whose name is ``name`` by what was learned, else 0."""
        entry = self._entries.get(address)
        return entry.slot if entry is not None and entry.name == name else 0

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_dns_*`` about names."""
        prefix = "flow_exporter_dns_"
        yield CounterMetricFamily(
            prefix + "learned_answers",
            "Answers with addresses that names came from.",
            self._lessons,
        )
        yield GaugeMetricFamily(
            prefix + "learned_clients",
            "Pairs of an address and a client whose name for it is remembered.",
            len(self.told),
        )
        yield GaugeMetricFamily(
            prefix + "shared_addresses", "Addresses with several names.", int(self.shared.sum())
        )
        yield CounterMetricFamily(
            prefix + "evicted_names", "Names forgotten early, for want of room.", self._evicted
        )

    def _learn(self, lesson: Lesson, address: bytes) -> set[bytes]:
        """Take over one address; returns addresses that had to make room."""
        gone = set()
        hold = max(lesson.ttl, self._settings.hold_seconds)
        until = lesson.time + min(hold, _LONGEST_SECONDS)
        entry = self._entries.get(address)
        if entry is None:
            if not self._free:
                gone.add(self._evict())
            entry = self._entries[address] = _Entry(self._free.pop(), lesson.name, until)
            heapq.heappush(self._ends, (until, address))
            self.since[entry.slot] = int(lesson.time)
            self.shared[entry.slot] = False
        elif entry.name != lesson.name:
            entry.name = lesson.name
            self.since[entry.slot] = int(lesson.time)
            self.shared[entry.slot] = True
        entry.until = max(entry.until, until)
        self.told.put(address, lesson.client, lesson.name, lesson.time, until)
        return gone

    def _expired(self, now: float) -> Iterator[bytes]:
        while self._ends and self._ends[0][0] <= now:
            _, address = heapq.heappop(self._ends)
            entry = self._entries[address]
            if entry.until > now:  # was told again meanwhile
                heapq.heappush(self._ends, (entry.until, address))
            else:
                self._forget(address)
                yield address

    def _evict(self) -> bytes:
        """Forget the name that ends first, for another."""
        self._evicted += 1
        while True:
            end, address = heapq.heappop(self._ends)
            until = self._entries[address].until
            if until <= end:
                self._forget(address)
                return address
            heapq.heappush(self._ends, (until, address))

    def _forget(self, address: bytes) -> None:
        entry = self._entries.pop(address)
        self.shared[entry.slot] = False
        self._free.append(entry.slot)


class LearnedFact:
    """Corrects ``src_host`` and ``dst_host`` of addresses whose name was learned.

    To be listed before :class:`~exporter.enrich.host_fact.HostFact`, which asks it.
    """

    def __init__(self, learned: LearnedNames, hosts: HostNames) -> None:
        self._learned = learned
        self._hosts = hosts
        self._seen = hosts.changes
        self._slots: dict[str, NDArray[np.uint32]] = {}

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The slot of a name that was learned, 0 for others."""
        slots = np.zeros(len(addresses), np.uint32)
        rows, found = self._hosts.known(addresses)
        slots[rows] = [self._learned.slot(address, facts.name) for address, facts in found]
        return slots

    def changed(self) -> Sequence[bytes] | None:
        """Addresses that may have another name than before."""
        self._seen, addresses = self._hosts.changed_since(self._seen)
        return addresses

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Keep the slots of one end for :meth:`correct`."""
        self._slots[side] = numbers

    def correct(
        self, batch: FlowBatch, side: str, names: NDArray[np.uint32], texts: Texts
    ) -> NDArray[np.uint32]:
        """Take back names that were given too late, and give each client its own."""
        numbers = self._slots[side]
        rows = np.flatnonzero(numbers)
        if not len(rows):
            return names
        slots = numbers[rows]
        if "time_flow_end" in batch.columns:
            latest = batch.array("time_flow_end")[rows] // 1000 + _SLACK_SECONDS
        else:
            latest = np.full(len(rows), np.iinfo(np.int64).max)
        late = self._learned.since[slots] > latest
        shared = self._learned.shared[slots]
        if not (late.any() or shared.any()):
            return names
        names = names.copy()
        names[rows[late]] = 0
        if shared.any():
            self._by_client(batch, side, rows[shared], latest[shared], names, texts)
        return names

    def _by_client(
        self,
        batch: FlowBatch,
        side: str,
        rows: NDArray[np.intp],
        latest: NDArray[np.int64],
        names: NDArray[np.uint32],
        texts: Texts,
    ) -> None:
        """Names of shared addresses, where the other end of the flow asked for one itself."""
        addresses = batch.array(f"{side}_addr").take(rows, axis=0)
        clients = batch.array(f"{_OTHER_SIDE[side]}_addr").take(rows, axis=0)
        told, given, since = self._learned.told.find(addresses, clients, time.time())
        numbers = np.array([texts.number(name) for name in given], np.uint32)[told]
        known = numbers != 0
        numbers[since[told] > latest] = 0
        names[rows[known]] = numbers[known]


def _names_nobody(address: bytes) -> bool:
    """Whether it is an unspecified or loopback address, which filters answer with."""
    if address.startswith(MAPPED_PREFIX):
        return address[12] in (0, 127)
    return address[:15] == bytes(15) and address[15] <= 1
