"""``python -m tests.bench.sustained``: minutes at one rate, from the sender to the table.

Packets of the flows of :mod:`tests.bench.traffic` go to ``flow-exporter run``, which writes to
``flow-exporter store`` with a spool behind it; nothing of the machine is set aside for anyone.
docs/reference/benchmarks.md says what the table shows.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from prometheus_client.parser import text_string_to_metric_families

from exporter.simulate.encode import NetFlow9Encoder
from tests.bench import receivers
from tests.bench.measure import Sender, running
from tests.bench.processes import cpu_seconds, memory_bytes, udp_socket
from tests.bench.report import machine, write_between
from tests.bench.traffic import Traffic
from tests.bench.workloads import UPTIME, Workload, flow_counts
from tests.support.stack import free_port

PAGE: Final = Path(__file__).parents[2] / "docs/reference/benchmarks.md"
BEGIN: Final = "<!-- sustained:begin -->"
END: Final = "<!-- sustained:end -->"
#: Flows that are sent round and round.
_FLOWS: Final = 1_000_000
#: Sent slowly at first, so that templates are known.
_SLOW_DATAGRAMS: Final = 100
_SAMPLE_SECONDS: Final = 1.0
#: Longest that the store may need to take what has been sent.
_LIMIT_SECONDS: Final = 300.0


@dataclass
class Sustained:
    """What came of sending at one rate; ``behind`` in flows, sizes in bytes."""

    seconds: float = 0.0
    sent: int = 0
    stored: int = 0
    kernel_drops: int = 0
    cpu: tuple[float, float] = (0.0, 0.0)
    #: Resident memory of collector and store, sample by sample.
    memory: list[tuple[int, int]] = field(default_factory=list)
    #: Sent and not stored yet, sample by sample.
    behind: list[int] = field(default_factory=list)
    spool_bytes: int = 0
    drained_seconds: float = 0.0


def workload(flows: int) -> Workload:
    """NetFlow v9 packets of one device, whose flows repeat themselves as real ones do."""
    now = int(time.time()) * 1000
    batch = Traffic().flows(flows, begin=now - 2000, milliseconds=2000)
    datagrams = NetFlow9Encoder(boot=now - UPTIME).encode(batch, now)
    counts = flow_counts(datagrams, flows)
    before = np.concatenate([[0], np.cumsum(counts)])
    assert before[-1] == flows
    senders = np.zeros(len(datagrams), np.int64)
    return Workload("sustained", datagrams, senders, before, int(batch.array("bytes").sum()), now)


def sustain(flows_per_second: float, minutes: float) -> Sustained:
    """Send for so long at that rate, then wait until everything is stored.

    Raises:
        AssertionError: the sender could not keep the rate, so that nothing was measured.
    """
    made = workload(_FLOWS)
    result = Sustained()
    http = free_port(socket.SOCK_STREAM)
    per_datagram = made.flows / len(made.datagrams)
    last = _SLOW_DATAGRAMS + int(flows_per_second * minutes * 60 / per_datagram)
    with tempfile.TemporaryDirectory(prefix="flow-bench-") as folder:
        file, spool = Path(folder) / "workload.npz", Path(folder) / "spool"
        made.save(file)
        sections: dict[str, dict[str, object]] = {
            "http": {"port": http},
            "clickhouse": {"spool": {"directory": str(spool)}},
        }
        with (
            running(lambda at: receivers.collector(at, sections)) as up,
            Sender(file) as sender,
            ThreadPoolExecutor(1) as thread,
        ):
            sender.send(up.port, 0, _SLOW_DATAGRAMS, 500)
            cpu = [cpu_seconds(pid) for pid in up.processes]
            rate = flows_per_second / per_datagram
            sending = thread.submit(sender.send, up.port, _SLOW_DATAGRAMS, last, rate)
            began = time.monotonic()
            while not sending.done():
                wait([sending], _SAMPLE_SECONDS)
                at = min(last, _SLOW_DATAGRAMS + int((time.monotonic() - began) * rate))
                _sample(result, up.processes, http, _flows_until(made, at))
            result.seconds = sending.result()
            result.sent = _flows_until(made, last)
            result.drained_seconds = _drain(result, up.processes, http)
            used = [cpu_seconds(pid) for pid in up.processes]
            result.cpu = (used[0] - cpu[0], used[1] - cpu[1])
            result.kernel_drops = udp_socket(up.port)[1]
            result.stored = up.finish()
    offered = flows_per_second * minutes * 60
    assert offered / result.seconds > 0.95 * flows_per_second, (
        f"the sender managed {offered / result.seconds:,.0f} flows/s only"
    )
    return result


def _flows_until(made: Workload, datagrams: int) -> int:
    rounds, rest = divmod(datagrams, len(made.datagrams))
    return rounds * made.flows + int(made.flows_before[rest])


def _sample(result: Sustained, processes: tuple[int, ...], http: int, sent: int) -> int:
    """Look at memory, spool, and how far the store is behind what has been ``sent``."""
    collector, store = processes
    values = _metrics(http)
    stored = int(values["flow_exporter_insert_rows_total"])
    result.memory.append((memory_bytes(collector), memory_bytes(store)))
    result.behind.append(max(0, sent - stored))
    spool = int(values["flow_exporter_spool_bytes"])
    result.spool_bytes = max(result.spool_bytes, spool)
    return stored


def _drain(result: Sustained, processes: tuple[int, ...], http: int) -> float:
    """Seconds until what was sent is stored, or nothing more comes."""
    began = changed = time.monotonic()
    before = -1
    while (now := time.monotonic()) - began < _LIMIT_SECONDS:
        stored = _sample(result, processes, http, result.sent)
        if stored >= result.sent:
            return now - began
        if stored != before:
            before, changed = stored, now
        elif now - changed > 30.0:
            break
        time.sleep(0.2)
    return time.monotonic() - began


def _metrics(port: int) -> dict[str, float]:
    """Values by name; of several of one name (tables) that of ``flows``."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("table", "flows") == "flows"
    }


