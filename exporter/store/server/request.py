"""A request of ClickHouse's HTTP interface as it arrives, and the way to answer it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from exporter.store.server.errors import QueryError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Bytes of a body that are gathered before they are handed on.
_PIECE_BYTES: Final = 1 << 20


class DisconnectedError(Exception):
    """The client went away, or stopped reading."""


@dataclass(slots=True)
class Request:
    """One request, read as far as its head.

    ``query_id`` is the client's name for it, ``token`` ours, under which it can be stopped.
    """

    method: str
    path: str
    url: dict[str, str]
    headers: dict[str, str]
    query_id: str
    stall_seconds: float
    receive: Receive
    send: Send
    token: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: bool = False
    gone: bool = False

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send, stall_seconds: float) -> Request:
        """The request of an ASGI scope; a peer that stalls for so long is given up."""
        query_string = scope["query_string"].decode("latin-1")
        url = dict(parse_qsl(query_string, keep_blank_values=True, errors="replace"))
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        query_id = url.get("query_id") or headers.get("x-clickhouse-query-id") or str(uuid.uuid4())
        return cls(
            scope["method"], scope["path"], url, headers, query_id, stall_seconds, receive, send
        )

    async def body(self) -> AsyncIterator[bytes]:
        """The body as it was sent, in pieces of about a megabyte.

        Raises:
            DisconnectedError: the client went away before its end.
            QueryError: 209, nothing came for too long.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                async with asyncio.timeout(self.stall_seconds):
                    message = await self.receive()
            except TimeoutError as error:
                raise QueryError(
                    209,
                    "SOCKET_TIMEOUT",
                    f"Nothing of the request's body came for {self.stall_seconds:g} seconds.",
                ) from error
            if message["type"] == "http.disconnect":
                self.gone = True
                raise DisconnectedError
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if not message.get("more_body", False):
                yield b"".join(parts)
                return
            if size >= _PIECE_BYTES:
                yield b"".join(parts)
                parts.clear()
                size = 0

    async def start(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.started = True
        pairs = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a part of the answer's body.

        Raises:
            DisconnectedError: the client has stopped reading.
        """
        try:
            async with asyncio.timeout(self.stall_seconds):
                await self.send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError as error:
            self.gone = True
            raise DisconnectedError from error

    async def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send an answer at once."""
        await self.start(status, {**headers, "Content-Length": str(len(body))})
        await self.write(b"" if self.method == "HEAD" else body, more=False)

    async def wait_until_gone(self) -> None:
        """Return when the client has gone away; only after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone = True


def printable(text: str) -> str:
    """``text`` fit for a header: printable ASCII, not too long."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:200])
