"""The collector's HTTP server: metrics, health, reload, and whatever routes other parts bring."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import uvicorn
from prometheus_client.exposition import gzip_accepted
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from exporter.config import ConfigError, Http
from exporter.listening import Connections, Listener, cannot_listen
from exporter.metrics.exposition import render
from exporter.web_config import Access, WebConfig, tls_context

log = logging.getLogger(__name__)

_BODY_SECONDS = 10.0
#: A peer that should ask, or read its answer, has this long, and at most twice as long.
_PATIENCE_SECONDS = 10.0
#: From here on requests are answered with 503.
_BUSY_CONNECTIONS = 64
_MAX_CONNECTIONS = 256
_MAX_CONNECTIONS_OF_A_HOST = 16
_START_SECONDS = 10.0
_STOP_SECONDS = 3

#: Says why something is not as it should be, or nothing when all is well.
Check = Callable[[], str | None]


class HttpServerError(Exception):
    """The server cannot be started; the text names the address and the reason."""


@dataclass(frozen=True, slots=True)
class Health:
    """``alive``: the process is worth keeping; ``ready``: flows are taken in and stored."""

    alive: Sequence[Check] = ()
    ready: Sequence[Check] = ()


def create_app(
    registry: Collector,
    health: Health,
    routes: Iterable[BaseRoute],
    reload: Callable[[], None],
    guard: Guard,
) -> Starlette:
    """The application. ``reload`` raises :class:`ConfigError` when the old settings stay."""

    def metrics(request: Request) -> Response:
        body, content_type = render(
            registry,
            request.headers.get("accept", ""),
            # Only Prometheus and its kin send this header, not people with curl.
            scrape="x-prometheus-scrape-timeout-seconds" in request.headers,
        )
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        return Response(body, headers=headers)

    def healthy(_: Request) -> Response:
        return _state(health.alive, "healthy")

    def ready(_: Request) -> Response:
        return _state([*health.alive, *health.ready], "ready")

    def reload_now(_: Request) -> Response:
        try:
            reload()
        except ConfigError as error:
            return PlainTextResponse(f"not reloaded: {error}\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        return PlainTextResponse("reloaded\n")

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", reload_now, methods=["POST"]),
            *routes,
        ],
        middleware=[Middleware(_Guarded, guard=guard)],
    )


def _state(checks: Iterable[Check], word: str) -> Response:
    reasons = [reason for check in checks if (reason := check()) is not None]
    if not reasons:
        return PlainTextResponse(f"{word}\n")
    return PlainTextResponse(
        f"not {word}: " + "; ".join(reasons) + "\n", HTTPStatus.SERVICE_UNAVAILABLE
    )


class Guard:
    """Whom the server answers, and with which headers; both can change while it runs.

    ``alerts_have_token``: posts of alerts carry a token that their routes check, in place of a
    user's password.
    """

    def __init__(self, web: WebConfig, *, alerts_have_token: bool) -> None:
        self.alerts_have_token = alerts_have_token
        self.replace(web)

    def replace(self, web: WebConfig) -> None:
        """Use these users and headers from the next request on."""
        self.access = Access(web.basic_auth_users)
        self.headers = [
            (name.lower().encode(), value.encode())
            for name, value in web.http_server_config.headers.items()
        ]


class _Guarded:
    """Refuses, before anything else is done, whom the guard does not know."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard
        self._checking = asyncio.Lock()

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

    async def _check(self, access: Access, authorization: str) -> bool:
        """One password at a time: whoever guesses takes a core at most, and no thread of others."""
        async with self._checking:
            return await run_in_threadpool(access.allows, authorization)

    async def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        alerts = scope["path"].startswith("/api/")
        access = self._guard.access
        if not (access.is_open or (alerts and self._guard.alerts_have_token)):
            authorization = headers.get("authorization", "")
            if not access.remembers(authorization) and not await self._check(access, authorization):
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


class _Connection(H11Protocol):
    """Ends when its peer sends no whole request, or does not read all of its answer, in time.

    Uvicorn itself waits for ever: a few such peers would take all connections that there may be.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(_PATIENCE_SECONDS, self._look, self._peer_owes())

    def _look(self, owed: tuple[str, RequestResponseCycle | None] | None) -> None:
        if owed is not None and owed == self._peer_owes():
            self.transport.abort()
        else:
            self._look_again()

    def _peer_owes(self) -> tuple[str, RequestResponseCycle | None] | None:
        """What the peer has to do after which exchange; ``None`` while it is our turn."""
        if self.transport.get_write_buffer_size():
            return "read", self.cycle
        if self.cycle is None or self.cycle.response_complete:
            return "ask", self.cycle
        return None


class HttpServer:
    """Serves an application from a thread of its own, between :meth:`start` and :meth:`stop`.

    ``connections`` counts who is connected.

    Raises:
        HttpServerError: the address cannot be listened on.
        ConfigError: a certificate cannot be used.
    """

    def __init__(self, settings: Http, web: WebConfig, app: ASGIApp) -> None:
        self._tls = web.tls_server_config
        self._context = tls_context(self._tls) if self._tls else None
        self.connections = Connections(
            "flow_exporter_http", total=_MAX_CONNECTIONS, each=_MAX_CONNECTIONS_OF_A_HOST
        )
        self._socket = Listener.of(_listen(settings), self.connections)
        self.port: int = self._socket.getsockname()[1]
        options = uvicorn.Config(
            app,
            loop="asyncio",  # others do not ask the listener
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_BUSY_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_context_factory=self._make_context if self._tls else None,
        )
        self._server = uvicorn.Server(options)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def _make_context(self, *_: object) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise HttpServerError("the HTTP server did not start")
            time.sleep(0.005)

    def stop(self) -> None:
        """Finish the requests that run, within seconds, then close."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS + 2)
        self._socket.close()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def reload_certificate(self, web: WebConfig) -> None:
        """Show new connections the certificate that is now in the files.

        Raises:
            ConfigError: the certificate cannot be used, or other TLS settings changed.
        """
        if web.tls_server_config != self._tls:
            raise ConfigError("tls_server_config has changed: that takes a restart")
        if self._tls is not None and self._context is not None:
            tls_context(self._tls)  # the context in use stays whole when this fails
            self._context.load_cert_chain(self._tls.cert_file, self._tls.key_file)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:
            log.exception("the HTTP server has stopped")


def _listen(settings: Http) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.address, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        where = f"{settings.address} port {settings.port}/tcp"
        raise HttpServerError(cannot_listen(where, error)) from error
