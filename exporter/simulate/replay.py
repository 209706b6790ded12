"""Sending the datagrams of capture files again."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from exporter.receive.captures import Report
from exporter.receive.files import read_datagrams

#: Senders of a capture that stay apart; more of them share sockets.
_MAX_SOCKETS: Final = 1000
_SEND_BUFFER_BYTES: Final = 4 << 20
#: Shorter waits are skipped: sleeping takes about as long.
_SHORTEST_WAIT_SECONDS: Final = 0.0005


@dataclass(slots=True)
class Sent:
    """What was sent so far."""

    datagrams: int = 0
    bytes: int = 0
    senders: int = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """When datagrams leave: as captured, ``speed`` times as fast, or by a fixed ``rate``.

    A ``rate`` (datagrams per second) overrides ``speed``; ``speed`` 0 does not wait at all.
    """

    speed: float = 1.0
    rate: float = 0.0


def replay(
    files: Iterable[Path],
    target: tuple[str, int],
    pace: Pace,
    *,
    ports: Container[int] | None = None,
    stop: threading.Event,
    report: Report,
) -> Sent:
    """Send the UDP payloads of ``files``, one file after the other, to ``target``.

    With ``ports`` only datagrams that were captured on the way to one of these (raw files have
    no ports and are sent). Each file begins at once; within it the pace counts from its first
    datagram.

    Raises:
        exporter.receive.captures.FileError: a file cannot be read at all.
        OSError: sending failed; on this machine also when nobody listens.
    """
    sent = Sent()
    begin = time.monotonic()
    with _Senders(target) as senders:
        for path in files:
            first: int | None = None
            begin_file = time.monotonic()
            for datagram in read_datagrams(path, report):
                if ports and datagram.destination_port and datagram.destination_port not in ports:
                    continue
                if first is None:
                    first = datagram.time_received
                if pace.rate:
                    due = begin + sent.datagrams / pace.rate
                elif pace.speed:
                    due = begin_file + (datagram.time_received - first) / 1000 / pace.speed
                else:
                    due = 0.0
                wait = due - time.monotonic()
                if wait > _SHORTEST_WAIT_SECONDS:
                    stop.wait(wait)
                if stop.is_set():
                    return sent
                senders.of((datagram.sender, datagram.port)).send(datagram.payload)
                sent.datagrams += 1
                sent.bytes += len(datagram.payload)
                sent.senders = len(senders)
    return sent


class _Senders:
    """A socket for each sender of the capture.

    To a target on this machine, each sending address of the capture gets a loopback address of
    its own, so that the collector sees as many devices as there were.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        address = ipaddress.ip_address(target[0])
        self._family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self._own_addresses = (
            address.version == 4 and address.is_loopback and sys.platform.startswith("linux")
        )
        self._sockets: dict[tuple[bytes, int], socket.socket] = {}
        self._addresses: dict[bytes, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets.values():
            sock.close()

    def __len__(self) -> int:
        return len(self._sockets)

    def of(self, sender: tuple[bytes, int]) -> socket.socket:
        """The socket that stands for an address and port of the capture."""
        found = self._sockets.get(sender)
        if found is None:
            if len(self._sockets) >= _MAX_SOCKETS:
                return next(iter(self._sockets.values()))
            found = self._sockets[sender] = self._open(sender[0])
        return found

    def _open(self, address: bytes) -> socket.socket:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(self._family, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            if self._own_addresses and any(address):
                number = len(self._addresses) + 1
                own = self._addresses.setdefault(address, f"127.88.{number >> 8}.{number & 255}")
                sock.bind((own, 0))
            sock.connect(self._target)
            undo.pop_all()
            return sock
