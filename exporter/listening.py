"""Where servers listen, and how many TCP connections there may be, in all and from one host.

Connections are counted where they are accepted: whoever never shakes hands has one, too.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final, Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.logs import RareLog

log = logging.getLogger(__name__)

_REASONS: Final = ("host", "total")
#: Who has one address of IPv6 has all that share these bits.
_IPV6_HOST_BITS: Final = 64

#: A host; ``None`` is this machine, which is counted in the total only.
Host = ipaddress.IPv4Address | ipaddress.IPv6Network | None


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
        self._most = {"total": total, "host": each}
        self._lock = threading.Lock()
        self._open: Counter[Host] = Counter()
        self._refused = dict.fromkeys(_REASONS, 0)
        self._log = RareLog(log)

    def enter(self, address: str) -> Host:
        """Count a connection from this address, until :meth:`leave`.

        Raises:
            ConnectionAbortedError: there are too many.
        """
        host = host_of(address)
        with self._lock:
            reason = self._full(host)
            if reason is None:
                self._open[host] += 1
                return host
            self._refused[reason] += 1
        what = "that this host may have" if reason == "host" else "that there may be"
        self._log.warning(
            f"{self._prefix} {reason}",
            f"a connection from {address} was refused: all {self._most[reason]} {what} are open",
        )
        raise ConnectionAbortedError(reason)

    def leave(self, host: Host) -> None:
        """A connection from there has ended."""
        with self._lock:
            self._open[host] -= 1
            if not self._open[host]:
                del self._open[host]

    def collect(self) -> Iterator[Metric]:
        """``…_connections`` and ``…_refused_connections_total``."""
        with self._lock:
            number, refused = self._open.total(), dict(self._refused)
        yield GaugeMetricFamily(
            f"{self._prefix}_connections", "Connections of HTTP that are open.", number
        )
        counter = CounterMetricFamily(
            f"{self._prefix}_refused_connections",
            "Connections of HTTP closed at once: too many of one host, or in total.",
            labels=["reason"],
        )
        for reason, count in refused.items():
            counter.add_metric([reason], count)
        yield counter

    def _full(self, host: Host) -> str | None:
        if host is not None and self._open[host] >= self._most["host"]:
            return "host"
        return "total" if self._open.total() >= self._most["total"] else None


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


def host_of(address: str) -> Host:
    """The host that has this address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            if parsed.is_loopback:
                return None
            return ipaddress.IPv6Network((parsed, _IPV6_HOST_BITS), strict=False)
        parsed = parsed.ipv4_mapped
    return None if parsed.is_loopback else parsed
