"""The path of the flows: receive, decode, enrich, count, write.

One thread decodes what the receivers hand over; sources of flows bring theirs. Another thread
enriches and counts, and gives the flows to the writer. Between them is a bounded hand-over in which
small batches become a large one: every step has a cost per batch that tens of thousands of flows
share.

When ClickHouse is away for long the writer's queue fills, then this hand-over, then the receive
buffers, and last the kernel's, which count what they lose. Sources of flows are told to wait.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.batch import FlowBatch, concat
from exporter.enrich import Enricher
from exporter.logs import RareLog
from exporter.metric_families import by_label
from exporter.metrics.counters import TrafficCounters
from exporter.receive.datagrams import DatagramBatch
from exporter.receive.sources import FlowSource
from exporter.store.writer import Writer, WriterStoppedError

log = logging.getLogger(__name__)

#: Flows that are enriched and counted together at least, and that may wait for it. Receivers' own
#: batches are larger from 65,000 flows per second on, and hardly cheaper where they are merged.
BATCH_FLOWS: Final = 32_768
MAX_WAITING_FLOWS: Final = 8 * BATCH_FLOWS
#: Longest time that a flow waits for others to share its batch.
LINGER_SECONDS: Final = 0.2

_SAVE_EVERY_SECONDS: Final = 60.0
_STAGES: Final = ("decode", "save", "merge", "enrich", "count", "write")
#: A write that takes longer waits for room.
_CONGESTED_SECONDS: Final = 1.0


class Receivers(Protocol):
    """Where datagrams come from; :class:`exporter.receive.udp.UdpReceivers` is one."""

    def start(self) -> None:
        """Begin to receive."""

    def stop(self) -> None:
        """Receive no more."""

    def batches(self, stop: threading.Event) -> Iterator[DatagramBatch]:
        """Batches until ``stop`` is set, then what has been received until then."""
        ...


class Decoder(Protocol):
    """Datagrams to flows."""

    def decode(self, batch: DatagramBatch) -> Sequence[FlowBatch]:
        """The flows of a batch of datagrams."""
        ...

    def save(self) -> None:
        """Keep what devices told about their flows for the next start."""


class Pipeline(Collector):
    """Runs the parts between :meth:`start` and :meth:`stop`, and counts what passes.

    ``enricher`` may be replaced at any time. An error in one batch is counted and logged; it
    stops nothing, and what still can be done with the batch is done.
    """

    def __init__(
        self,
        receivers: Receivers,
        decoder: Decoder,
        enricher: Enricher,
        counters: TrafficCounters,
        writer: Writer,
        sources: Sequence[FlowSource] = (),
    ) -> None:
        self.enricher = enricher
        self._sources = sources
        self._receivers = receivers
        self._decoder = decoder
        self._counters = counters
        self._writer = writer
        self._stop = threading.Event()
        self._waiting = _HandOver()
        self._decoding = threading.Thread(target=self._decode, name="decode", daemon=True)
        self._passing = threading.Thread(target=self._pass_on, name="enrich", daemon=True)
        self._flows = 0
        self._batches = 0
        self._seconds = dict.fromkeys(_STAGES, 0.0)
        self._errors = Counter(dict.fromkeys(("receive", *_STAGES), 0))
        self._writing_since: float | None = None
        self._log = RareLog(log)

    def start(self) -> None:
        """Begin at the end, so that there is always someone to hand over to."""
        self._writer.start()
        self._passing.start()
        self._decoding.start()
        self._receivers.start()
        for source in self._sources:
            source.start(self.offer)

    def offer(self, flows: FlowBatch, seconds: float) -> bool:
        """Take flows, if there is or within ``seconds`` becomes room for them."""
        return self._waiting.offer(flows, seconds)

    def stop(self, timeout: float = 8.0) -> None:
        """Take in no more, then bring what was taken in to its end, for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        for source in self._sources:
            source.stop()
        self._stop.set()
        # A writer that waits for ClickHouse gets half of the time to take what is on its way.
        self._passing.join(timeout / 2)
        self._writer.stop(max(deadline - time.monotonic(), 1.0))
        self._waiting.close()
        self._passing.join(1.0)
        self._decoding.join(1.0)
        self._receivers.stop()
        if self._waiting.flows:
            log.error("stopped before everything was passed on: %d flows lost", self._waiting.flows)

    @property
    def alive(self) -> bool:
        """Whether all threads run, those of the writer too."""
        return self._decoding.is_alive() and self._passing.is_alive() and self._writer.alive

    def congestion(self) -> str | None:
        """Why flows are not taken in as they come, if so."""
        since = self._writing_since
        if since is not None and time.monotonic() - since > _CONGESTED_SECONDS:
            return "the insert queue is full"
        return None

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_pipeline_*``."""
        prefix = "flow_exporter_pipeline_"
        yield CounterMetricFamily(
            prefix + "flows", "Flows enriched, counted and handed to the writer.", self._flows
        )
        yield CounterMetricFamily(
            prefix + "batches", "Batches handed to the writer, small ones merged.", self._batches
        )
        yield GaugeMetricFamily(
            prefix + "waiting_flows", "Decoded flows that wait for enrichment.", self._waiting.flows
        )
        yield by_label(
            CounterMetricFamily, prefix + "stage_seconds",
            "Time spent in a stage; for `write`, mostly waiting for room in the insert queue.",
            "stage", self._seconds,
        )  # fmt: skip
        yield by_label(
            CounterMetricFamily, prefix + "errors",
            "Batches in which a stage failed by a fault of the exporter itself; see the log.",
            "stage", self._errors,
        )  # fmt: skip

    def _decode(self) -> None:
        saved = time.monotonic()
        try:
            for datagrams in self._receivers.batches(self._stop):
                decoded: Sequence[FlowBatch] = ()
                with self._stage("decode"):
                    decoded = self._decoder.decode(datagrams)
                for flows in decoded:
                    self._waiting.put(flows)
                if time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                    self._save()
                    saved = time.monotonic()
        except Exception:
            self._failed("receive")
        finally:
            self._waiting.close()
            self._save()

    def _save(self) -> None:
        with self._stage("save"):
            self._decoder.save()

    def _pass_on(self) -> None:
        while batches := self._waiting.take():
            flows = FlowBatch(0)
            with self._stage("merge"):
                flows = concat(batches)
            with self._stage("enrich"):
                self.enricher.enrich(flows)
            with self._stage("count"):
                self._counters.add(flows)
            with self._stage("write"):
                self._write(flows)
            self._flows += len(flows)
            self._batches += 1

    def _write(self, flows: FlowBatch) -> None:
        self._writing_since = time.monotonic()
        try:
            self._writer.write(flows)
        except WriterStoppedError:
            log.warning("%d flows came after the writer had stopped", len(flows))
        finally:
            self._writing_since = None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Counts time and errors. What fails in one batch may work in the next."""
        began = time.perf_counter()
        try:
            yield
        except Exception:
            self._failed(name)
        self._seconds[name] += time.perf_counter() - began

    def _failed(self, stage: str) -> None:
        self._errors[stage] += 1
        text = f"{stage} failed in a batch (logged once a minute)"
        error = sys.exception()
        if isinstance(error, OSError):  # the machine's fault (a full disk), not the code's
            self._log.error(stage, f"{text}: {error}")
        else:
            self._log.exception(stage, text)


