"""ClickHouse's HTTP interface as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from exporter.store.server.engine import Engine
from exporter.store.server.errors import QueryError
from exporter.store.server.execution import Execution
from exporter.store.server.job import Job
from exporter.store.server.metrics import StoreMetrics
from exporter.store.server.request import (
    DisconnectedError,
    Receive,
    Request,
    Scope,
    Send,
    printable,
)
from exporter.store.server.settings import Limits
from exporter.store.server.statement import read_statement
from exporter.store.server.users import User, Users

log = logging.getLogger(__name__)

_TEXT: Final = {"Content-Type": "text/plain; charset=UTF-8"}


@dataclass(frozen=True, slots=True)
class Options:
    """Bounds of the server as a whole and of each query.

    ``queries`` and ``inserts`` run at a time, apart, and three quarters of the queries may be the
    reader's, so that dashboards cannot hold up a collector. Of each of these, ``waiting`` may wait
    for ``wait_seconds``. A client that neither sends nor reads
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


class _Turns:
    """What must be had to run, in this order, and how many wait for it."""

    def __init__(self, *slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self.waiting = 0

    @property
    def free(self) -> bool:
        """Whether nobody has to wait."""
        return not any(slots.locked() for slots in self._slots)

    async def take(self, taken: contextlib.AsyncExitStack) -> None:
        """Wait for them; ``taken`` gives them back."""
        for slots in self._slots:
            await taken.enter_async_context(slots)


class Store:
    """The application: asks who it is, reads the statement, and gives it its turn."""

    def __init__(
        self, engine: Engine, users: Users, options: Options, metrics: StoreMetrics
    ) -> None:
        self._version = engine.version
        self._users = users
        self._options = options
        self._metrics = metrics
        queries = asyncio.Semaphore(options.queries)
        of_reader = asyncio.Semaphore(max(options.queries * 3 // 4, 1))
        self._reads = _Turns(of_reader, queries)
        self._queries = _Turns(queries)
        self._inserts = _Turns(asyncio.Semaphore(options.inserts))
        self._scraping = asyncio.Lock()
        self._execution = Execution(engine, options.limits, options.queries + options.inserts)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._execution.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request.of(scope, receive, send, self._options.stall_seconds)
        reading = request.method in ("GET", "HEAD")
        if request.path == "/metrics" and reading:
            # One at a time: it asks no password, and helpers have other work.
            async with self._scraping:
                body = await self._execution.in_helper(self._metrics.render)
            await request.answer(200, {"Content-Type": self._metrics.content_type}, body)
        elif request.path in ("/ping", "/replicas_status") and reading:
            await request.answer(200, _TEXT, b"Ok.\n")
        elif request.path != "/":
            await request.answer(404, _TEXT, b"There is no such path: use /, /ping or /metrics.\n")
        elif reading and "query" not in request.url:
            await request.answer(200, _TEXT, b"Ok.\n")
        elif reading or request.method == "POST":
            await self._serve(Job(request))
        else:
            await request.answer(405, {**_TEXT, "Allow": "GET, HEAD, POST"}, b"Use POST.\n")

    async def _serve(self, job: Job) -> None:
        """Run a statement, whatever comes of it, and count it."""
        request = job.request
        outcome = "error"
        try:
            job.user = self._users.authenticate(request.headers, request.url)
            statement = await read_statement(
                request, self._options.statement_bytes, self._execution.in_helper
            )
            job.kind, job.text = statement.kind, statement.text
            async with self._turn(job.kind, job.user):
                if statement.insert is not None:
                    await self._execution.insert(job, job.user, statement, statement.insert)
                else:
                    await self._execution.select(job, job.user)
            outcome = "ok"
        except QueryError as error:
            await self._fail(request, error)
        except DisconnectedError:
            outcome = "cancelled"
        except asyncio.CancelledError:
            outcome = "cancelled"
            self._execution.kill(request)
            raise
        except Exception:
            log.exception("query %s: internal error", request.query_id)
            await self._fail(request, QueryError(1001, "STD_EXCEPTION", "Internal error."))
        finally:
            if request.gone:
                outcome = "cancelled"
            self._finished(job, outcome)

    def _finished(self, job: Job, outcome: str) -> None:
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
    async def _turn(self, kind: str, user: User) -> AsyncIterator[None]:
        """A turn to run: few run at a time, some wait, more are refused."""
        if kind == "insert":
            turns = self._inserts
        else:
            turns = self._reads if user.read_only else self._queries
        async with contextlib.AsyncExitStack() as taken:
            if turns.free:
                await turns.take(taken)
            elif turns.waiting >= self._options.waiting:
                raise _too_many()
            else:
                turns.waiting += 1
                try:
                    with self._metrics.waiting():
                        async with asyncio.timeout(self._options.wait_seconds):
                            await turns.take(taken)
                except TimeoutError as error:
                    raise _too_many() from error
                finally:
                    turns.waiting -= 1
            with self._metrics.executing():
                yield

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
        text = f"{error} (version {self._version})\n"
        await request.answer(error.status, headers, text.encode())


def _too_many() -> QueryError:
    return QueryError(
        202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries; try again."
    )
