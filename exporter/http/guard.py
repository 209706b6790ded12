"""Whom the collector's HTTP server answers, and how long a body may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.places import Host, Places, host_of
from exporter.web_config import Access, WebConfig

_BODY_SECONDS = 10.0
#: Requests at work, in all and from one host other than this.
_MAX_REQUESTS = 64
_MAX_REQUESTS_OF_A_HOST = 16
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
    """Too many are at it."""


@contextmanager
def _place(places: Places, host: Host) -> Iterator[None]:
    """A place for as long as this lasts.

    Who hangs up keeps his until his request has ended: uvicorn ends none, and has so many at a time
    that it answers nobody else then, however few connections there are.

    Raises:
        _CrowdedError: there is none.
    """
    if places.take(host) is not None:
        raise _CrowdedError
    try:
        yield
    finally:
        places.leave(host)


class Guarded:
    """Refuses, before anything else is done, whom the guard does not know."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard
        self._checking = asyncio.Lock()
        self._requests = Places(total=_MAX_REQUESTS, each=_MAX_REQUESTS_OF_A_HOST)
        self._checks = Places(total=_MAX_CHECKS, each=_MAX_CHECKS_OF_A_HOST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._guard.headers]
            await send(message)

        if scope["client"] is None:  # he has gone already
            await Response(status_code=HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return
        host = host_of(scope["client"][0])
        try:
            with _place(self._requests, host):
                refusal = await self._refusal(scope, host)
                if refusal is None:
                    await self._app(scope, _in_time(receive), send_with_headers)
                    return
        except TimeoutError:
            refusal = PlainTextResponse("the body is late\n", HTTPStatus.REQUEST_TIMEOUT)
        except _CrowdedError:
            refusal = PlainTextResponse(
                "too many requests of this host, or passwords of anybody, are at work\n",
                HTTPStatus.SERVICE_UNAVAILABLE,  # after which Alertmanager tries again
                {"Retry-After": "1"},
            )
        refusal.headers["Connection"] = "close"
        await refusal(scope, receive, send_with_headers)

    async def _check(self, access: Access, authorization: str, host: Host) -> bool:
        """One password at a time: whoever guesses takes a core at most, and no thread of others.

        Raises:
            _CrowdedError: too many wait.
        """
        with _place(self._checks, host):
            async with self._checking:
                # Others may have shown the same password meanwhile.
                known = access.known(authorization)
                if known is None:
                    known = await run_in_threadpool(access.allows, authorization)
                return known

    async def _refusal(self, scope: Scope, host: Host) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] == "POST" and "origin" in headers:
            # Browsers tell whose page posts, also where a name of it was bound to this machine.
            return PlainTextResponse("web pages cannot post here\n", HTTPStatus.FORBIDDEN)
        alerts = scope["path"].startswith("/api/")
        access = self._guard.access
        if not (access.is_open or (alerts and self._guard.alerts_have_token)):
            authorization = headers.get("authorization", "")
            allowed = access.known(authorization)
            if allowed is None:
                allowed = await self._check(access, authorization, host)
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
