"""Asks ClickHouse about policies, with what their queries need to be there first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from exporter.policies.keys import Row
from exporter.policies.list_store import ListKeeper
from exporter.policies.model import Policy
from exporter.policies.query import policy_query
from exporter.policies.speeds import SpeedKeeper
from exporter.store.session import Client, Session

log = logging.getLogger(__name__)

#: The followed keys of a policy stand in its query, 21 characters each.
_MAX_QUERY_BYTES: Final = 4 << 20

#: A device that reported nothing for so long is silent, and says nothing about a dip.
FRESH_SECONDS: Final = 120

#: For so long policies with windows of one end share an answer about that. Measured: after a clock
#: was set back the same end comes once more, with other flows.
_SHARED_SECONDS: Final = 60.0

_FRESH: Final = """SELECT DISTINCT toString(device)
FROM {table:Identifier}
WHERE time_received >= fromUnixTimestamp64Milli({start_ms:Int64}, 'UTC')
  AND time_received < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"""


class Asker:
    """Owns a client, which is opened when it is needed; for one thread.

    ``client_factory`` opens a clickhouse-connect client. All methods but :meth:`disconnect` raise
    what it and its queries raise.
    """

    def __init__(
        self,
        client_factory: Callable[[], Client],
        timeout_seconds: float,
        lists: ListKeeper,
        speeds: SpeedKeeper,
    ) -> None:
        self._session = Session(client_factory)
        self._timeout = timeout_seconds
        self.lists = lists
        self._speeds = speeds
        #: By table and end: when it was asked (``time.monotonic``), and the answer.
        self._fresh: dict[tuple[str, float], tuple[float, frozenset[str]]] = {}

    def values(self, policy: Policy, end: float, followed: Collection[int]) -> list[Row]:
        """The rows of a policy's window that ends at ``end``; ``followed`` are hashes of keys."""
        client = self._session.client
        self.lists.store(client, [use.name for use in policy.list_uses])
        if policy.measured.share == "capacity":
            self._speeds.store(client)
        query = policy_query(policy, int(end * 1000), followed, self.lists.lists)
        result = client.query(
            query.sql,
            parameters=query.parameters,
            settings={
                "max_execution_time": self._timeout,
                "max_query_size": _MAX_QUERY_BYTES,
            },
        )
        return rows_of(policy, result.result_rows)

    def fresh_devices(self, policy: Policy, end: float) -> frozenset[str]:
        """The devices that reported something of the policy's table just before ``end``."""
        table, now = policy.source.name, time.monotonic()
        self._fresh = {
            asked: found for asked, found in self._fresh.items() if now - found[0] < _SHARED_SECONDS
        }
        if (table, end) not in self._fresh:
            parameters = {
                "table": table,
                "start_ms": int((end - FRESH_SECONDS) * 1000),
                "end_ms": int(end * 1000),
            }
            rows = self._session.client.query(_FRESH, parameters=parameters).result_rows
            self._fresh[table, end] = now, frozenset(name for (name,) in rows)
        return self._fresh[table, end][1]

    def disconnect(self) -> None:
        """Close the client; the next question opens another."""
        self._session.close()


def rows_of(policy: Policy, answer: Iterable[Sequence[Any]]) -> list[Row]:
    """What a policy's query answers (:func:`~exporter.policies.query.policy_query`)."""
    return [
        Row(
            int(key),
            dict(zip(policy.dimensions, texts, strict=True)),
            float(value),
            tuple(devices),
        )
        for key, *texts, value, devices in answer
    ]
