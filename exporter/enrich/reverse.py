"""Names of hosts from reverse DNS: asked for beside the flows, which never wait for an answer.

An address in traffic that nothing else names is asked for, once, at a polite rate; its flows have
the name from when the answer comes. Answers are kept for their TTL and at least ``keep_seconds``,
"no name" for ``negative_seconds``. While resolvers do not answer, less and less is asked.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.resolver
import dns.reversename
import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.batch import FlowBatch, format_address
from exporter.config import ConfigError
from exporter.config.dns import ReverseDns
from exporter.distinct import distinct_addresses
from exporter.enrich.address_changes import AddressChanges
from exporter.enrich.host_names import HostFacts, HostNames
from exporter.enrich.prefixes import PrefixTable
from exporter.logs import RareLog
from exporter.metric_families import by_label

log = logging.getLogger(__name__)

#: Addresses that wait to be asked for; of more, those that are still in traffic come later.
_MAX_WAITING: Final = 1_000
#: Addresses of one batch that are looked at.
_MAX_PER_BATCH: Final = 256
_MAX_AT_ONCE: Final = 32
#: After a failure an address is asked for again after so long.
_FAILED_SECONDS: Final = 60.0
#: After so many failures one after the other there is a pause, doubled each time.
_FAILURES: Final = 5
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_LONGEST_KEPT_SECONDS: Final = 7 * 86_400.0
_MAX_CHANGES: Final = 10_000
_NAP_SECONDS: Final = 0.1
_RESULTS: Final = ("name", "no_name", "failure")


class ReverseNames(Collector):
    """Asks in a thread of its own between :meth:`start` and :meth:`stop`.

    The layer ``reverse_dns`` of ``hosts`` is its own.

    Raises:
        ConfigError: no resolvers are configured, and the system has none.
    """

    def __init__(self, hosts: HostNames, settings: ReverseDns) -> None:
        self._layer = hosts.layer("reverse_dns")
        self._settings = settings
        self._enough = min(_MAX_WAITING, max(_MAX_AT_ONCE, int(settings.queries_per_second)))
        self._networks = PrefixTable((ipaddress.ip_network(p), 1) for p in settings.networks)
        self._lock = threading.Lock()
        #: Until when nothing is to be asked about an address (``time.monotonic``).
        self._known: dict[bytes, float] = {}
        self._ends: list[tuple[float, bytes]] = []
        self._waiting: dict[bytes, None] = {}
        #: Those that are asked for now; traffic goes on to tell of them.
        self._asking: set[bytes] = set()
        self._changes = AddressChanges(_MAX_CHANGES)
        self._results: Counter[str] = Counter(dict.fromkeys(_RESULTS, 0))
        self._failures = 0
        self._errors = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reverse-dns", daemon=True)
        self._log = RareLog(log)
        self._resolver = _resolver(settings)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(self._settings.timeout_seconds + 1)

    def wanted(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """1 for each of the ``(n, 16)`` addresses that should be asked for, else 0."""
        found = self._networks.find(addresses).astype(np.uint32)
        for row in np.flatnonzero(found).tolist():
            found[row] = addresses[row].tobytes() not in self._known
        return found

    @property
    def busy(self) -> bool:
        """Whether what waits is enough for the next second."""
        return len(self._waiting) >= self._enough

    def offer(self, addresses: Sequence[bytes]) -> None:
        """Addresses to ask for, as far as there is room."""
        with self._lock:
            for address in addresses:
                if len(self._waiting) >= _MAX_WAITING:
                    break
                if address not in self._known and address not in self._asking:
                    self._waiting[address] = None

    def changed_since(self, seen: int) -> tuple[int, list[bytes] | None]:
        """As :meth:`AddressChanges.since`: for these, :meth:`wanted` may be another now."""
        with self._lock:
            return self._changes.since(seen)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_reverse_dns_*``."""
        prefix = "flow_exporter_reverse_dns_"
        yield by_label(
            CounterMetricFamily, prefix + "queries",
            "Addresses asked for in reverse DNS, by what came of it.",
            "result", self._results,
        )  # fmt: skip
        yield CounterMetricFamily(
            prefix + "errors", "Faults of the exporter itself in asking; see the log.", self._errors
        )
        yield GaugeMetricFamily(
            prefix + "waiting_addresses", "Addresses that wait to be asked for.", len(self._waiting)
        )
        yield GaugeMetricFamily(
            prefix + "cached_addresses",
            "Answers of reverse DNS that are kept, also those without a name.",
            len(self._known),
        )

    def _run(self) -> None:
        asyncio.run(self._ask_all())

    async def _ask_all(self) -> None:
        asking: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            pause = _NAP_SECONDS
            try:
                pause = self._turn(asking)
            except Exception as error:  # a fault of ours in one turn must not end the thread
                self._failed(error)
            await self._sleep(pause)
        for task in asking:
            task.cancel()

    def _turn(self, asking: set[asyncio.Task[None]]) -> float:
        """Begin to ask for one more address, if there is one; the seconds until the next turn."""
        self._expire(time.monotonic())
        address = self._next() if len(asking) < _MAX_AT_ONCE else None
        if address is None:
            return _NAP_SECONDS
        task = asyncio.create_task(self._ask(address))
        asking.add(task)
        task.add_done_callback(asking.discard)
        return max(1 / self._settings.queries_per_second, self._pause())

    def _failed(self, error: Exception) -> None:
        self._errors += 1
        self._log.error("fault", f"reverse DNS: a fault of the exporter itself: {error!r}")

    async def _sleep(self, seconds: float) -> None:
        """A pause that the stop ends."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            await asyncio.sleep(min(left, _NAP_SECONDS))

    def _pause(self) -> float:
        """How long to wait as nothing is answered."""
        if self._failures < _FAILURES:
            return 0.0
        doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - _FAILURES, 10)
        return min(doubled, _LONGEST_PAUSE_SECONDS)

    def _next(self) -> bytes | None:
        with self._lock:
            for address in self._waiting:
                del self._waiting[address]
                self._asking.add(address)
                return address
        return None

    async def _ask(self, address: bytes) -> None:
        name = ""
        kept = self._settings.negative_seconds
        try:
            answer = await self._resolver.resolve(
                dns.reversename.from_address(format_address(address)),
                "PTR",
                search=False,
                lifetime=self._settings.timeout_seconds,
            )
            name = min(record.target.to_text(omit_final_dot=True).lower() for record in answer)
            rrset = answer.rrset
            kept = max(rrset.ttl if rrset is not None else 0, self._settings.keep_seconds)
            result = "name"
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            result = "no_name"
        except Exception as error:  # resolvers fail in many ways, and none may end the thread
            result = "failure"
            kept = _FAILED_SECONDS
            text = f"{type(error).__name__}: {error}"
            self._log.warning("failure", f"reverse DNS is not answered: {text}")
        self._failures = self._failures + 1 if result == "failure" else 0
        try:
            self._keep(address, name, time.monotonic() + min(kept, _LONGEST_KEPT_SECONDS))
        except Exception as error:
            self._failed(error)
        self._results[result] += 1  # what is counted is known

    def _keep(self, address: bytes, name: str, until: float) -> None:
        gone = []
        with self._lock:
            self._asking.discard(address)
            self._known[address] = until
            heapq.heappush(self._ends, (until, address))
            while len(self._known) > self._settings.max_addresses:
                gone.append(self._forget())
            self._changes.add(address)
        if name and address not in gone:
            self._layer.update({address: HostFacts(name)})
        self._layer.remove(gone)

    def _expire(self, now: float) -> None:
        gone = []
        with self._lock:
            while self._ends and self._ends[0][0] <= now:
                gone.append(self._forget())
        self._layer.remove(gone)

    def _forget(self) -> bytes:
        _, address = heapq.heappop(self._ends)
        del self._known[address]
        self._changes.add(address)
        return address


class ReverseFact:
    """Tells :class:`ReverseNames` which addresses there are in traffic; fills no column itself."""

    def __init__(self, reverse: ReverseNames, hosts: HostNames) -> None:
        self._reverse = reverse
        self._hosts = hosts
        self._seen = reverse.changed_since(0)[0]

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """1 where a name is to be asked for."""
        return self._reverse.wanted(addresses)

    def changed(self) -> Sequence[bytes] | None:
        """Addresses about which more or less is known than before."""
        self._seen, addresses = self._reverse.changed_since(self._seen)
        return addresses

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Ask for addresses without a name."""
        if self._reverse.busy:
            return
        rows = np.flatnonzero(numbers)[:_MAX_PER_BATCH]
        if not len(rows):
            return
        _, addresses = distinct_addresses(batch.array(f"{side}_addr")[rows])
        packed = [address.tobytes() for address in addresses]
        known = self._hosts.find(packed)
        nameless = [a for a, facts in zip(packed, known, strict=True) if not (facts and facts.name)]
        self._reverse.offer(nameless)


def _resolver(settings: ReverseDns) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not settings.servers)
    except dns.exception.DNSException as error:
        raise ConfigError(f"dns.reverse: the system has no resolvers: {error}") from error
    if settings.servers:
        resolver.nameservers = list(settings.servers)
    resolver.port = settings.port
    return resolver
