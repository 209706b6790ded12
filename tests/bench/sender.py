"""The sending process: ``python -m tests.bench.sender FILE ADDRESS PORT DEVICES``.

Reads ``FIRST LAST DATAGRAMS_PER_SECOND`` lines from standard input, sends those datagrams (round
and round where ``LAST`` is beyond the file) evenly, each device from an address of its own, which
begins with ``DEVICES``, and answers each line with the seconds that it took.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import numpy as np

#: Datagrams sent without looking at the clock.
_BURST = 16


def main(path: Path, address: str, port: int, devices: str) -> None:
    with np.load(path) as saved:
        flat = saved["payload"].tobytes()
        ends = np.cumsum(saved["lengths"])
        senders = saved["senders"].tolist()
    datagrams = [flat[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
    sockets = []
    for number in range(max(senders) + 1):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((f"{devices}.{number + 1}", 0))
        sender.connect((address, port))
        sockets.append(sender)
    sends = [sockets[number].send for number in senders]
    print("ready", flush=True)
    for line in sys.stdin:
        first, last, rate = line.split()
        print(_send(datagrams, sends, int(first), int(last), float(rate)), flush=True)


def _send(datagrams: list, sends: list, first: int, last: int, rate: float) -> float:  # type: ignore[type-arg]
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
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
