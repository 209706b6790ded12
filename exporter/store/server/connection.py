"""Connections of the store: who keeps one without use loses it.

That is who sends no whole request head in time, or one without end; who goes on with a body that
has been answered, as a wrong password is; and who reads nothing of what is sent to him. Uvicorn
itself waits for ever, and keeps what comes. Bodies have no such limit before they are answered:
whoever sends them has shown a password, and a stream of rows may pause.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: From a connection's begin, or a request's first octet, to the end of the request's head.
HEAD_SECONDS: Final = 10.0
#: ClickHouse takes URIs of a mebibyte; what the last read brought of the body counts, too.
HEAD_BYTES: Final = 2 << 20
#: Whoever reads nothing for so long, or up to twice as long, reads no more.
UNREAD_SECONDS: Final = 60.0


class Connection(HttpToolsProtocol):
    """One of the server's connections, for ``uvicorn.Config(http=...)``."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    #: Whether the end of the request that came last has come, too.
    _whole = True
    #: How often all that had piled up was sent.
    _drained = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._looking.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._drained += 1
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._whole = False
        if self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._whole = True
        self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._whole and self._timer is None:
            # Closing at once could cost the peer the answer.
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _look_again(self) -> None:
        self._looking = self.loop.call_later(UNREAD_SECONDS, self._look, self._unread())

    def _look(self, before: tuple[int, int]) -> None:
        if before[0] and before == self._unread():
            self.transport.abort()
        else:
            self._look_again()

    def _unread(self) -> tuple[int, int]:
        return self.transport.get_write_buffer_size(), self._drained

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
