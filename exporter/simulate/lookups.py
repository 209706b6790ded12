"""Names that hosts ask resolvers for: who asks what how often, drawn as queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.address import pack_address
from exporter.batch import DictColumn, DnsBatch
from exporter.simulate.drawing import HISTORY, generator
from exporter.simulate.pools import Pool
from exporter.simulate.site import HOSTS
from exporter.simulate.streams import STEADY, Floats, Rhythm, Window, factors

#: Resolvers by name: they ask each one as often.
RESOLVERS: Final = ("dns01", "dns02")
#: Milliseconds that are drawn at once.
HOUR: Final = 3_600_000
#: Seconds that an answer takes on average, and at least.
_LATENCY: Final = 0.012
_LEAST_LATENCY: Final = 0.0003


@dataclass(frozen=True, slots=True)
class Lookup:
    """A name, and the IPv4 addresses that it has; without any, it does not exist."""

    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lookups:
    """Queries of one kind: ``clients`` ask for one of ``lookups``, ``per_second`` at most."""

    name: str
    clients: Pool
    lookups: tuple[Lookup, ...]
    per_second: float
    rhythm: Rhythm = STEADY
    windows: tuple[Window, ...] = ()
    only_in_windows: bool = False

    def levels(self, times: NDArray[np.int64], elapsed: Floats) -> Floats:
        """As those of :class:`~exporter.simulate.streams.Stream`."""
        outside = 0.0 if self.only_in_windows else 1.0
        return factors(self.windows, elapsed, outside) * self.rhythm.levels(times)


@dataclass(frozen=True, slots=True)
class Query:
    """One query and its answer. ``client`` is 16 octets, ``time`` milliseconds since the epoch."""

    time: int
    client: bytes
    resolver: str
    lookup: Lookup
    number: int
    port: int
    latency: float

    def at(self, time: int) -> Query:
        """The same at another time."""
        return replace(self, time=time)


@dataclass(frozen=True, slots=True)
class Asking:
    """Draws queries: the same for the same seed and times.

    Args:
        kinds: what is asked.
        origin: what their windows count from, milliseconds since the epoch.
        seed: for everything that is drawn.
    """

    kinds: Sequence[Lookups]
    origin: int
    seed: int = 1

    def queries(self, hour: int) -> list[Query]:
        """The queries of an hour (number since the epoch), in order of time."""
        start = hour * HOUR
        found: list[Query] = []
        for kind in self.kinds:
            rng = generator(self.seed, kind.name, HISTORY, hour)
            seconds = start + np.arange(0, HOUR, 1000, dtype=np.int64)
            levels = kind.levels(seconds, (seconds - self.origin) / 1000.0)
            if not levels.any():
                continue
            counts = rng.poisson(kind.per_second * levels)
            times = np.repeat(seconds, counts) + rng.integers(0, 1000, int(counts.sum()))
            found += [_drawn(kind, time, rng) for time in times.tolist()]
        return sorted(found, key=lambda query: query.time)

    def history(self, begin: int, end: int) -> Iterator[DnsBatch]:
        """The queries from ``begin`` up to ``end`` (milliseconds since the epoch), without names
        of hosts: what the collector stores of them."""
        for hour in range(begin // HOUR, -(-end // HOUR)):
            queries = [query for query in self.queries(hour) if begin <= query.time < end]
            if queries:
                yield _rows(queries)


def _drawn(kind: Lookups, time: int, rng: np.random.Generator) -> Query:
    return Query(
        time,
        kind.clients.addresses[rng.integers(len(kind.clients))].tobytes(),
        RESOLVERS[rng.integers(len(RESOLVERS))],
        kind.lookups[rng.integers(len(kind.lookups))],
        int(rng.integers(1 << 16)),
        int(rng.integers(32768, 61000)),
        _LEAST_LATENCY + float(rng.exponential(_LATENCY)),
    )


def _rows(queries: Sequence[Query]) -> DnsBatch:
    def addresses(packed_ones: list[bytes]) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(packed_ones), np.uint8).reshape(-1, 16)

    answers = [tuple(pack_address(a) for a in query.lookup.addresses) for query in queries]
    return DnsBatch(
        len(queries),
        {
            "time_received": np.array([query.time for query in queries], np.int64),
            "device": DictColumn.encode([query.resolver for query in queries]),
            "source": DictColumn.constant("dnstap", len(queries)),
            "src_addr": addresses([query.client for query in queries]),
            "dst_addr": addresses([pack_address(HOSTS[query.resolver]) for query in queries]),
            "dns_name": DictColumn.encode([query.lookup.name for query in queries]),
            "dns_type": DictColumn.constant("A", len(queries)),
            "dns_rcode": DictColumn.encode(
                ["NOERROR" if query.lookup.addresses else "NXDOMAIN" for query in queries]
            ),
            "dns_latency": np.array([query.latency for query in queries], np.float32),
            "answers": DictColumn.encode(answers),
        },
    )
