"""Writing a story's past straight into ClickHouse."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from exporter.batch import FlowBatch
from exporter.simulate.history import History
from exporter.store.insert import Encoding


@dataclass(frozen=True, slots=True)
class Written:
    """How far the past is told: until when (milliseconds since the epoch), in how many rows."""

    until: int
    rows: int


def fill(
    client: Client,
    history: History,
    begin: int,
    end: int,
    *,
    enrich: Callable[[FlowBatch], FlowBatch],
    stop: threading.Event,
) -> Iterator[Written]:
    """Insert the flows that end from ``begin`` up to ``end`` (milliseconds since the epoch).

    While ClickHouse takes one part the next one is drawn. Rollups and first-seen times follow by
    the views. Yields after each part; when ``stop`` is set, ends after the present one.

    Raises:
        clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
    """
    encoding = Encoding()

    def insert(until: int, flows: FlowBatch) -> Written:
        if len(flows):
            encoding.encode([enrich(flows)], str(uuid.uuid4())).send(client)
        return Written(until, len(flows))

    with ThreadPoolExecutor(1, "insert") as inserting:
        waiting: Future[Written] | None = None
        for until, flows in history.chunks(begin, end):
            following = inserting.submit(insert, until, flows)
            if waiting is not None:
                yield waiting.result()
            waiting = following
            if stop.is_set():
                break
        if waiting is not None:
            yield waiting.result()
