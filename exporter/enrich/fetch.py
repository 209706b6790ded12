"""An answer over HTTP, with bounds on its length and on the time that all of it may take."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
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
    body = bytearray()
    with _Deadline(seconds) as deadline:
        try:
            with _opener(deadline).open(request, timeout=seconds) as answer:
                while part := answer.read1(_PART_BYTES):
                    body += part
                    if len(body) > most:
                        raise TooLongError(f"the answer is longer than {most} bytes")
        except (OSError, HTTPException):
            if not deadline.is_over:
                raise
        # An answer without a length ends as well when its connection is shut down.
        if deadline.is_over:
            raise TooLateError(f"the answer takes longer than {seconds:g} s")
    return bytes(body)


class _Deadline:
    """Shuts down, once time is up, the connections of one request.

    A socket's own timeout begins anew with every octet that comes.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for each in self._watched:
                each.close()
            self._watched.clear()

    def watch(self, connected: socket.socket) -> None:
        """End this connection, too; whatever wraps the socket later, it is the same connection."""
        with self._lock:
            self._watched.append(socket.socket(fileno=os.dup(connected.fileno())))
        if self.is_over:
            self._end()

    def _end(self) -> None:
        self.is_over = True
        with self._lock:
            for each in self._watched:
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it has ended by itself


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """Speaks HTTP and nothing else: a redirect to a file or to FTP leads nowhere."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    # In this order the connection is watched before its TLS handshake.
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
