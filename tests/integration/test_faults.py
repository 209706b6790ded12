"""Flows under way while the store, or the collector, is killed, stopped, slowed, filled, locked.

A sender counts what it sends; in the end that is what is stored, in every table, and nothing twice.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.batch import FlowBatch
from exporter.simulate.encode import NetFlow5Encoder
from tests.support.collector import RunningCollector
from tests.support.flows import random_flows
from tests.support.mounts import fill, read_only, small_disk
from tests.support.peers import queue_empty
from tests.support.stack import until
from tests.support.store import RunningStore

FLOWS_PER_SECOND = 2800
TICK = 0.1
BATCH_SECONDS = 0.5
DATABASE = "faults"
FLOWS_OF_A_DATAGRAM = 28

_COLUMNS = (
    "time_flow_start", "time_flow_end", "bytes", "packets", "src_addr", "dst_addr", "etype",
    "proto", "src_port", "dst_port", "in_if", "out_if",
)  # fmt: skip


class Sender:
    """A device that sends flows at a steady rate; the flow's number is its count of bytes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._sending = threading.Lock()
        self.flows = 0

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def paused(self) -> AbstractContextManager[object]:
        """Nothing is sent, and ``flows`` have been, for the length of a block."""
        return self._sending

    def total(self) -> tuple[int, int]:
        """Sum of bytes, and flows."""
        return self.flows * (self.flows + 1) // 2, self.flows

    def _run(self) -> None:
        encoder = NetFlow5Encoder(boot=(int(time.time()) - 3600) * 1000)
        size = int(FLOWS_PER_SECOND * TICK)
        due = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not self._stop.is_set():
                now = int(time.time() * 1000)
                made = random_flows(size, seed=self.flows, now=now)
                flows = FlowBatch(size, {name: made.columns[name] for name in _COLUMNS})
                numbers = np.arange(self.flows + 1, self.flows + size + 1, dtype=np.uint64)
                flows.columns["bytes"] = numbers
                with self._sending:
                    for datagram in encoder.encode(flows, now):
                        out.sendto(datagram, ("127.0.0.1", self._port))
                    self.flows += size
                # What was not sent in time is not made up for.
                due = max(due + TICK, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))


@dataclass
class System:
    """A store on a disk of its own, a collector with a spool, and a sender."""

    disk: Path
    store: RunningStore
    collector: RunningCollector
    sender: Sender

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.store.ask(DATABASE, sql)

    def stored(self, table: str = "flows") -> tuple[int, int]:
        """The same as :meth:`Sender.total`."""
        flows = "count()" if table == "flows" else "sum(flows)"
        return self.ask(f"SELECT sum(bytes), {flows} FROM {table}")[0]  # type: ignore[return-value]

    @contextmanager
    def failing(self) -> Iterator[Callable[[], None]]:
        """A fault that must make inserts fail, and pass; what is given waits until one failed."""
        failures = "flow_exporter_insert_failures_total"
        before = self.collector.metric(failures)
        yield lambda: until(
            "the fault is felt", 60, lambda: self.collector.metric(failures) > before
        )
        empty = "flow_exporter_spool_batches"

        def recovered() -> bool:
            return self.collector.metric(empty) == 0

        try:
            until("recovery", 20, recovered)
        except AssertionError:
            with self.sender.paused():  # a busy machine does not keep up with it
                until("recovery", 90, recovered)

    def handed_on(self) -> bool:
        """Whether all that was sent and received is in the store or in the spool."""
        metric = self.collector.metric
        counted = metric("flow_device_flows_total")
        return (
            queue_empty(self.collector.flows)
            and counted == FLOWS_OF_A_DATAGRAM * metric("flow_exporter_receive_packets_total")
            and counted
            == metric("flow_exporter_insert_rows_total", table="flows")
            + metric("flow_exporter_spool_spooled_rows_total")
            - metric("flow_exporter_spool_replayed_rows_total")
        )

    def drained(self) -> bool:
        """Whether everything has been written."""
        metric = self.collector.metric
        return (
            metric("flow_exporter_insert_queue_rows") == 0
            and metric("flow_exporter_spool_batches") == 0
            and metric("flow_device_flows_total") == self.sender.flows
            and metric("flow_exporter_insert_rows_total") >= self.sender.flows
        )


