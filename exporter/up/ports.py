"""Ports that others may have taken already, or may take before we come to use them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from exporter.config import Config, UdpListener
from exporter.up.errors import UpError

LOOPBACK: Final = "127.0.0.1"
_TRIED: Final = 100


class HeldPorts:
    """TCP ports on loopback, kept from everybody else until the child starts that listens there.

    Some children start minutes after their port was told to others. Between its release and the
    child's listening a port looks free: other runs leave it alone as long as this context lasts.
    """

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._claims: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in list(self._held):
            self.release(child)
        while self._claims:
            self._claims.pop().close()

    def pick(self, child: str, preferred: int) -> int:
        """``preferred`` if it is free, else the next free one, for the child of that name.

        Raises:
            OSError: none of the next hundred is free.
        """
        for port in range(preferred, preferred + _TRIED):
            try:
                claim = _claim(port)
            except OSError:
                continue
            try:
                # Listening, since two that are only bound may share a port.
                held = socket.create_server((LOOPBACK, port))
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            self._held.setdefault(child, []).append(held)
            return int(held.getsockname()[1])
        last = preferred + _TRIED - 1
        raise OSError(f"no free TCP port from {preferred} to {last} on {LOOPBACK}")

    def release(self, child: str) -> None:
        """Let the child have its ports: just before it starts."""
        for held in self._held.pop(child, []):
            held.close()


def _claim(port: int) -> socket.socket:
    """What tells other runs that the port is ours, until it is closed or this process ends.

    A name in Linux's abstract namespace, which is the network's, as ports are.

    Raises:
        OSError: another run has it.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0flow-exporter/port/{port}")
    except OSError:
        claim.close()
        raise
    return claim


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on loopback, by the child that listens there."""

    store: int
    collector: int
    prometheus: int
    alertmanager: int
    grafana: int
    demo: int

    @classmethod
    def choose(cls, config: Config, held: HeldPorts) -> Ports:
        """The usual port of each part, moved on where somebody else listens."""
        usual = {
            "store": 8123,
            "collector": config.http.port,
            "prometheus": 9090,
            "alertmanager": 9093,
            "grafana": 3000,
            "demo": 9106,
        }
        return cls(**{child: held.pick(child, port) for child, port in usual.items()})


def check_udp(listeners: Iterable[UdpListener]) -> None:
    """Look whether the collector can listen there, before minutes are spent on anything else.

    Raises:
        exporter.up.errors.UpError: another program does; devices send there, so it cannot move.
    """
    for listener in listeners:
        family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((listener.address, listener.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    continue  # the collector says it better
                raise UpError(
                    f"another program listens on UDP port {listener.port} of {listener.address}: "
                    "end it, or name other ports under receive.udp in a --config file"
                ) from error
