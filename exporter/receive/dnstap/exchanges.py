"""Queries matched with their responses."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from exporter.receive.dnstap.dns import Question, Response
from exporter.receive.dnstap.message import Tap

#: A query whose response has not come after so long is one without.
WAIT_SECONDS: Final = 10.0
#: Queries that wait at most; of more the oldest wait no longer. About 600 bytes each.
MAX_WAITING: Final = 100_000
#: A longer latency is a fault of clocks.
_LONGEST_SECONDS: Final = 300.0

_Key = tuple[str, bytes, int, int, bytes]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A query and, where there was one, the response to it.

    ``rcode`` is empty without a response. ``latency`` is in seconds, 0 where times are not told.
    """

    time: float
    identity: str
    client: bytes
    resolver: bytes
    name: str
    type: str
    rcode: str = ""
    latency: float = 0.0
    addresses: tuple[bytes, ...] = ()
    ttl: int = 0


class Exchanges:
    """Finds the query of a response by client, port, protocol, id and question.

    A response without a query (the resolver tells of responses only, or the query came too long
    ago) is an exchange as well. Not for several threads. How long a query waits is told by
    ``clock``, in seconds: that of the day may be set back meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[_Key, tuple[float, Tap]] = {}
        #: In the order in which they came; those that have been answered are still there.
        self._order: deque[tuple[float, _Key]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, tap: Tap, now: float) -> Iterator[Exchange]:
        """A message that came ``now`` (Unix time): the exchanges that it completes."""
        if isinstance(tap.message, Response):
            waiting = self._waiting.pop(_key(tap, tap.message.question), None)
            yield _answered(tap, tap.message, waiting[1] if waiting else None, now)
        else:
            key = _key(tap, tap.message)
            again = self._waiting.pop(key, None)
            if again is not None:  # asked anew before it was answered
                yield _unanswered(again[1], now)
            since = self._clock()
            self._waiting[key] = since, tap
            self._order.append((since, key))
            if len(self._order) > MAX_WAITING:
                yield from self._give_up(now)

    def expire(self, now: float) -> Iterator[Exchange]:
        """Queries that have waited too long, ``now`` (Unix time)."""
        before = self._clock() - WAIT_SECONDS
        while self._order and self._order[0][0] < before:
            yield from self._give_up(now)

    def finish(self, now: float) -> Iterator[Exchange]:
        """All that still wait."""
        while self._order:
            yield from self._give_up(now)

    def _give_up(self, now: float) -> Iterator[Exchange]:
        since, key = self._order.popleft()
        waiting = self._waiting.get(key)
        if waiting is not None and waiting[0] == since:
            del self._waiting[key]
            yield _unanswered(waiting[1], now)


def _key(tap: Tap, question: Question) -> _Key:
    return tap.identity, tap.client, tap.client_port, tap.protocol, question.wire


def _unanswered(query: Tap, now: float) -> Exchange:
    assert isinstance(query.message, Question)
    question = query.message
    return Exchange(now, query.identity, query.client, query.resolver, question.name, question.type)


def _answered(tap: Tap, response: Response, query: Tap | None, now: float) -> Exchange:
    asked = tap.query_time
    if asked is None and query is not None:
        asked = query.query_time
    latency = 0.0
    if asked is not None and tap.response_time is not None:
        latency = tap.response_time - asked
    return Exchange(
        time=now,
        identity=tap.identity,
        client=tap.client,
        resolver=tap.resolver,
        name=response.question.name,
        type=response.question.type,
        rcode=response.rcode,
        latency=latency if 0 < latency <= _LONGEST_SECONDS else 0.0,
        addresses=response.addresses,
        ttl=response.ttl,
    )