@contextmanager
def running_system(folder: Path, disk: Path) -> Iterator[System]:
    with RunningStore(disk / "store") as store:
        clickhouse = {
            "batch_seconds": BATCH_SECONDS,
            "batch_rows": 3000,
            "queue_batches": 4,
            "insert_timeout_seconds": 5,
            "spool": {"directory": str(folder / "spool")},
        }
        config = {"clickhouse": clickhouse}
        with (
            RunningCollector(folder, store, DATABASE, config) as collector,
            Sender(collector.flows) as sender,
        ):
            yield System(disk, store, collector, sender)


def kill_and_restart(system: System, felt: Callable[[], None]) -> None:
    system.store.kill()
    felt()
    system.store.start()


def stop_and_go_on(system: System, felt: Callable[[], None]) -> None:
    """Longer than an insert may take: the same insert runs twice at once when it goes on."""
    os.kill(system.store.pid, signal.SIGSTOP)
    felt()
    time.sleep(1)
    os.kill(system.store.pid, signal.SIGCONT)


def fill_the_disk(system: System, felt: Callable[[], None]) -> None:
    ended = threading.Event()

    def keep_full() -> None:
        while not ended.is_set():
            fill(system.disk)
            ended.wait(0.2)

    filling = threading.Thread(target=keep_full)
    filling.start()
    try:
        felt()
    finally:
        ended.set()
        filling.join()
    fill(system.disk).unlink()


def lock_the_disk(system: System, felt: Callable[[], None]) -> None:
    with read_only(system.disk / "store" / "data"):
        felt()


def slow_down(system: System) -> None:
    """A tenth of the time is left to it."""
    for _ in range(10):
        os.kill(system.store.pid, signal.SIGSTOP)
        time.sleep(0.27)
        os.kill(system.store.pid, signal.SIGCONT)
        time.sleep(0.03)


def test_whatever_happens_to_the_store_what_was_sent_is_stored_once(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "300m") as disk,
        running_system(tmp_path, disk) as system,
    ):
        metric = system.collector.metric
        time.sleep(1)
        for fault in (kill_and_restart, stop_and_go_on, fill_the_disk, lock_the_disk):
            with system.failing() as felt:
                fault(system, felt)
        slow_down(system)
        for _ in range(2):
            kill_and_restart(system, lambda: time.sleep(1))
            system.store.restart()
        system.sender.stop()
        until("everything written", 90, system.drained)
        for table in ("flows", "flows_1m", "flows_1h"):
            assert system.stored(table) == system.sender.total(), table
        assert system.ask("SELECT uniqExact(bytes) FROM flows")[0][0] == system.sender.flows
        # Devices and Prometheus have noticed nothing.
        assert metric("flow_exporter_insert_blocked_seconds_total") == 0
        assert metric("flow_exporter_receive_kernel_drops_total") == 0
        assert metric("flow_exporter_spool_dropped_rows_total") == 0
        assert metric("flow_exporter_insert_refused_rows_total") == 0


def kill_collector(system: System) -> tuple[int, int]:
    """Kill it and start it again; between which flows there may be losses."""
    with system.sender.paused():
        until("all flows handed on", 30, system.handed_on)
        first = system.sender.flows
    # A flow waits for the others of its batch, and the batch for being written.
    time.sleep(BATCH_SECONDS + 0.5)
    system.collector.stop(signal.SIGKILL)
    system.collector.start(ready=False)
    with system.sender.paused():
        return first, system.sender.flows


def test_a_collector_that_is_killed_loses_what_it_had_not_handed_on_yet(tmp_path: Path) -> None:
    """Flows of less than a batch's time, and those that nobody received; nothing twice."""
    with running_system(tmp_path, tmp_path) as system:
        time.sleep(2)
        lost = [kill_collector(system)]
        time.sleep(1.5)
        system.store.kill()
        time.sleep(2)
        lost.append(kill_collector(system))
        spooled = system.collector.metric
        until("a spool", 60, lambda: spooled("flow_exporter_spool_rows") > 0.5 * FLOWS_PER_SECOND)
        system.store.start()
        system.sender.stop()
        empty = "flow_exporter_spool_batches"
        until("everything written", 90, lambda: system.collector.metric(empty) == 0)
        assert system.collector.stop() == 0
        count, distinct, last = system.ask(
            "SELECT count(), uniqExact(bytes), max(bytes) FROM flows"
        )[0]
        assert count == distinct
        assert last == system.sender.flows
        for table in ("flows_1m", "flows_1h"):
            assert system.stored(table) == system.stored(), table
        windows = " OR ".join(f"(bytes > {first} AND bytes <= {end})" for first, end in lost)
        kept = system.ask(f"SELECT count() FROM flows WHERE NOT ({windows})")[0][0]
        assert kept == system.sender.flows - sum(end - first for first, end in lost)
