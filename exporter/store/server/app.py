"""ClickHouse's HTTP interface as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from exporter.store.server import clauses, guard, sql
from exporter.store.server.compression import Encoder, encoder_for
from exporter.store.server.engine import Connection, Engine, Statistics
from exporter.store.server.errors import QueryError
from exporter.store.server.formats import media_type
from exporter.store.server.hello import HELLO, hello
from exporter.store.server.metrics import StoreMetrics
from exporter.store.server.pipe import Pipe, PipeEnd
from exporter.store.server.request import (
    DisconnectedError,
    Receive,
    Request,
    Scope,
    Send,
    printable,
)
from exporter.store.server.settings import Limits, read_url
from exporter.store.server.statement import Statement, read_statement
from exporter.store.server.users import User, Users

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: An answer up to this size is sent in one piece, with its length, and an error instead of it.
_HOLD_BYTES: Final = 1 << 20
_TEXT: Final = {"Content-Type": "text/plain; charset=UTF-8"}


@dataclass(frozen=True, slots=True)
class Options:
    """Bounds of the server as a whole and of each query.

    ``queries`` and ``inserts`` run at a time, apart, so that dashboards cannot hold up a
    collector; ``waiting`` may wait for ``wait_seconds``. A client that neither sends nor reads
    for ``stall_seconds`` is given up.
    """

    limits: Limits = field(default_factory=Limits)
    queries: int = 16
    inserts: int = 4
    waiting: int = 128
    wait_seconds: float = 30.0
    statement_bytes: int = 1 << 20
    stall_seconds: float = 60.0
    slow_seconds: float = 5.0


@dataclass(slots=True)
class _Job:
    """A request at work, as metrics, headers and the slow-query log show it."""

    request: Request
    user: User | None = None
    kind: str = "query"
    text: str = ""
    format: str = "Null"
    parameters: dict[str, str] = field(default_factory=dict)
    answers: bool = False
    statistics: Statistics = field(default_factory=Statistics)
    began: float = field(default_factory=time.monotonic)

    def headers(self) -> dict[str, str]:
        """The headers that ClickHouse sends with an answer."""
        counted = self.statistics
        summary = {
            "read_rows": counted.read_rows,
            "read_bytes": counted.read_bytes,
            "written_rows": counted.written_rows,
            "written_bytes": counted.written_bytes,
            "result_rows": counted.result_rows,
            "result_bytes": counted.result_bytes,
            "elapsed_ns": int((time.monotonic() - self.began) * 1e9),
        }
        return {
            "Content-Type": media_type(self.format),
            "X-ClickHouse-Server-Display-Name": "flow-exporter store",
            "X-ClickHouse-Query-Id": printable(self.request.query_id),
            "X-ClickHouse-Format": self.format,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Summary": json.dumps({k: str(v) for k, v in summary.items()}),
        }


class Store:
    """The application. Owns the threads in which statements run."""

    def __init__(
        self, engine: Engine, users: Users, options: Options, metrics: StoreMetrics
    ) -> None:
        self._engine = engine
        self._users = users
        self._options = options
        self._metrics = metrics
        self._slots = {
            "query": asyncio.Semaphore(options.queries),
            "insert": asyncio.Semaphore(options.inserts),
        }
        self._threads = ThreadPoolExecutor(options.queries + options.inserts, "statement")
        self._helpers = ThreadPoolExecutor(4, "helper")

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()
        self._helpers.shutdown()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request.of(scope, receive, send, self._options.stall_seconds)
        reading = request.method in ("GET", "HEAD")
        if request.path == "/metrics" and reading:
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(self._helpers, self._metrics.render)
            await request.answer(200, {"Content-Type": self._metrics.content_type}, body)
        elif request.path in ("/ping", "/replicas_status") and reading:
            await request.answer(200, _TEXT, b"Ok.\n")
        elif request.path != "/":
            await request.answer(404, _TEXT, b"There is no such path: use /, /ping or /metrics.\n")
        elif reading and "query" not in request.url:
            await request.answer(200, _TEXT, b"Ok.\n")
        elif reading or request.method == "POST":
            await self._serve(_Job(request))
        else:
            await request.answer(405, {**_TEXT, "Allow": "GET, HEAD, POST"}, b"Use POST.\n")

    async def _serve(self, job: _Job) -> None:
        """Run a statement, whatever comes of it, and count it."""
        request = job.request
        outcome = "error"
        try:
            job.user = self._users.authenticate(request.headers, request.url)
            statement = await read_statement(
                request, self._options.statement_bytes, self._in_helper
            )
            job.kind, job.text = statement.kind, statement.text
            async with self._slot(job.kind):
                if statement.insert is not None:
                    await self._insert(job, job.user, statement, statement.insert)
                else:
                    await self._select(job, job.user)
            outcome = "ok"
        except QueryError as error:
            await self._fail(request, error)
        except DisconnectedError:
            outcome = "cancelled"
        except asyncio.CancelledError:
            outcome = "cancelled"
            self._helpers.submit(self._engine.kill, request.token)
            raise
        except Exception:
            log.exception("query %s: internal error", request.query_id)
            await self._fail(request, QueryError(1001, "STD_EXCEPTION", "Internal error."))
        finally:
            if request.gone:
                outcome = "cancelled"
            self._finished(job, outcome)

    def _finished(self, job: _Job, outcome: str) -> None:
        seconds = time.monotonic() - job.began
        counted = job.statistics
        self._metrics.finished(
            job.kind, outcome, seconds, counted.written_rows, counted.written_bytes
        )
        if seconds >= self._options.slow_seconds:
            log.warning(
                "slow %s: %.2f s, %s, user %s, id %s, read %d rows: %s",
                job.kind,
                seconds,
                outcome,
                job.user.name if job.user else "unknown",
                printable(job.request.query_id),
                counted.read_rows,
                " ".join(job.text.split())[:1000],
            )

    @contextlib.asynccontextmanager
    async def _slot(self, kind: str) -> AsyncIterator[None]:
        """A turn to run: few run at a time, some wait, more are refused."""
        slots = self._slots[kind]
        if slots.locked():
            if self._metrics.queued >= self._options.waiting:
                raise _too_many()
            with self._metrics.waiting():
                try:
                    async with asyncio.timeout(self._options.wait_seconds):
                        await slots.acquire()
                except TimeoutError as error:
                    raise _too_many() from error
        else:
            await slots.acquire()
        try:
            with self._metrics.executing():
                yield
        finally:
            slots.release()

    def _begin(self, job: _Job, user: User) -> Connection:
        """A connection on which the job's statement may run, to be closed. Blocks."""
        request = job.request
        reading = request.method != "POST"
        given: dict[str, str] = {}
        if user.read_only:
            # The engine lets a reader set nothing; what a reader may set, read_url decides.
            job.text, given = clauses.split_settings(job.text)
        asked = read_url(
            request.url | given,
            user,
            self._options.limits,
            get=reading,
            insert=job.kind == "insert",
        )
        job.parameters = asked.parameters
        # What a statement is found by when it must be stopped.
        asked.settings["log_comment"] = request.token
        database = request.url.get("database") or request.headers.get("x-clickhouse-database", "")
        connection = self._engine.open(database, asked.settings)
        try:
            kind = guard.check(connection, job.text, user)
            guard.check_filters(connection, asked.settings)
            if reading and kind != "READ_ONLY":
                raise QueryError(
                    164,
                    "READONLY",
                    "Cannot execute query in readonly mode. For queries over HTTP, method GET "
                    "implies readonly. You should use method POST for modifying queries.",
                )
        except BaseException:
            connection.close()
            raise
        job.answers = kind == "READ_ONLY"
        connection.statistics = job.statistics
        return connection

    async def _insert(
        self, job: _Job, user: User, statement: Statement, insert: sql.Insert
    ) -> None:
        job.format = insert.format
        connection = await self._in_thread(partial(self._begin, job, user))
        try:
            await self._in_thread(
                partial(guard.check_values, connection, insert, whole=statement.whole)
            )
            inserter = await self._in_thread(
                partial(connection.insert, insert, self._engine.data_dir)
            )
            try:
                if insert.data:
                    await self._in_thread(partial(inserter.append, insert.data))
                async for piece in statement.body:
                    if piece:
                        await self._in_thread(partial(inserter.append, piece))
                await self._in_thread(inserter.finish)
            except BaseException:
                self._helpers.submit(inserter.cancel)
                raise
        finally:
            self._helpers.submit(connection.close)
        await job.request.answer(200, job.headers(), b"")

    async def _select(self, job: _Job, user: User) -> None:
        request = job.request
        encoder = encoder_for(request.url, request.headers)
        job.format = _default_format(request)
        # Only clickhouse-go asks this, and reads the answer in its own protocol revision.
        if job.text.strip() == HELLO and "client_protocol_version" in request.url:
            await request.answer(200, job.headers(), hello(self._engine.version))
            return
        with Pipe() as pipe:
            work = asyncio.ensure_future(
                self._in_thread(partial(self._execute, job, user, pipe.take_end()))
            )
            watch = asyncio.create_task(self._watch(request))
            try:
                await self._answer(job, pipe, work, encoder)
            except QueryError:
                if request.gone:
                    raise DisconnectedError from None
                raise
            except DisconnectedError:
                await self._in_helper(partial(self._engine.kill, request.token))
                raise
            finally:
                watch.cancel()
                pipe.close()
                # The turn is over only when the thread is free again.
                with contextlib.suppress(QueryError):
                    await work

    def _execute(self, job: _Job, user: User, end: PipeEnd) -> None:
        """Run a statement and write its answer into the pipe. Blocks."""
        with end, self._begin(job, user) as connection:
            query = sql.split_query(job.text.encode(), job.format)
            job.format = query.format
            if job.answers:
                connection.run(query.into(end.path), query.format, job.parameters)
            else:
                end.write(connection.run(job.text, query.format, job.parameters))

    async def _answer(self, job: _Job, pipe: Pipe, work: Awaitable[None], encoder: Encoder) -> None:
        """Send what comes out of the pipe: at once if it is little, else as it comes."""
        request = job.request
        parts: list[bytes] = []
        size = 0
        while size < _HOLD_BYTES and (part := await pipe.read()):
            parts.append(part)
            size += len(part)
        if size < _HOLD_BYTES:
            await work
            job.statistics.result_bytes = size
            body = await self._in_helper(lambda: encoder.encode(b"".join(parts)) + encoder.finish())
            await request.answer(200, {**job.headers(), **encoder.headers}, body)
            return
        tag = secrets.token_hex(8)
        headers = {**job.headers(), **encoder.headers, "X-ClickHouse-Exception-Tag": tag}
        await request.start(200, headers)
        part = b"".join(parts)
        parts.clear()
        while part:
            data = await self._in_helper(partial(encoder.encode, part))
            await request.write(data, more=True)
            if request.gone:
                raise DisconnectedError
            part = await pipe.read()
        try:
            await work
        except QueryError as error:
            # The status is sent: say it at the end of the answer, as ClickHouse does.
            frame = encoder.encode(_exception_block(str(error), tag)) + encoder.finish()
            await request.write(frame, more=False)
            raise
        await request.write(encoder.finish(), more=False)

    async def _watch(self, request: Request) -> None:
        """Stop the query when its client goes away."""
        await request.wait_until_gone()
        await self._in_helper(partial(self._engine.kill, request.token))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _in_helper(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._helpers, work)

    async def _fail(self, request: Request, error: QueryError) -> None:
        if request.started or request.gone:
            return
        headers = {
            **_TEXT,
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": printable(request.query_id),
        }
        if error.status == 503:
            headers["Retry-After"] = "1"
        text = f"{error} (version {self._engine.version})\n"
        await request.answer(error.status, headers, text.encode())


def _default_format(request: Request) -> str:
    name = (
        request.headers.get("x-clickhouse-format")
        or request.url.get("default_format")
        or "TabSeparated"
    )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise QueryError(73, "UNKNOWN_FORMAT", f"Unknown format {printable(name)}.")
    return name


def _exception_block(text: str, tag: str) -> bytes:
    """How ClickHouse 25.11 and newer tell an error after part of the answer has been sent."""
    message = f"{text}\n".encode()
    mark = tag.encode()
    return b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (
        mark,
        message,
        len(message),
        mark,
    )


def _too_many() -> QueryError:
    return QueryError(
        202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries; try again."
    )
