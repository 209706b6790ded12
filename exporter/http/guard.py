"""Whom the collector's HTTP server answers, and how long a body may take."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.listening import Host, host_of
from exporter.web_config import Access, WebConfig

_BODY_SECONDS = 10.0
#: Passwords that may wait to be checked, in all and from one host other than this.
_MAX_CHECKS = 32
_MAX_CHECKS_OF_A_HOST = 4


class Guard:
    """Whom the server answers, and with which headers; both can change while it runs.

    ``alerts_have_token``: posts of alerts carry a token that their routes check, in place of a
    user's password.
    """

    def __init__(self, web: WebConfig, *, alerts_have_token: bool) -> None:
        self.alerts_have_token = alerts_have_token
        self.access = Access({})
        self.replace(web)

    def replace(self, web: WebConfig) -> None:
        """Use these users and headers from the next request on."""
        self.access = Access(web.basic_auth_users, self.access)
        self.headers = [
            (name.lower().encode(), value.encode())
            for name, value in web.http_server_config.headers.items()
        ]


class _CrowdedError(Exception):
    """Too many passwords wait to be checked."""


class Guarded:
    """Refuses, before anything else is done, whom the guard does not know."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard
        self._checking = asyncio.Lock()
        self._waiting: Counter[Host] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._guard.headers]
            await send(message)

        refusal = await self._refusal(scope)
        if refusal is None:
            try:
                await self._app(scope, _in_time(receive), send_with_headers)
                return
            except TimeoutError:
                refusal = PlainTextResponse("the body is late\n", HTTPStatus.REQUEST_TIMEOUT)
        refusal.headers["Connection"] = "close"
        await refusal(scope, receive, send_with_headers)

    async def _check(self, access: Access, authorization: str, host: Host) -> bool:
        """One password at a time: whoever guesses takes a core at most, and no thread of others.

        Raises:
            _CrowdedError: too many wait.
        """
        with self._queued(host):
            async with self._checking:
                # Others may have shown the same password meanwhile.
                known = access.known(authorization)
                if known is None:
                    known = await run_in_threadpool(access.allows, authorization)
                return known

    @contextmanager
    def _queued(self, host: Host) -> Iterator[None]:
        """A place among those who wait, also of those who hang up: the server has so many requests
        at a time, however many connections, and would answer nobody else."""
        crowded = host is not None and self._waiting[host] >= _MAX_CHECKS_OF_A_HOST
        if crowded or self._waiting.total() >= _MAX_CHECKS:
            raise _CrowdedError
        self._waiting[host] += 1
        try:
            yield
        finally:
            self._waiting[host] -= 1
            if not self._waiting[host]:
                del self._waiting[host]

    async def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        alerts = scope["path"].startswith("/api/")
        access = self._guard.access
        if not (access.is_open or (alerts and self._guard.alerts_have_token)):
            authorization = headers.get("authorization", "")
            allowed = access.known(authorization)
            if allowed is None:
                client = scope["client"]
                host = host_of(client[0]) if client else None
                try:
                    allowed = await self._check(access, authorization, host)
                except _CrowdedError:
                    return PlainTextResponse(
                        "too many passwords wait to be checked\n",
                        HTTPStatus.TOO_MANY_REQUESTS,
                        {"Retry-After": "1"},
                    )
            if not allowed:
                return PlainTextResponse(
                    "unauthorized\n",
                    HTTPStatus.UNAUTHORIZED,
                    {"WWW-Authenticate": 'Basic realm="flow-exporter", charset="UTF-8"'},
                )
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if alerts and scope["method"] == "POST" and kind != "application/json":
            # A web page in someone's browser can post other types here without asking first.
            return PlainTextResponse(
                "application/json is expected\n", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            )
        return None


def _in_time(receive: Receive) -> Receive:
    """``receive`` that raises ``TimeoutError`` for a body that drips in."""
    deadline = time.monotonic() + _BODY_SECONDS
    complete = False

    async def receive_in_time() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        message = await asyncio.wait_for(receive(), deadline - time.monotonic())
        complete = not message.get("more_body", False)
        return message

    return receive_in_time
