"""ClickHouse's HTTP interface as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from exporter.store.server import guard, sql
from exporter.store.server.compression import Decoder, Encoder, decoder_for, encoder_for
from exporter.store.server.engine import Connection, Engine
from exporter.store.server.errors import QueryError
from exporter.store.server.formats import content_type
from exporter.store.server.hello import HELLO, hello
from exporter.store.server.metrics import StoreMetrics
from exporter.store.server.settings import Asked, Limits, read_url
from exporter.store.server.users import User, Users

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Any], Any]
Result = TypeVar("Result")

#: Bytes of a body that are gathered before they go to the engine.
_BODY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """Bounds of the server as a whole and of each query."""

    limits: Limits = field(default_factory=Limits)
    concurrent: int = 16
    waiting: int = 128
    wait_seconds: float = 30.0
    query_bytes: int = 1 << 20
    body_seconds: float = 60.0
    slow_seconds: float = 5.0


class DisconnectedError(Exception):
    """The client went away."""


@dataclass(slots=True)
class Request:
    """One request, read as far as its head."""

    method: str
    path: str
    url: dict[str, str]
    headers: dict[str, str]
    receive: Receive
    send: Send
    query_id: str = ""
    started: bool = False
    gone: bool = False

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Request:
        url = dict(
            parse_qsl(
                scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace"
            )
        )
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        query_id = url.get("query_id") or headers.get("x-clickhouse-query-id") or str(uuid.uuid4())
        return cls(scope["method"], scope["path"], url, headers, receive, send, query_id)

    async def body(self, seconds: float) -> AsyncIterator[bytes]:
        """The body as it was sent, in pieces of about a megabyte.

        Raises:
            DisconnectedError: the client went away before its end.
            QueryError: it took longer than ``seconds`` to send a piece.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                message = await asyncio.wait_for(self.receive(), seconds)
            except TimeoutError as error:
                raise QueryError(
                    209, "SOCKET_TIMEOUT", f"No data of the request's body for {seconds:g} seconds."
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
            if size >= _BODY_BYTES:
                yield b"".join(parts)
                parts.clear()
                size = 0

    async def start(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.started = True
        pairs = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a part of the answer's body."""
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send an answer at once."""
        await self.start(status, {**headers, "Content-Length": str(len(body))})
        await self.write(b"" if self.method == "HEAD" else body, more=False)


class Store:
    """The application. Owns the threads in which statements run."""

    def __init__(
        self, engine: Engine, users: Users, options: Options, metrics: StoreMetrics
    ) -> None:
        self._engine = engine
        self._users = users
        self._options = options
        self._metrics = metrics
        self._slots = asyncio.Semaphore(options.concurrent)
        self._threads = ThreadPoolExecutor(options.concurrent, thread_name_prefix="query")
        self._helpers = ThreadPoolExecutor(2, thread_name_prefix="kill")

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()
        self._helpers.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request.of(scope, receive, send)
        if request.path == "/metrics":
            body = await asyncio.get_running_loop().run_in_executor(
                self._helpers, self._metrics.render
            )
            await request.answer(200, {"Content-Type": self._metrics.content_type}, body)
        elif request.path in ("/ping", "/replicas_status") or (
            request.path == "/" and request.method in ("GET", "HEAD") and not request.url
        ):
            await request.answer(200, {"Content-Type": "text/plain; charset=UTF-8"}, b"Ok.\n")
        elif request.path not in ("/", "/query") and request.path.strip("/"):
            text = f"There is no handle {request.path}\n"
            await request.answer(404, {"Content-Type": "text/plain; charset=UTF-8"}, text.encode())
        elif request.method not in ("GET", "POST", "HEAD"):
            await request.answer(405, {"Allow": "GET, HEAD, POST"}, b"")
        else:
            await self._query(request)

    async def _query(self, request: Request) -> None:
        job = _Job(request)
        began = time.monotonic()
        outcome = "ok"
        try:
            user = self._users.authenticate(request.headers, request.url)
            job.user = user
            async with self._slot():
                await self._run(job, user)
        except QueryError as error:
            outcome = "error"
            await self._fail(request, error)
        except (DisconnectedError, asyncio.CancelledError):
            outcome = "cancelled"
            raise_again = not request.gone
            if raise_again:
                raise
        except Exception:
            outcome = "error"
            log.exception("query %s: internal error", request.query_id)
            await self._fail(request, QueryError(1001, "STD_EXCEPTION", "Internal error."))
        finally:
            seconds = time.monotonic() - began
            self._metrics.finished(job.kind, outcome, seconds, job.written_rows, job.written_bytes)
            if seconds >= self._options.slow_seconds:
                log.warning(
                    "slow query: %.2f s, %s, user %s, id %s: %s",
                    seconds,
                    outcome,
                    job.user.name if job.user else "-",
                    request.query_id,
                    " ".join(job.text.split())[:500],
                )

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A turn to run; few run at a time, some wait, more are refused."""
        if self._metrics.queued >= self._options.waiting:
            raise _too_many()
        with self._metrics.waiting():
            try:
                await asyncio.wait_for(self._slots.acquire(), self._options.wait_seconds)
            except TimeoutError as error:
                raise _too_many() from error
        try:
            with self._metrics.executing():
                yield
        finally:
            self._slots.release()

    async def _run(self, job: _Job, user: User) -> None:
        request = job.request
        body = _Body(request, self._options.body_seconds, self._in_thread)
        text = request.url.get("query", "").encode()
        insert = None
        if request.method == "POST":
            if text:
                insert = sql.split_insert(text)
            if insert is None:
                text = await self._read_statement(text, body)
                insert = sql.split_insert(text)
        job.text = text.decode("utf-8", "replace") if insert is None else insert.head
        asked = read_url(
            request.url,
            user,
            self._options.limits,
            get=request.method != "POST",
            insert=insert is not None,
        )
        asked.settings["log_comment"] = request.query_id
        if insert is not None:
            job.kind = "insert"
            await self._insert(job, user, asked, insert, body)
        else:
            await self._select(job, user, asked)

    async def _read_statement(self, text: bytes, body: _Body) -> bytes:
        """The statement, from URL and body together; of an insert as far as it has arrived."""
        parts = [text + b"\n"] if text else []
        size = len(text)
        async for part in body.pieces():
            parts.append(part)
            size += len(part)
            joined = b"".join(parts)
            parts = [joined]
            if sql.split_insert(joined[: self._options.query_bytes]) is not None:
                return joined
            if size > self._options.query_bytes:
                raise QueryError(
                    229,
                    "QUERY_IS_TOO_LARGE",
                    f"The statement is larger than {self._options.query_bytes} bytes.",
                )
        return b"".join(parts)

    async def _insert(
        self, job: _Job, user: User, asked: Asked, insert: sql.Insert, body: _Body
    ) -> None:
        request = job.request
        connection = await self._in_thread(
            lambda: self._begin(user, asked, request, f"{insert.head} FORMAT {insert.format}")
        )
        try:
            inserter = await self._in_thread(lambda: connection.insert(insert.head, insert.format))
            try:
                if insert.data:
                    await self._in_thread(lambda: inserter.append(insert.data))
                async for part in body.pieces():
                    if part:
                        await self._in_thread(partial(inserter.append, part))
                await self._in_thread(inserter.finish)
            except BaseException:
                self._helpers.submit(inserter.cancel)
                raise
            job.written_rows = connection.statistics.written_rows
            job.written_bytes = connection.statistics.written_bytes
            await request.answer(200, self._headers(job, connection, insert.format), b"")
        finally:
            self._helpers.submit(connection.close)

    def _begin(self, user: User, asked: Asked, request: Request, statement: str) -> Connection:
        """A connection on which ``statement`` may run. Blocks."""
        database = request.url.get("database") or request.headers.get("x-clickhouse-database", "")
        connection = self._engine.open(database, asked.settings)
        try:
            kind = guard.check(connection, statement, user)
            if request.method != "POST" and kind != "READ_ONLY":
                raise QueryError(
                    164,
                    "READONLY",
                    "Cannot execute query in readonly mode. For queries over HTTP, method GET "
                    "implies readonly. You should use method POST for modifying queries.",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    async def _select(self, job: _Job, user: User, asked: Asked) -> None:
        request = job.request
        text = job.text
        format = (
            sql.output_format(text.encode())
            or request.headers.get("x-clickhouse-format")
            or request.url.get("default_format")
            or "TabSeparated"
        )
        # Only clickhouse-go asks this, and reads the answer in its own protocol version.
        if text.strip() == HELLO and request.url.get("client_protocol_version"):
            body = hello(self._engine.version)
            await request.answer(200, self._headers(job, None, format), body)
            return
        watch = asyncio.create_task(self._watch(request))
        connection: Connection | None = None
        try:
            connection, chunks, first = await self._in_thread(
                lambda: self._first(user, asked, request, text, format)
            )
            tag = secrets.token_hex(8)
            headers = self._headers(job, connection, format)
            headers["X-ClickHouse-Exception-Tag"] = tag
            encoder = encoder_for(request.url, request.headers)
            if encoder.name:
                headers["Content-Encoding"] = encoder.name
            second = await self._next(chunks) if first is not None else None
            if second is None:
                data = encoder.encode(first or b"") + encoder.finish()
                headers |= self._headers(job, connection, format)
                await request.answer(200, headers, data)
                return
            await request.start(200, headers)
            await self._pour(request, chunks, [first or b"", second], encoder, tag)
        except QueryError:
            if request.gone:
                raise DisconnectedError from None
            raise
        finally:
            watch.cancel()
            if connection is not None:
                self._helpers.submit(connection.close)

    def _first(
        self, user: User, asked: Asked, request: Request, text: str, format: str
    ) -> tuple[Connection, Iterator[bytes], bytes | None]:
        """Start a query and wait for the first part of its answer. Blocks."""
        connection = self._begin(user, asked, request, text)
        try:
            if sql.streams(text.encode()):
                chunks = connection.stream(text, format, asked.parameters)
            else:
                chunks = iter([connection.run(text, format, asked.parameters)])
            return connection, chunks, next(chunks, None)
        except BaseException:
            connection.close()
            raise

    async def _next(self, chunks: Iterator[bytes]) -> bytes | None:
        return await self._in_thread(lambda: next(chunks, None))

    async def _pour(
        self,
        request: Request,
        chunks: Iterator[bytes],
        ready: list[bytes],
        encoder: Encoder,
        tag: str,
    ) -> None:
        """Send a long answer. An error on the way is told as ClickHouse tells it."""
        try:
            for chunk in ready:
                await request.write(encoder.encode(chunk), more=True)
            while (chunk_or_end := await self._next(chunks)) is not None:
                if request.gone:
                    raise DisconnectedError
                chunk = chunk_or_end
                data = await self._in_thread(partial(encoder.encode, chunk))
                await request.write(data, more=True)
        except QueryError as error:
            if request.gone:
                raise DisconnectedError from None
            text = f"{error}\n".encode()
            frame = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (
                tag.encode(),
                text,
                len(text),
                tag.encode(),
            )
            await request.write(encoder.encode(frame) + encoder.finish(), more=False)
            raise
        await request.write(encoder.finish(), more=False)

    async def _watch(self, request: Request) -> None:
        """Stop the query when its client goes away."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        request.gone = True
        await asyncio.get_running_loop().run_in_executor(
            self._helpers, self._engine.kill, request.query_id
        )

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _fail(self, request: Request, error: QueryError) -> None:
        if request.started or request.gone:
            return
        text = f"{error} (version {self._engine.version})\n"
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": _header(request.query_id),
        }
        if error.status == 503:
            headers["Retry-After"] = "1"
        with contextlib.suppress(Exception):
            await request.answer(error.status, headers, text.encode())

    def _headers(self, job: _Job, connection: Connection | None, format: str) -> dict[str, str]:
        headers = {
            "Content-Type": content_type(format),
            "X-ClickHouse-Server-Display-Name": "flow-exporter store",
            "X-ClickHouse-Query-Id": _header(job.request.query_id),
            "X-ClickHouse-Format": format,
            "X-ClickHouse-Timezone": "UTC",
        }
        if connection is not None:
            headers["X-ClickHouse-Summary"] = _summary(connection)
        return headers


@dataclass(slots=True)
class _Job:
    """What is known of a query while it runs, for metrics and the slow-query log."""

    request: Request
    user: User | None = None
    kind: str = "query"
    text: str = ""
    written_rows: int = 0
    written_bytes: int = 0


class _Body:
    """The request's body, decoded; a part that was read for the statement is not read again."""

    def __init__(self, request: Request, seconds: float, in_thread: Any) -> None:
        self._raw = request.body(seconds)
        self._decoder: Decoder | None = decoder_for(request.url, request.headers)
        self._in_thread = in_thread
        self._pieces = self._decode()

    def pieces(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def _decode(self) -> AsyncIterator[bytes]:
        async for raw in self._raw:
            if self._decoder is None:
                yield raw
                continue
            self._decoder.feed(raw)
            while (part := await self._in_thread(self._decoder.read)) is not None:
                yield part
        if self._decoder is not None:
            self._decoder.finish()


def _summary(connection: Connection) -> str:
    counted = connection.statistics
    return json.dumps(
        {
            "read_rows": str(counted.read_rows),
            "read_bytes": str(counted.read_bytes),
            "written_rows": str(counted.written_rows),
            "written_bytes": str(counted.written_bytes),
            "result_rows": str(counted.result_rows),
            "result_bytes": str(counted.result_bytes),
            "elapsed_ns": str(counted.elapsed_ns),
        }
    )


def _header(value: str) -> str:
    """``value`` fit for a header: printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in value[:200])


def _too_many() -> QueryError:
    return QueryError(
        202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries; try again."
    )
