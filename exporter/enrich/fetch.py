"""An answer over HTTP, with bounds on its length and on the time that all of it may take."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, Final, Self

_PART_BYTES: Final = 1 << 16


class TooLateError(OSError):
    """The peer has not sent all of its answer in time."""


class TooLongError(OSError):
    """The answer is longer than it may be."""


def fetch(
    url: str, headers: Mapping[str, str], secrets: Mapping[str, str], seconds: float, most: int
) -> bytes:
    """The body of what ``url`` answers: at most ``most`` bytes, within ``seconds`` in all.

    ``secrets`` are headers that are not sent on to where the server redirects to.

    Raises:
        OSError: it cannot be had, or not in these bounds; ``http.client.HTTPException``: the
            answer is no HTTP.
    """
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - the opener's schemes
    for name, value in secrets.items():
        request.add_unredirected_header(name, value)
    answer: Future[bytes] = Future()

    def ask() -> None:
        try:
            answer.set_result(_body(_opener(connections), request, seconds, most))
        except Exception as error:
            answer.set_exception(error)

    with _Connections() as connections:
        # A thread can be left to itself, whatever it waits for: resolvers know no time limit, and
        # that of a socket begins anew with every octet that comes.
        threading.Thread(target=ask, name="fetch", daemon=True).start()
        try:
            return answer.result(seconds)
        except FutureTimeoutError:
            raise TooLateError(f"the answer takes longer than {seconds:g} s") from None


def _body(
    opener: urllib.request.OpenerDirector,
    request: urllib.request.Request,
    seconds: float,
    most: int,
) -> bytes:
    body = bytearray()
    with opener.open(request, timeout=seconds) as answer:
        while part := answer.read1(_PART_BYTES):
            body += part
            if len(body) > most:
                raise TooLongError(f"the answer is longer than {most} bytes")
    return bytes(body)


class _Connections:
    """The connections of one request; all end when it does, whoever waits for them."""

    def __init__(self) -> None:
        self._ended = False
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
            for each in self._watched:
                _end(each)

    def connect(self, *arguments: Any) -> socket.socket:
        """As ``socket.create_connection``; whatever wraps the socket later, this ends it."""
        connected = socket.create_connection(*arguments)
        with self._lock:
            watched = socket.socket(fileno=os.dup(connected.fileno()))
            if self._ended:
                _end(watched)
            else:
                self._watched.append(watched)
        return connected


def _end(connected: socket.socket) -> None:
    with connected, contextlib.suppress(OSError):  # it may have ended by itself
        connected.shutdown(socket.SHUT_RDWR)


def _opener(connections: _Connections) -> urllib.request.OpenerDirector:
    """Speaks HTTP and nothing else: a redirect to a file or to FTP leads nowhere."""

    class Plain(HTTPConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            # Before a proxy is asked for a tunnel, and before the TLS handshake.
            self._create_connection = connections.connect

    class Tls(HTTPSConnection, Plain):
        pass

    class Handler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(Plain, req)

    class TlsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(Tls, req, context=ssl.create_default_context())

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, *rest: Any) -> urllib.request.Request | None:
            fp.close()  # else all of it is read, however much it is
            return super().redirect_request(req, fp, *rest)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        Handler(),
        TlsHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
