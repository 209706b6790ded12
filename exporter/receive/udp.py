"""Datagrams from UDP sockets, many per system call, without loss while decoding is slow.

One thread reads all sockets into a buffer and hands over what is there when it is full or has
waited half a second. While decoding is slow a few batches wait, then the kernel's socket
buffers fill; only when one of those is full are datagrams lost, and the kernel counts them.
``docs/explanation/receiving.md`` tells why it is built this way.
"""

from __future__ import annotations

import logging
import math
import queue
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, Self

from exporter import config
from exporter.listening import cannot_listen
from exporter.receive.buffers import DatagramBuffer, take_coalesced
from exporter.receive.datagrams import DatagramBatch

log = logging.getLogger(__name__)

#: Datagrams of one batch at most, and batches that wait for the decoder.
BATCH_DATAGRAMS: Final = 8_192
BATCHES_AHEAD: Final = 3

#: Longest time that a datagram waits for others to share its batch.
LINGER_SECONDS: Final = 0.5

_POLL_MILLISECONDS: Final = 200
#: For what comes in less time it does not pay to wait: it is for the next batch.
_SHORTEST_NAP_SECONDS: Final = 0.0005
#: Naps are a little longer than filling the buffer should take: waking twice costs more than
#: leaving some datagrams for the next batch.
_BEYOND_FULL: Final = 1.1
_DRAIN_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 1.0
_WARNING_SECONDS: Final = 60.0

#: A burst that the socket buffer must survive while the thread naps: datagrams per second, and
#: what the kernel charges for one of 1.4 kB.
_BURST_RATE: Final = 100_000
_CHARGED_BYTES: Final = 2_304

# Linux' numbers; Python's socket module has no names for them.
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8


class ReceiveError(Exception):
    """A socket that cannot be opened; the text names the address and the reason."""


class UdpReceiver:
    """One listening socket and its counters.

    Counters (monotonic): ``packets``, ``bytes`` and, by :meth:`kernel_drops`, what the kernel threw
    away because the socket's buffer was full.

    Raises:
        ReceiveError: the address cannot be listened on.
    """

    def __init__(self, listener: config.UdpListener, settings: config.Receive) -> None:
        self.packets = 0
        self.bytes = 0
        self._drops = 0
        self._last_drops = 0
        self._drop_lock = threading.Lock()
        self._socket = _open(listener, settings)
        address, port = self._socket.getsockname()[:2]
        self.address: str = address
        self.port: int = port
        host = f"[{address}]" if ":" in address else address
        self.name = f"{host}:{port}"
        self.buffer_bytes = _size_buffer(self._socket, settings.socket_buffer_bytes, self.name)

    def fileno(self) -> int:
        """The socket's, for polling."""
        return self._socket.fileno()

    def read_into(self, buffer: DatagramBuffer) -> int:
        """Move waiting datagrams into the buffer; returns how many.

        Raises:
            OSError: the socket cannot be read.
        """
        count, size = buffer.read(self._socket)
        self.packets += count
        self.bytes += size
        return count

    def kernel_drops(self) -> int:
        """Datagrams lost since the socket was opened (0 where the system does not tell).

        The kernel counts those that came as one message once.
        """
        with self._drop_lock:
            try:
                info = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
                drops = struct.unpack("=9I", info)[_MEMINFO_DROPS]
            except (OSError, struct.error):
                return self._drops
            self._drops += (drops - self._last_drops) % 2**32
            self._last_drops = drops
            return self._drops

    def close(self) -> None:
        """Close the socket; the counters stay."""
        self.kernel_drops()
        self._socket.close()


