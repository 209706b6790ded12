"""The measurements: cost of a flow, highest rate without loss, memory."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import cpu_seconds, memory_bytes, settle, udp_socket
from tests.bench.receivers import LOOPBACK, ROOT, Receiver, Starter
from tests.bench.workloads import KINDS, Workload, build

#: Flows of the warm-up that are sent slowly, so that templates are known.
_SLOW_FLOWS = 2000
#: Longest that a socket may take to empty after the last datagram for a rate to count as kept.
_BACKLOG_SECONDS = 1.0
#: So long must a receiver be idle to have nothing in its hands: our own gathers for half a second.
IDLE_SECONDS = 1.5
#: Until then the collector has stored its first flows and looked at what it looks at by the clock.
_IDLE_WARM_UP_SECONDS = 10.0


@dataclass(frozen=True)
class Way:
    """How packets get to the receiver.

    That is the address that it listens on, what the addresses of devices begin with, and what the
    sending process is started by.
    """

    address: str = LOOPBACK
    devices: str = "127.0.1"
    command: tuple[str, ...] = ()


ON_LOOPBACK = Way()


@dataclass(frozen=True)
class Cost:
    """CPU seconds per million flows that came out; ``offered`` flows a second, 0 from memory.

    ``flows_per_second`` is what was reached. ``cpu_per_million`` is the median of ``turns``.
    """

    workload: str
    receiver: str
    offered: float
    flows_per_second: float
    cpu_per_million: float
    lost: float
    turns: tuple[float, ...] = ()


@dataclass(frozen=True)
class Peak:
    """The highest rate at which one core lost nothing; ``limited``: the sender could no more."""

    workload: str
    receiver: str
    flows_per_second: float
    limited: bool


@dataclass(frozen=True)
class Memory:
    """Resident memory after that many devices have sent."""

    receiver: str
    devices: int
    megabytes: float


@dataclass(frozen=True)
class Idle:
    """The part of one core that a receiver takes at so few packets."""

    receiver: str
    packets_per_second: float
    cores: float


class Sender:
    """The sending process for one workload, to any port."""

    def __init__(self, file: Path, way: Way = ON_LOOPBACK) -> None:
        argv = [*way.command, sys.executable, "-m", "tests.bench.sender", str(file)]
        self._process = subprocess.Popen(
            [*argv, way.address, way.devices],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self._line()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def send(self, port: int, first: int, last: int, datagrams_per_second: float) -> float:
        """Send those datagrams evenly; the seconds it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {first} {last} {datagrams_per_second}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def running(starter: Starter) -> Iterator[Receiver]:
    """A receiver with a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="flow-bench-") as folder, starter(Path(folder)) as up:
        yield up


def decode_cost(workload: Workload, file: Path) -> Cost:
    """Our decoders alone, from memory, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.ours", "decode", str(file)],
        capture_output=True, check=True, text=True, cwd=ROOT,
    )  # fmt: skip
    result = json.loads(done.stdout)
    if result["bytes"] != workload.bytes:
        raise AssertionError(f"{workload.name}: decoded {result['bytes']}, not {workload.bytes}")
    flows = result["flows"]
    seconds = result["seconds"]
    return Cost(workload.name, "decode alone", 0.0, flows / seconds, seconds / flows * 1e6, 0.0)


@dataclass(frozen=True)
class Load:
    """What a receiver is sent: flows to warm up with, then as many more in each of its turns."""

    starter: Starter
    flows: int
    warm_up_flows: int
    flows_per_second: float
    turns: int
    idle_seconds: float = IDLE_SECONDS

    def flows_until(self, turn: int) -> int:
        """How many flows have been sent when this turn, from 0 on, begins."""
        return self.warm_up_flows + turn * self.flows


def receive_costs(
    workload: Workload, file: Path, loads: Mapping[str, Load], way: Way = ON_LOOPBACK
) -> list[Cost]:
    """All receivers are up at once and get the next flows of the workload in turns, evenly.

    So whatever slows the machine for some seconds meets all alike.
    """
    used: dict[str, list[float]] = {name: [] for name in loads}
    seconds = dict.fromkeys(loads, 0.0)
    with ExitStack() as stack:
        up = {name: stack.enter_context(running(load.starter)) for name, load in loads.items()}
        sender = stack.enter_context(Sender(file, way))

        def send(name: str, first: int, last: int, rate: float) -> float:
            took = sender.send(up[name].port, first, last, rate)
            settle(up[name].processes, up[name].port, idle_seconds=loads[name].idle_seconds)
            return took

        for name, load in loads.items():
            slow, first = workload.until(_SLOW_FLOWS), workload.until(load.warm_up_flows)
            sender.send(up[name].port, 0, slow, 500)
            send(name, slow, first, workload.datagrams_per_second(load.flows_per_second))
        for turn in range(max(load.turns for load in loads.values())):
            for name, load in loads.items():
                if turn < load.turns:
                    first, last = (workload.until(load.flows_until(at)) for at in (turn, turn + 1))
                    rate = workload.datagrams_per_second(load.flows_per_second)
                    before = cpu_seconds(*up[name].processes)
                    seconds[name] += send(name, first, last, rate)
                    used[name].append(cpu_seconds(*up[name].processes) - before)
        came_out = {name: receiver.finish() for name, receiver in up.items()}
    costs = []
    for name, load in loads.items():
        warm_up, sent = (
            int(workload.flows_before[workload.until(load.flows_until(turn))])
            for turn in (0, load.turns)
        )
        measured = max(0, came_out[name] - warm_up) / load.turns
        turns = tuple(one / measured * 1e6 if measured else float("nan") for one in used[name])
        costs.append(Cost(
            workload.name, name, load.flows_per_second, (sent - warm_up) / seconds[name],
            statistics.median(turns), 1 - came_out[name] / sent, turns,
        ))  # fmt: skip
    return costs


@contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    """What is started here runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peak_rate(
    workload: Workload, file: Path, name: str, starter: Starter, *, start: float, seconds: float
) -> Peak:
    """Half as fast again until something is lost, then closer from below.

    The receiver has one core, the sender the others.
    """
    flows_per_datagram = workload.flows / len(workload.datagrams)
    best, limited, at = 0.0, False, 0
    low, high, rate = 0.0, 0.0, start
    core, *others = sorted(os.sched_getaffinity(0), reverse=True)
    with ExitStack() as stack:
        with _on_cores({core}):
            receiver = stack.enter_context(running(starter))
        with _on_cores(set(others) or {core}):
            sender = stack.enter_context(Sender(file))
        # Everyone learns the templates first.
        at = min(50, len(workload.datagrams))
        sender.send(receiver.port, 0, at, 1000)
        while not high or high / max(low, 1) > 1.1:
            count = int(rate * seconds / flows_per_datagram)
            drops = udp_socket(receiver.port)[1]
            took = sender.send(receiver.port, at, at + count, rate / flows_per_datagram)
            at += count
            kept = _emptied(receiver.port) and udp_socket(receiver.port)[1] == drops
            settle(receiver.processes, receiver.port, idle_seconds=IDLE_SECONDS)
            achieved = count * flows_per_datagram / took
            if kept:
                low = best = max(best, achieved)
            else:
                high = achieved
            if kept and achieved < 0.9 * rate:
                limited = True
                break
            rate = (low + high) / 2 if high and low else (rate * 1.5 if kept else rate / 2)
            if rate < 1000:
                break
    return Peak(workload.name, name, best, limited)


def _emptied(port: int) -> bool:
    deadline = time.monotonic() + _BACKLOG_SECONDS
    while time.monotonic() < deadline:
        if not udp_socket(port)[0]:
            return True
        time.sleep(0.01)
    return False


def memory(name: str, starter: Starter, devices: tuple[int, ...]) -> list[Memory]:
    """Resident memory after 1, then more devices have each sent templates and some flows."""
    kind = next(kind for kind in KINDS if kind.name == "netflow9 IPv4")
    datagrams = build(kind, 300).datagrams
    results = []
    with running(starter) as receiver:
        known = 0
        for count in devices:
            for number in range(known, count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
                    device.bind((f"127.2.{number // 250}.{number % 250 + 1}", 0))
                    for datagram in datagrams:
                        device.sendto(datagram, ("127.0.0.1", receiver.port))
                if number % 20 == 19:
                    time.sleep(0.01)
            known = count
            settle(receiver.processes, receiver.port, idle_seconds=IDLE_SECONDS)
            megabytes = memory_bytes(*receiver.processes) / 1e6
            results.append(Memory(name, count, megabytes))
    return results


def idle_cost(name: str, starter: Starter, *, packets_per_second: float, seconds: float) -> Idle:
    """What next to no traffic costs, after a while of the same: so, too, what runs by the clock."""
    kind = next(kind for kind in KINDS if kind.name == "netflow9 IPv4")
    with tempfile.TemporaryDirectory(prefix="flow-bench-") as folder:
        file = Path(folder) / "workload.npz"
        build(kind, 20_000).save(file)  # goes round and round
        with running(starter) as receiver, Sender(file) as sender:
            warm_up = int(packets_per_second * _IDLE_WARM_UP_SECONDS)
            sender.send(receiver.port, 0, warm_up, packets_per_second)
            before = cpu_seconds(*receiver.processes)
            last = warm_up + int(packets_per_second * seconds)
            took = sender.send(receiver.port, warm_up, last, packets_per_second)
            used = cpu_seconds(*receiver.processes) - before
    return Idle(name, packets_per_second, used / took)
