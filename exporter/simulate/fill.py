"""Writing a story's past straight into ClickHouse."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client

from exporter.batch import Batch, FlowBatch
from exporter.enrich import NameSources
from exporter.simulate.history import History
from exporter.simulate.lookups import Asking
from exporter.simulate.scenarios import Story
from exporter.store.insert import Encoding


@dataclass(frozen=True, slots=True)
class Part:
    """Batches of the tables, from ``begin`` up to ``end`` (milliseconds since the epoch)."""

    begin: int
    end: int
    batches: list[Batch]


@dataclass(frozen=True, slots=True)
class Past:
    """A story's past: flows and DNS queries, with the names that ``names`` knows.

    ``origin`` is what the story's windows count from, milliseconds since the epoch.
    """

    story: Story
    origin: int
    seed: int
    names: NameSources

    def parts(self, begin: int, end: int, queries_begin: int = 0) -> Iterator[Part]:
        """What to write, some hours at a time; no queries of before ``queries_begin``."""
        asking = Asking(self.story.lookups, self.origin, self.seed)
        for until, flows in History(self.story, self.origin, self.seed).chunks(begin, end):
            batches: list[Batch] = []
            if len(flows):
                batches.append(self.names.enricher.enrich(flows))
            for queries in asking.history(max(begin, queries_begin), until):
                clients = FlowBatch(len(queries), {"src_addr": queries.array("src_addr")})
                self.names.ends.apply(clients)
                for name in ("src_host", "src_network"):
                    queries.columns[name] = clients.dictionary(name)
                batches.append(queries)
            yield Part(begin, until, batches)
            begin = until


@dataclass(frozen=True, slots=True)
class Written:
    """A part that is written: how long it is, and its flows."""

    seconds: float
    rows: int


def fill(
    client: Client,
    past: Past,
    begin: int,
    end: int,
    *,
    queries_begin: int = 0,
    once: bool = False,
    stop: threading.Event,
) -> Iterator[Written]:
    """Insert what ended from ``begin`` up to ``end`` (milliseconds since the epoch).

    Of queries, whose insert may be done where that of the same part's flows is not, only those
    from ``queries_begin``.

    While ClickHouse takes one part the next one is drawn. Rollups and first-seen times follow by
    the views. Yields after each part; when ``stop`` is set, ends after the present one. With
    ``once``, ClickHouse takes a part that it has already as done.

    Raises:
        clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
    """
    with ThreadPoolExecutor(1, "insert") as inserting:
        waiting: Future[Written] | None = None
        for part in past.parts(begin, end, queries_begin):
            token = f"past-{past.seed}-{part.begin}-{part.end}" if once else str(uuid.uuid4())
            following = inserting.submit(_insert, client, part, token)
            if waiting is not None:
                yield waiting.result()
            waiting = following
            if stop.is_set():
                break
        if waiting is not None:
            yield waiting.result()


def _insert(client: Client, part: Part, token: str) -> Written:
    rows = 0
    # Flows last: whoever resumes goes on behind the newest of them.
    for table in ("dns_queries", "flows"):
        chosen = [batch for batch in part.batches if batch.table.name == table]
        if chosen:
            Encoding(table).encode(chosen, token).send(client)
        if table == "flows":
            rows = sum(map(len, chosen))
    return Written((part.end - part.begin) / 1000, rows)
