"""Where servers listen, and the TCP connections that there may be, in all and from one host.

Connections are counted where they are accepted: whoever never shakes hands has one, too.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Final, Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.logs import RareLog
from exporter.metric_families import by_label
from exporter.places import Host, Places, host_of

log = logging.getLogger(__name__)

_ADVICE: Final = {
    errno.EADDRINUSE: ": another program listens there, `ss -lntup` tells which",
    errno.EADDRNOTAVAIL: ": no interface of this machine has that address",
    errno.EACCES: ": ports below 1024 take the capability CAP_NET_BIND_SERVICE",
}


def cannot_listen(where: str, error: OSError) -> str:
    """What to say where it cannot be listened, and what to do about it."""
    # Python adds to the words of the system; of names that mean no address it has its own.
    known = error.errno in _ADVICE
    reason = os.strerror(error.errno) if known and error.errno else error.strerror or str(error)
    return f"cannot listen on {where}: {reason}{_ADVICE.get(error.errno or 0, '')}"


class Connections(Collector):
    """Which connections there are: at most ``total``, and ``each`` of one host other than this.

    ``prefix`` begins the names of the metrics. Thread-safe.
    """

    def __init__(self, prefix: str, *, total: int, each: int) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._places = Places(total=total, each=each)
        self._refused = {"host": 0, "total": 0}
        self._log = RareLog(log)

    def enter(self, address: str) -> Host:
        """Count a connection from this address, until :meth:`leave`.

        Raises:
            ConnectionAbortedError: there are too many.
        """
        host = host_of(address)
        with self._lock:
            reason = self._places.take(host)
            if reason is None:
                return host
            self._refused[reason] += 1
            most = self._places.most(reason)
        what = "that this host may have" if reason == "host" else "that there may be"
        self._log.warning(
            f"{self._prefix} {reason}",
            f"a connection from {address} was refused: all {most} {what} are open",
        )
        raise ConnectionAbortedError(reason)

    def leave(self, host: Host) -> None:
        """A connection from there has ended."""
        with self._lock:
            self._places.leave(host)

    def collect(self) -> Iterator[Metric]:
        """``…_connections`` and ``…_refused_connections_total``."""
        with self._lock:
            number, refused = len(self._places), dict(self._refused)
        yield GaugeMetricFamily(
            f"{self._prefix}_connections", "Connections of HTTP that are open.", number
        )
        yield by_label(
            CounterMetricFamily, f"{self._prefix}_refused_connections",
            "Connections of HTTP closed at once: too many of one host, or in total.",
            "reason", refused,
        )  # fmt: skip


class Listener(socket.socket):
    """A listening socket that accepts what its :class:`Connections` allow, and closes the rest."""

    #: Whom it has accepted.
    connections: Connections

    @classmethod
    def of(cls, listening: socket.socket, connections: Connections) -> Self:
        """``listening``, taken over."""
        timeout = listening.gettimeout()
        made = cls(listening.family, listening.type, listening.proto, listening.detach())
        made.settimeout(timeout)
        made.connections = connections
        return made

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """As of any socket.

        Raises:
            ConnectionAbortedError: the connection was closed, there are too many.
        """
        accepted, address = super().accept()
        try:
            host = self.connections.enter(address[0])
        except ConnectionAbortedError:
            accepted.close()
            raise
        connection = _Accepted(
            accepted.family, accepted.type, accepted.proto, fileno=accepted.detach()
        )
        connection.connections, connection.host = self.connections, host
        return connection, address


class _Accepted(socket.socket):
    """Tells when it is closed."""

    connections: Connections | None = None
    host: Host = None

    def close(self) -> None:
        super().close()
        connections, self.connections = self.connections, None
        if connections is not None:
            connections.leave(self.host)