def markdown(found: Sustained, rate: float, load_before: float) -> str:
    """The table of the page."""
    collector, store = (seconds / found.sent * 1e6 for seconds in found.cpu)
    half = len(found.memory) // 2
    lost = found.sent - found.stored
    waiting = f"{np.median(found.behind):,.0f}, {max(found.behind):,}"
    rows = [
        ("sent, flows", f"{found.sent:,} in {found.seconds:.0f} s"),
        ("stored, flows", f"{found.stored:,}"),
        ("lost, flows", f"{lost:,} ({lost / found.sent:.3%})"),
        ("dropped by the kernel, datagrams", f"{found.kernel_drops:,}"),
        ("sent and not stored yet: median, most", waiting),
        ("all stored after the last packet", f"{found.drained_seconds:.1f} s"),
        ("most in the spool", f"{found.spool_bytes / 1e6:,.0f} MB"),
        ("CPU of collector, store", f"{collector:.2f}, {store:.2f} c/M"),
        ("CPU of both", f"{collector + store:.2f} c/M"),
        ("most memory of collector + store", _megabytes(found.memory)),
        ("the same, in the second half", _megabytes(found.memory[half:])),
    ]
    title = f"### {rate / 1e6:g} M flows/s for {found.seconds / 60:.1f} minutes"
    lines = [f"Measured on {machine()}, load before the run {load_before:.1f}.", "", title, ""]
    return "\n".join([*lines, "|  | |", "|---|---:|", *(f"| {a} | {b} |" for a, b in rows)])


def _megabytes(samples: list[tuple[int, int]]) -> str:
    return " + ".join(f"{size / 1e6:,.0f}" for size in max(samples, key=sum)) + " MB"


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 2,
    rate: Annotated[float, typer.Option(help="Flows per second.")] = 200_000,
    update_docs: Annotated[
        bool, typer.Option(help="Write the table into docs/reference/benchmarks.md.")
    ] = False,
) -> None:
    """Send at one rate for minutes, and tell what was stored, lost, late, and what it cost."""
    load_before = os.getloadavg()[0]
    found = sustain(rate, minutes)
    text = markdown(found, rate, load_before)
    print(text)
    if update_docs:
        write_between(PAGE, BEGIN, END, text)
    if found.stored != found.sent:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
