"""The sending process: ``python -m tests.bench.sender FILE ADDRESS DEVICES``.

Reads ``PORT FIRST LAST DATAGRAMS_PER_SECOND`` lines from standard input, sends those datagrams
(round and round where ``LAST`` is beyond the file) to that port evenly, each device from an address
of its own, which begins with ``DEVICES``, and answers each line with the seconds that it took.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

#: Datagrams sent without looking at the clock.
_BURST = 16


def main(path: Path, address: str, devices: str) -> None:
    with np.load(path) as saved:
        flat = saved["payload"].tobytes()
        ends = np.cumsum(saved["lengths"])
        senders = saved["senders"].tolist()
    datagrams = [flat[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
    ports: dict[int, list[Callable[[bytes], int]]] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        port, first, last, rate = line.split()
        if int(port) not in ports:
            ports[int(port)] = _sends(address, int(port), devices, senders)
        seconds = _send(datagrams, ports[int(port)], int(first), int(last), float(rate))
        print(seconds, flush=True)


def _sends(
    address: str, port: int, devices: str, senders: list[int]
) -> list[Callable[[bytes], int]]:
    """What sends each datagram to that port from its device."""
    sockets = []
    for number in range(max(senders) + 1):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((f"{devices}.{number + 1}", 0))
        sender.connect((address, port))
        sockets.append(sender)
    return [sockets[number].send for number in senders]


def _send(
    datagrams: list[bytes],
    sends: list[Callable[[bytes], int]],
    first: int,
    last: int,
    rate: float,
) -> float:
    size = len(datagrams)
    begin = time.perf_counter()
    at = first
    while at < last:
        due = first + int((time.perf_counter() - begin) * rate)
        if due <= at:
            time.sleep(min(0.001, (at + _BURST - due) / rate))
            continue
        for number in range(at, min(due, at + _BURST, last)):
            sends[number % size](datagrams[number % size])
        at = min(due, at + _BURST, last)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