class _HandOver:
    """Decoded batches that wait, bounded by flows."""

    def __init__(self) -> None:
        self.flows = 0
        self._batches: deque[FlowBatch] = deque()
        self._oldest = 0.0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, batch: FlowBatch) -> None:
        """Wait for room, then leave the batch; what comes after :meth:`close` still gets in."""
        if not len(batch):
            return
        with self._changed:
            self._changed.wait_for(lambda: self.flows < MAX_WAITING_FLOWS or self._closed)
            self._add(batch)

    def offer(self, batch: FlowBatch, seconds: float) -> bool:
        """Leave the batch if there is room within ``seconds``, and somebody to take it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.flows < MAX_WAITING_FLOWS or self._closed, timeout=seconds
            )
            if self._closed or self.flows >= MAX_WAITING_FLOWS:
                return False
            self._add(batch)
            return True

    def _add(self, batch: FlowBatch) -> None:
        if not self._batches:
            self._oldest = time.monotonic()
        self._batches.append(batch)
        self.flows += len(batch)
        self._changed.notify_all()

    def take(self) -> list[FlowBatch]:
        """Enough batches, or those that have waited enough; none when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._closed)
            while not self._closed and self.flows < BATCH_FLOWS:
                left = self._oldest + LINGER_SECONDS - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            taken: list[FlowBatch] = []
            flows = 0
            while self._batches and flows < BATCH_FLOWS:
                taken.append(self._batches.popleft())
                flows += len(taken[-1])
            self.flows -= flows
            self._oldest = time.monotonic()
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
