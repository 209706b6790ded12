"""Connections of the store: who sends no whole request head in time, or one without end, loses his.

Uvicorn itself waits for ever, and keeps what comes. Bodies and answers have no such limit: whoever
sends or reads them has shown a password, and a stream of rows may pause.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: From a connection's begin, or a request's first octet, to the end of the request's head.
HEAD_SECONDS: Final = 10.0
#: ClickHouse takes URIs of a mebibyte; what the last read brought of the body counts, too.
HEAD_BYTES: Final = 2 << 20


class Connection(HttpToolsProtocol):
    """One of the server's connections, for ``uvicorn.Config(http=...)``."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
