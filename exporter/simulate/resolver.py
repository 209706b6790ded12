"""The site's resolvers as dnstap senders."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.receive.dnstap.frame_stream import Control, control_frame, data_frame
from exporter.simulate.encode.dnstap import exchange_payloads
from exporter.simulate.live import Second
from exporter.simulate.lookups import HOUR, Asking, Query

_SECONDS: Final = 5.0
_CONTROL_HEADER: Final = struct.Struct(">III")

#: A unix socket, or an address and a port.
DnstapTarget = Path | tuple[str, int]


class DnstapConnection:
    """The writer's side of a bidirectional Frame Streams connection.

    Raises:
        OSError: nobody listens there, or does not speak Frame Streams.
    """

    def __init__(self, target: DnstapTarget) -> None:
        if isinstance(target, Path):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(_SECONDS)
            self._socket.connect(str(target))
        else:
            self._socket = socket.create_connection(target, timeout=_SECONDS)
        try:
            self._socket.sendall(control_frame(Control.READY))
            self._expect(Control.ACCEPT)
            self._socket.sendall(control_frame(Control.START))
        except OSError:
            self._socket.close()
            raise

    def send(self, payloads: Iterable[bytes]) -> None:
        """Send frames."""
        self._socket.sendall(b"".join(map(data_frame, payloads)))

    def close(self) -> None:
        """Say goodbye, so that the reader has taken everything."""
        try:
            self._socket.sendall(control_frame(Control.STOP))
            self._expect(Control.FINISH)
        finally:
            self._socket.close()

    def _expect(self, kind: Control) -> None:
        header = self._read(_CONTROL_HEADER.size)
        escape, length, told = _CONTROL_HEADER.unpack(header)
        if escape or told != kind:
            raise OSError(0, f"no answer of Frame Streams: {header!r}")
        self._read(length - 4)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise OSError(0, "the connection was closed in the handshake")
            data += more
        return data


class ResolverTeller:
    """Sends each second the queries that ended in it; connects again when the reader went away.

    Where nobody listens, queries are lost and counted in ``lost``.
    """

    def __init__(self, asking: Asking, target: DnstapTarget) -> None:
        self.sent = 0
        self.lost = 0
        self._asking = asking
        self._target = target
        self._connection: DnstapConnection | None = None
        self._hour = -1
        self._queries: list[Query] = []

    def tell(self, second: Second) -> None:
        """Send the queries of that second."""
        # The rhythm's time chooses what is asked; when it runs faster, queries do not.
        hour, at = divmod(second.rhythm_time, HOUR)
        if hour != self._hour:
            self._hour, self._queries = hour, self._asking.queries(hour)
        payloads: list[bytes] = []
        for query in self._queries:
            if at <= query.time % HOUR < at + 1000:
                now = second.start + query.time % 1000
                payloads += exchange_payloads(query.at(now))
        if not payloads:
            return
        try:
            if self._connection is None:
                self._connection = DnstapConnection(self._target)
            self._connection.send(payloads)
            self.sent += len(payloads) // 2
        except OSError:
            self.lost += len(payloads) // 2
            self._connection = None

    def close(self) -> None:
        """End the connection; a reader that is gone already misses nothing."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
