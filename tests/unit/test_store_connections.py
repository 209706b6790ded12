"""Peers of the store that never finish a request's head keep no connection; others keep theirs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from exporter.store.server import connection
from tests.support.stack import soon

ASK = b"POST / HTTP/1.1\r\nHost: store\r\nContent-Length: 4\r\n\r\n"


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] != "/":
        # Answered without a look at the body, as a wrong password is.
        size = 64 << 20 if scope["path"] == "/long" else 4
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})
        return
    body = b""
    while len(body) < 4:
        body += (await receive()).get("body", b"")
    headers = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
def port(server: uvicorn.Server, listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


@pytest.fixture
def server(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server whose patience is short, yet long enough for a busy machine to ask in it."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 1.5)
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 3.0)
    config = uvicorn.Config(
        _echo, http=connection.Connection, lifespan="off", log_config=None, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield server
    server.should_exit = True
    thread.join()


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120)


def _answer(peer: socket.socket) -> bytes:
    came = b""
    while b"\r\n\r\n" not in came or len(came.partition(b"\r\n\r\n")[2]) < 4:
        more = peer.recv(4096)
        assert more, came
        came += more
    return came.partition(b"\r\n\r\n")[2]


def _is_ended(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("begin", [b"", b"POST / HTTP/1.1\r\nHost: st"])
def test_who_asks_nothing_or_half_loses_the_connection(port: int, begin: bytes) -> None:
    with _connect(port) as peer:
        peer.sendall(begin)
        assert _is_ended(peer)


def test_a_second_request_has_no_longer_than_the_first(port: int) -> None:
    with _connect(port) as peer:
        peer.sendall(ASK + b"rows")
        assert _answer(peer) == b"rows"
        peer.sendall(b"POST / HT")
        assert _is_ended(peer)


def test_a_body_may_pause(port: int) -> None:
    with _connect(port) as peer:
        peer.sendall(ASK + b"ro")
        time.sleep(3.0)
        peer.sendall(b"ws")
        assert _answer(peer) == b"rows"


def test_a_body_that_was_answered_goes_on_for_a_while_only(port: int) -> None:
    with _connect(port) as peer:
        peer.sendall(ASK.replace(b"/ ", b"/other ") + b"r")
        assert _answer(peer) == b"xxxx"
        peer.sendall(b"o")
        assert _is_ended(peer)


def test_after_the_rest_of_such_a_body_the_next_request_is_answered(port: int) -> None:
    with _connect(port) as peer:
        peer.sendall(ASK.replace(b"/ ", b"/other ") + b"r")
        assert _answer(peer) == b"xxxx"
        peer.sendall(b"ows")
        time.sleep(3.0)
        peer.sendall(ASK + b"rows")
        assert _answer(peer) == b"rows"


def test_who_reads_no_answer_loses_it(server: uvicorn.Server, port: int) -> None:
    with _connect(port) as peer:
        peer.sendall(ASK.replace(b"/ ", b"/long ") + b"rows")
        soon(lambda: server.server_state.connections)
        soon(lambda: not server.server_state.connections)


def test_who_reads_slowly_gets_all_of_it(port: int) -> None:
    with _connect(port) as peer:
        peer.sendall(ASK.replace(b"/ ", b"/long ") + b"rows")
        came = 0
        while came < 64 << 20:
            more = peer.recv(4 << 20)
            assert more, came
            came += len(more)
            time.sleep(0.1)


def test_a_head_without_end_is_not_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 600.0)
    head = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(64 << 10))
    with _connect(port) as peer, pytest.raises((ConnectionResetError, BrokenPipeError)):
        peer.sendall(b"POST / HTTP/1.1\r\n" + head)
