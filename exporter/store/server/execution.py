"""Runs a job's statement in a thread, and brings data in and the answer out."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from exporter.store.server import clauses, guard, sql
from exporter.store.server.compression import Encoder, encoder_for
from exporter.store.server.engine import Connection, Engine, Inserter
from exporter.store.server.errors import QueryError
from exporter.store.server.hello import HELLO, hello
from exporter.store.server.job import Job
from exporter.store.server.pipe import Pipe, PipeEnd
from exporter.store.server.request import DisconnectedError, Request, printable
from exporter.store.server.settings import Limits, read_url
from exporter.store.server.statement import Statement, first_values
from exporter.store.server.users import User

Result = TypeVar("Result")

#: An answer up to this size is sent in one piece, with its length, and an error instead of it.
_HOLD_BYTES: Final = 1 << 20


class Execution:
    """Owns the threads: one for each of the ``statements`` that run at a time, and helpers.

    Raises, where it runs something:
        QueryError: the engine, or a guard before it, refuses the statement.
        DisconnectedError: the client went away; what ran for it is stopped.
    """

    def __init__(self, engine: Engine, limits: Limits, statements: int) -> None:
        self._engine = engine
        self._limits = limits
        self._threads = ThreadPoolExecutor(statements, "statement")
        self._helpers = ThreadPoolExecutor(4, "helper")

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()
        self._helpers.shutdown()

    async def insert(self, job: Job, user: User, statement: Statement, insert: sql.Insert) -> None:
        """Insert the statement's data and what its body brings; answer when all is in."""
        job.format = insert.format
        connection = await self._in_thread(partial(self._begin, job, user))
        try:
            if insert.format == "Values":
                insert, whole = await first_values(insert, statement.body)
                await self._in_thread(partial(guard.check_values, connection, insert, whole=whole))
            inserter = await self._in_thread(
                partial(connection.insert, insert, self._engine.folder.temporary)
            )
            try:
                if insert.data:
                    await self._in_thread(partial(inserter.append, insert.data))
                async for piece in statement.body:
                    if piece:
                        await self._in_thread(partial(inserter.append, piece))
                await self._in_thread(partial(self._finish, inserter))
            except BaseException:
                self._helpers.submit(inserter.cancel)
                raise
        finally:
            self._helpers.submit(connection.close)
        await job.request.answer(200, job.headers(), b"")

    async def select(self, job: Job, user: User) -> None:
        """Run any other statement and answer with what it returns."""
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
                await self.in_helper(partial(self._engine.kill, request.token))
                raise
            finally:
                watch.cancel()
                pipe.close()
                # The turn is over only when the thread is free again.
                with contextlib.suppress(QueryError):
                    await work

    def kill(self, request: Request) -> None:
        """Have the request's statement stopped, without waiting for it."""
        self._helpers.submit(self._engine.kill, request.token)

    async def in_helper(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns, done beside the statements."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, work)

    def _begin(self, job: Job, user: User) -> Connection:
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
            self._limits,
            get=reading,
            insert=job.kind == "insert",
        )
        job.parameters = asked.parameters
        # What a statement is found by when it must be stopped.
        asked.settings["log_comment"] = request.token
        database = request.url.get("database") or request.headers.get("x-clickhouse-database", "")
        connection = self._engine.open(database, asked.settings)
        try:
            kind = guard.check(connection, job.text, user, asked.parameters)
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

    def _finish(self, inserter: Inserter) -> None:
        with self._engine.inserting():
            inserter.finish()

    def _execute(self, job: Job, user: User, end: PipeEnd) -> None:
        """Run a statement and write its answer into the pipe. Blocks."""
        with end, self._begin(job, user) as connection:
            query = sql.split_query(job.text.encode(), job.format)
            job.format = query.format
            if job.answers:
                connection.run(query.into(end.path), query.format, job.parameters)
            elif sql.verb(job.text.encode()) == "INSERT":
                with self._engine.inserting():
                    end.write(connection.run(job.text, query.format, job.parameters))
            else:
                end.write(connection.run(job.text, query.format, job.parameters))

    async def _answer(self, job: Job, pipe: Pipe, work: Awaitable[None], encoder: Encoder) -> None:
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
            body = await self.in_helper(lambda: encoder.encode(b"".join(parts)) + encoder.finish())
            await request.answer(200, {**job.headers(), **encoder.headers}, body)
            return
        tag = secrets.token_hex(8)
        headers = {**job.headers(), **encoder.headers, "X-ClickHouse-Exception-Tag": tag}
        await request.start(200, headers)
        part = b"".join(parts)
        parts.clear()
        while part:
            data = await self.in_helper(partial(encoder.encode, part))
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
        await self.in_helper(partial(self._engine.kill, request.token))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


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
