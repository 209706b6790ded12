"""Reads what all resolvers send, in one thread; see the package for the way from there."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from exporter.batch import DnsBatch
from exporter.config.dns import DnstapListener
from exporter.enrich.end_facts import EndFacts
from exporter.enrich.learned import LearnedNames, Lesson
from exporter.logs import RareLog
from exporter.places import Host, host_of
from exporter.receive.dnstap.exchanges import Exchange, Exchanges
from exporter.receive.dnstap.frame_stream import FrameStream, FrameStreamError
from exporter.receive.dnstap.listener import Listener
from exporter.receive.dnstap.message import DnstapError, Tap, read_frame
from exporter.receive.dnstap.rows import QueryRows
from exporter.receive.dnstap.stats import DnstapStats
from exporter.receive.udp import ReceiveError

log = logging.getLogger(__name__)

#: Connections at a time, each of which holds 320 KiB at most; and those of one other host, which
#: may be a resolver with a connection for each of its threads, or a NAT before several.
MAX_CONNECTIONS: Final = 256
MAX_CONNECTIONS_OF_A_HOST: Final = 128
#: Bytes read of one connection before others have their turn.
_READ_BYTES: Final = 64 << 10
#: Time for the handshake, and for the rest of a frame that has begun.
_PATIENCE_SECONDS: Final = 30.0
_TURN_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 2.0


class _Connection:
    """One resolver."""

    def __init__(self, peer: socket.socket, name: str, host: Host, now: float) -> None:
        self.socket = peer
        self.name = name
        self.host = host
        self.stream = FrameStream()
        #: Since when something has been expected.
        self.since = now

    def patient(self, now: float) -> bool:
        """Whether what is expected may still come."""
        expected = self.stream.waiting or not self.stream.started
        return not expected or now - self.since < _PATIENCE_SECONDS


class DnstapReceiver:
    """Listens from when it is made; :meth:`start` and :meth:`stop`.

    ``write`` takes the queries and may wait. ``learned``, if any, is told of each answer at once.

    Raises:
        exporter.receive.udp.ReceiveError: a socket cannot be listened on; none is left open then.
    """

    def __init__(
        self,
        settings: Sequence[DnstapListener],
        write: Callable[[DnsBatch], None],
        learned: LearnedNames | None,
        names: EndFacts,
    ) -> None:
        self.stats = DnstapStats()
        self.listeners: list[Listener] = []
        try:
            for listener in settings:
                self.listeners.append(Listener(listener))
        except ReceiveError:
            self._close_listeners()
            raise
        self._learned = learned
        self._rows = QueryRows(write, names, self.stats)
        self._exchanges = Exchanges()
        self._connections: dict[socket.socket, _Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dnstap", daemon=True)
        self._log = RareLog(log)

    def name_by(self, names: EndFacts) -> None:
        """Take over another configuration's names."""
        self._rows.names = names

    def start(self) -> None:
        """Begin to accept and to read; without sockets there is nothing to do."""
        if not self.listeners:
            return
        self._rows.start()
        self._thread.start()

    def stop(self) -> None:
        """Read no more, and hand over the queries that came."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
        self._close_listeners()
        self._rows.stop(_STOP_SECONDS)

    def _close_listeners(self) -> None:
        for listener in self.listeners:
            listener.close()

    def _run(self) -> None:
        for listener in self.listeners:
            self._selector.register(listener.socket, selectors.EVENT_READ, listener)
        try:
            while not self._stop.is_set():
                try:
                    self._turn()
                except Exception:  # a fault of ours in one turn must not end the thread
                    self._log.exception("turn", "dnstap: a turn failed")
                    time.sleep(_TURN_SECONDS)
        finally:
            self._finish(list(self._exchanges.finish(time.time())))
            for connection in list(self._connections.values()):
                self._close(connection)
            self._selector.close()

    def _turn(self) -> None:
        """Read once from whoever has sent something."""
        done: list[Exchange] = []
        for key, _ in self._selector.select(_TURN_SECONDS):
            if isinstance(key.data, Listener):
                self._accept(key.data)
            else:
                self._read(key.data, done)
        now = time.time()
        done += self._exchanges.expire(now)
        self._finish(done)
        for connection in list(self._connections.values()):
            if not connection.patient(time.monotonic()):
                self._close(connection, "timeout", "it stopped in the middle")

    def _accept(self, listener: Listener) -> None:
        try:
            peer, address = listener.socket.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self.stats.closed["socket"] += 1
                self._log.warning("accept", f"dnstap: {listener.name}: cannot accept: {error}")
                time.sleep(_TURN_SECONDS)
            return
        where = address[0] if isinstance(address, tuple) else ""
        name = f"{listener.name} {where}".rstrip()
        host = host_of(where) if where else None
        of_host = sum(host is not None and c.host == host for c in self._connections.values())
        if len(self._connections) >= MAX_CONNECTIONS or of_host >= MAX_CONNECTIONS_OF_A_HOST:
            peer.close()
            self.stats.closed["too_many"] += 1
            self._log.warning(
                "many",
                f"dnstap: {name}: one more connection is refused: "
                f"there are {len(self._connections)}, {of_host} of them of that host",
            )
            return
        peer.setblocking(False)
        if peer.family != socket.AF_UNIX:  # a resolver's machine that is gone says no farewell
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = _Connection(peer, name, host, time.monotonic())
        self._connections[peer] = connection
        self._selector.register(peer, selectors.EVENT_READ, connection)
        self.stats.accepted += 1
        self.stats.connections = len(self._connections)
        log.debug("dnstap: connected on %s", connection.name)  # strangers may do so without end

    def _read(self, connection: _Connection, done: list[Exchange]) -> None:
        try:
            data = connection.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(connection, "socket", str(error))
            return
        if not data:
            self._close(connection)
            return
        self.stats.bytes += len(data)
        stream = connection.stream
        idle = not stream.waiting
        try:
            frames = stream.feed(data)
        except FrameStreamError as error:
            self._close(connection, error.reason, str(error))
            return
        if frames or idle:
            connection.since = time.monotonic()
        now = time.time()
        for frame in frames:
            self._take(frame, now, connection, done)
        if stream.reply:
            # Some ten bytes, for which a socket that was silent has room.
            with contextlib.suppress(OSError):
                connection.socket.send(stream.reply)
            stream.reply = b""
        if stream.stopped:
            self._close(connection)

    def _take(
        self, frame: bytes, now: float, connection: _Connection, done: list[Exchange]
    ) -> None:
        try:
            tap = read_frame(frame)
        except DnstapError as error:
            self.stats.errors[error.reason] += 1
            self._log.warning(error.reason, f"dnstap: {connection.name}: {error.reason}: {error}")
            return
        if isinstance(tap, Tap):
            self.stats.frames[tap.kind] += 1
            done += self._exchanges.add(tap, now)
        else:
            self.stats.frames[tap] += 1

    def _finish(self, done: Sequence[Exchange]) -> None:
        """Learn from exchanges, count them and pass them on."""
        stats = self.stats
        if self._learned is not None:
            self._learned.learn(_lessons(done), time.time())
        stats.queries += len(done)
        for exchange in done:
            if not exchange.rcode:
                stats.unanswered += 1
            elif exchange.latency:
                stats.latency.observe(exchange.latency)
        stats.waiting = len(self._exchanges)
        dropped = self._rows.put(done)
        if dropped:
            stats.dropped += dropped
            self._log.error("dropped", "dnstap: the insert queue is full, queries are not stored")

    def _close(self, connection: _Connection, reason: str = "", text: str = "") -> None:
        if reason:
            self.stats.closed[reason] += 1
            self._log.warning(reason, f"dnstap: {connection.name} is closed: {text}")
        del self._connections[connection.socket]
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self.stats.connections = len(self._connections)


def _lessons(exchanges: Iterable[Exchange]) -> Iterable[Lesson]:
    for exchange in exchanges:
        if exchange.addresses:
            yield Lesson(
                exchange.name, exchange.client, exchange.addresses, exchange.ttl, exchange.time
            )
