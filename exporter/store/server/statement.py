"""From a request to the one statement that it asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from exporter.store.server import sql
from exporter.store.server.compression import decoder_for
from exporter.store.server.errors import QueryError
from exporter.store.server.request import Request

#: Values that are read as a whole before they are inserted.
_VALUES_BYTES: Final = 16 << 20

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


@dataclass(slots=True)
class Statement:
    """The statement, and for an insert with data how it goes on.

    ``text`` has no data; ``body`` is what of an insert's data has not been read yet.
    """

    text: str
    insert: sql.Insert | None
    body: AsyncIterator[bytes]

    @property
    def kind(self) -> str:
        """What metrics call it."""
        return "query" if self.insert is None else "insert"


async def read_statement(request: Request, most: int, in_thread: InThread) -> Statement:
    """The statement in URL and body; the body of an insert is read no further than needed.

    Raises:
        QueryError: it is larger than ``most`` bytes, or sent in a way that is not known.
        DisconnectedError: the client went away.
    """
    body = _decoded(request, in_thread)
    text = request.url.get("query", "").encode()
    if request.method != "POST":
        return Statement(text.decode("utf-8", "replace"), None, body)
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise QueryError(
            48, "NOT_IMPLEMENTED", "Multipart forms (external data) are not supported."
        )
    insert = sql.split_insert(text) if text else None
    if insert is None:
        if text:
            text += b"\n"
        async for piece in body:
            text += piece
            insert = sql.split_insert(text[:most])
            if insert is not None:
                # The data goes on behind what of the text was looked at.
                insert = sql.Insert(insert.head, insert.format, insert.data + text[most:])
                break
            if len(text) > most:
                raise QueryError(
                    229, "QUERY_IS_TOO_LARGE", f"The statement is larger than {most} bytes."
                )
    if insert is None:
        return Statement(text.decode("utf-8", "replace"), None, body)
    return Statement(f"{insert.head} FORMAT {insert.format}", insert, body)


async def first_values(insert: sql.Insert, body: AsyncIterator[bytes]) -> tuple[sql.Insert, bool]:
    """The insert with the first of its values, and whether these are all.

    Values may be expressions, which are statements in a way: they are read before they run.
    """
    data = insert.data
    async for piece in body:
        data += piece
        if len(data) > _VALUES_BYTES:
            return sql.Insert(insert.head, insert.format, data), False
    return sql.Insert(insert.head, insert.format, data), True


async def _decoded(request: Request, in_thread: InThread) -> AsyncIterator[bytes]:
    decoder = decoder_for(request.url, request.headers)
    async for raw in request.body():
        if decoder is None:
            yield raw
            continue
        decoder.feed(raw)
        while (piece := await in_thread(decoder.read)) is not None:
            yield piece
    if decoder is not None:
        decoder.finish()
