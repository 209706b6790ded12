"""Processes to be measured: CPU time and memory of whole trees, and what their sockets lost."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(*roots: int) -> float:
    """User and system time of these processes, their descendants and their ended children.

    To the nanosecond where no thread has ended, else to the kernel's tick of a hundredth of a
    second.
    """
    used = 0.0
    for pid, fields in _tree(roots).items():
        ticks = sum(map(int, fields[11:15])) / _TICKS
        threads = 0
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                threads += int(task.read_text().split()[0])
        used += max(ticks, threads / 1e9)
    return used


def memory_bytes(*roots: int) -> int:
    """Resident memory of these processes and their descendants."""
    return sum(int(fields[21]) * _PAGE for fields in _tree(roots).values())


def most_memory_bytes(pid: int) -> int:
    """The most that this process has had resident so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _tree(roots: tuple[int, ...]) -> dict[int, list[str]]:
    """The fields of ``/proc/PID/stat`` from the state on, by process."""
    fields: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name, in brackets, may hold anything: count from behind it.
                stat = (entry / "stat").read_text()
                fields[int(entry.name)] = stat.rpartition(")")[2].split()
    chosen = {pid for pid in roots if pid in fields}
    while True:
        children = {pid for pid in fields if int(fields[pid][1]) in chosen} - chosen
        if not children:
            return {pid: fields[pid] for pid in chosen}
        chosen |= children


def udp_socket(port: int) -> tuple[int, int]:
    """Bytes that wait in the socket of this port on loopback, and datagrams that it lost."""
    for row in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = row.split()
        if int(fields[1].split(":")[1], 16) == port:
            return int(fields[4].split(":")[1], 16), int(fields[12])
    raise ProcessLookupError(f"nobody listens on UDP port {port}")


def settle(
    roots: tuple[int, ...], port: int, *, idle_seconds: float, limit_seconds: float = 30.0
) -> None:
    """Until the socket is empty and the processes use next to no CPU for ``idle_seconds``."""
    deadline = time.monotonic() + limit_seconds
    used, since = cpu_seconds(*roots), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = cpu_seconds(*roots)
        if now - used > 0.02 or udp_socket(port)[0]:
            used, since = now, time.monotonic()
        elif time.monotonic() - since >= idle_seconds:
            return
