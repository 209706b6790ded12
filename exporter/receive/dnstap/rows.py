"""Queries on their way to the table ``dns_queries``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from exporter.batch import DictColumn, DnsBatch, FlowBatch
from exporter.enrich.end_facts import EndFacts
from exporter.logs import RareLog
from exporter.receive.dnstap.exchanges import Exchange
from exporter.receive.dnstap.stats import DnstapStats
from exporter.store.writer import WriterStoppedError

log = logging.getLogger(__name__)

#: Queries that wait for the insert queue at most; further ones are dropped and counted.
MAX_WAITING: Final = 200_000
#: Queries of one batch, and how long they wait for others to share it.
_BATCH: Final = 10_000
_LINGER_SECONDS: Final = 0.5


class QueryRows:
    """Hands queries to ``write``, in a thread of its own, as that may wait.

    ``names`` fills in names and networks of clients; it may be replaced at any time.
    """

    def __init__(
        self, write: Callable[[DnsBatch], None], names: EndFacts, stats: DnstapStats
    ) -> None:
        self.names = names
        self._stats = stats
        self._log = RareLog(log)
        self._write = write
        self._waiting: list[Exchange] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="dns-rows", daemon=True)

    def start(self) -> None:
        """Begin to hand over."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Hand over what is left, for at most ``timeout`` seconds."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def put(self, exchanges: Sequence[Exchange]) -> int:
        """Leave queries, as far as there is room; returns how many found none."""
        if not exchanges:
            return 0
        with self._changed:
            room = max(MAX_WAITING - len(self._waiting), 0)
            if not self._waiting:
                self._changed.notify_all()
            self._waiting += exchanges[:room]
            return max(len(exchanges) - room, 0)

    def _run(self) -> None:
        while exchanges := self._take():
            try:
                self._write(self._batch(exchanges))
            except WriterStoppedError:
                log.warning("%d DNS queries came after the writer had stopped", len(exchanges))
            except Exception as error:
                self._stats.failed += len(exchanges)
                text = f"{len(exchanges)} DNS queries cannot be stored: {error!r}"
                self._log.error("failed", text)

    def _take(self) -> list[Exchange]:
        """Some queries; none when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._closed and len(self._waiting) < _BATCH:
                self._changed.wait_for(lambda: self._closed, _LINGER_SECONDS)
            taken = self._waiting[:_BATCH]
            del self._waiting[:_BATCH]
            return taken

    def _batch(self, exchanges: Sequence[Exchange]) -> DnsBatch:
        clients = _addresses([e.client for e in exchanges])
        named = FlowBatch(len(exchanges), {"src_addr": clients})
        self.names.apply(named)
        return DnsBatch(
            len(exchanges),
            {
                "time_received": np.array([int(e.time * 1000) for e in exchanges], np.int64),
                "device": DictColumn.encode([e.identity for e in exchanges]),
                "source": DictColumn.constant("dnstap", len(exchanges)),
                "src_addr": clients,
                "dst_addr": _addresses([e.resolver for e in exchanges]),
                "src_host": named.dictionary("src_host"),
                "src_network": named.dictionary("src_network"),
                "dns_name": DictColumn.encode([e.name for e in exchanges]),
                "dns_type": DictColumn.encode([e.type for e in exchanges]),
                "dns_rcode": DictColumn.encode([e.rcode for e in exchanges]),
                "dns_latency": np.array([e.latency for e in exchanges], np.float32),
                "answers": DictColumn.encode([e.addresses for e in exchanges]),
            },
        )


def _addresses(packed: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(packed), np.uint8).reshape(-1, 16)
