"""Serves the application over HTTP, as long as its peers do their part."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from exporter.config import ConfigError, Http
from exporter.listening import Connections, Listener, cannot_listen
from exporter.web_config import WebConfig, tls_context

log = logging.getLogger(__name__)

#: A peer that should ask, or read its answer, has this long, and at most twice as long.
_PATIENCE_SECONDS = 10.0
#: From here on requests are answered with 503.
_BUSY_CONNECTIONS = 64
_MAX_CONNECTIONS = 256
_MAX_CONNECTIONS_OF_A_HOST = 16
_START_SECONDS = 10.0
_STOP_SECONDS = 3


class HttpServerError(Exception):
    """The server cannot be started; the text names the address and the reason."""


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
            proxy_headers=False,  # who is connected counts, not whom he names
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