def _open(listener: config.UdpListener, settings: config.Receive) -> socket.socket:
    where = f"{listener.address} port {listener.port}/udp"
    try:
        found = socket.getaddrinfo(
            listener.address, listener.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ReceiveError(cannot_listen(where, error)) from error
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            # "::" then takes IPv4 too.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if settings.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        take_coalesced(sock)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ReceiveError(cannot_listen(where, error)) from error
    return sock


def _size_buffer(sock: socket.socket, wanted: int, name: str) -> int:
    """Ask for a receive buffer of ``wanted`` bytes; returns what the kernel gave."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except OSError:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        except OSError as error:
            log.warning("%s: receive buffer keeps its default size: %s", name, error)
    given = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    if sys.platform.startswith("linux"):
        given //= 2  # Linux doubles what was asked for, to count its bookkeeping too.
    if given < wanted:
        log.warning(
            "%s: receive buffer is %d bytes instead of %d, bursts may be lost: set "
            "net.core.rmem_max=%d with sysctl or give the process CAP_NET_ADMIN",
            name, given, wanted, wanted,
        )  # fmt: skip
    return given


class UdpReceivers:
    """All sockets, the thread that reads them, and the bounded hand-over to the decoder.

    Use as a context manager, or :meth:`start` and :meth:`stop`. One consumer takes batches with
    :meth:`receive` or :meth:`batches`.
    """

    def __init__(self, receivers: Sequence[UdpReceiver]) -> None:
        self.receivers = receivers
        self.stalled_seconds = 0.0
        self.read_errors = 0
        self._buffer = DatagramBuffer(BATCH_DATAGRAMS)
        self._waiting: queue.Queue[DatagramBatch] = queue.Queue(BATCHES_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)
        self._failure: Exception | None = None
        self._rate = 0.0
        self._filled_at = 0.0
        self._turn = 0
        # Short enough that a burst meanwhile fits the smallest socket buffer.
        smallest = min((receiver.buffer_bytes for receiver in receivers), default=0)
        self._longest_nap = 2 * smallest / _CHARGED_BYTES / _BURST_RATE
        self._looked_for_drops = 0.0
        self._warned: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read what the sockets still hold and the buffers take, then close the sockets.

        What was read can still be taken with :meth:`receive`.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for receiver in self.receivers:
            receiver.close()

    def receive(self, timeout_seconds: float) -> DatagramBatch | None:
        """The next batch, or None when none came in time.

        Raises:
            RuntimeError: the reading thread has failed.
        """
        try:
            return self._waiting.get(timeout=timeout_seconds)
        except queue.Empty:
            if self._failure is not None:
                raise RuntimeError("receiving has stopped") from self._failure
            return None

    def batches(self, stop: threading.Event) -> Iterator[DatagramBatch]:
        """Batches as they come until ``stop`` is set, then what has been received until then."""
        while not stop.is_set():
            batch = self.receive(_POLL_MILLISECONDS / 1000)
            if batch is not None:
                yield batch
        self._stop.set()
        while self._thread.is_alive() or not self._waiting.empty():
            batch = self.receive(0.01)
            if batch is not None:
                yield batch

    def _run(self) -> None:
        try:
            poller = select.poll()
            for receiver in self.receivers:
                poller.register(receiver.fileno(), select.POLLIN)
            while not self._stop.is_set():
                self._fill(poller)
                if self._buffer.filled:
                    self._hand_over()
                if time.monotonic() - self._looked_for_drops >= _LOOK_SECONDS:
                    self._warn_of_drops()
            self._drain()
            self._warn_of_drops()
        except Exception as error:
            log.exception("receiving has stopped")
            self._failure = error

    def _hand_over(self) -> bool:
        """Leave what the buffer holds for the decoder; False where it has no room for it.

        Waits for room as long as nobody says stop, and then for a while.
        """
        batch = self._buffer.take()
        begin = time.monotonic()
        deadline = math.inf
        while True:
            try:
                self._waiting.put(batch, timeout=_POLL_MILLISECONDS / 1000)
            except queue.Full:
                now = time.monotonic()
                if now > deadline:
                    log.error("%d datagrams came before the stop and were not decoded", len(batch))
                    return False
                if self._stop.is_set():
                    deadline = min(deadline, now + _DRAIN_SECONDS)
            else:
                self.stalled_seconds += time.monotonic() - begin
                return True

    def _fill(self, poller: select.poll) -> None:
        """Read until the buffer is full or its first datagram has waited long enough.

        Naps for as long as the free slots should take to fill, so that one read finds many; but
        never for longer than the sockets can hold what comes meanwhile.
        """
        buffer = self._buffer
        if not self._read_all() and not poller.poll(_POLL_MILLISECONDS):
            self._rate = 0.0
            return
        begin = time.monotonic()
        left = LINGER_SECONDS
        while not buffer.full and not self._stop.is_set():
            nap = min(left, self._longest_nap)
            if self._rate:
                nap = min(nap, _BEYOND_FULL * (buffer.slots - buffer.filled) / self._rate)
            if nap < _SHORTEST_NAP_SECONDS:
                break
            time.sleep(nap)
            read = self._read_all()
            left = begin + LINGER_SECONDS - time.monotonic()
            if not read and left > 0:
                poller.poll(left * 1000)
        now = time.monotonic()
        self._rate = 0.7 * self._rate + 0.3 * buffer.filled / max(now - self._filled_at, 1e-6)
        self._filled_at = now

    def _read_all(self) -> int:
        """One read of each socket, beginning with another one each time; returns datagrams."""
        count = 0
        self._turn = (self._turn + 1) % max(len(self.receivers), 1)
        for receiver in (*self.receivers[self._turn :], *self.receivers[: self._turn]):
            if self._buffer.full:
                break
            try:
                count += receiver.read_into(self._buffer)
            except OSError as error:
                self.read_errors += 1
                log.error("%s: cannot receive: %s", receiver.name, error)
                time.sleep(LINGER_SECONDS)
        return count

    def _drain(self) -> None:
        """What arrived before the stop, as far as the decoder takes it in time."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < deadline:
            while not self._buffer.full and self._read_all():
                pass
            if not self._buffer.filled or not self._hand_over():
                return

    def _warn_of_drops(self) -> None:
        now = time.monotonic()
        self._looked_for_drops = now
        for receiver in self.receivers:
            warned, counted = self._warned.get(receiver.name, (-_WARNING_SECONDS, 0))
            if now - warned < _WARNING_SECONDS:
                continue
            drops = receiver.kernel_drops()
            if drops > counted:
                log.warning(
                    "%s: the kernel dropped %d datagrams, its buffer of %d bytes was full",
                    receiver.name, drops - counted, receiver.buffer_bytes,
                )  # fmt: skip
                self._warned[receiver.name] = (now, drops)


def open_receivers(settings: config.Receive) -> UdpReceivers:
    """All listeners of the configuration, opened but not yet read.

    Raises:
        ReceiveError: one of them cannot be listened on; none is left open then.
    """
    receivers: list[UdpReceiver] = []
    try:
        for listener in settings.udp:
            receivers.append(UdpReceiver(listener, settings))  # noqa: PERF401
    except ReceiveError:
        for receiver in receivers:
            receiver.close()
        raise
    return UdpReceivers(receivers)
