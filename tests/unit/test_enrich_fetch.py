"""Answers over HTTP are had whole and in time, or not at all, whatever the peer sends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exporter.enrich.fetch import TooLateError, TooLongError, fetch

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def serving(*talks: Callable[[socket.socket], object]) -> Iterator[str]:
    """The URL of a server that holds these talks, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for talk in talks:
                connection, _ = server.accept()
                with connection, contextlib.suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"//127.0.0.1:{server.getsockname()[1]}/"
        thread.join(120)
        assert not thread.is_alive(), "the connection was not ended"


def saying(answer: bytes) -> Callable[[socket.socket], object]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return talk


def dripping(begin: bytes, drop: bytes) -> Callable[[socket.socket], object]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        while True:
            connection.sendall(drop)
            time.sleep(0.02)

    return talk


def asked(url: str, seconds: float = 20.0) -> bytes:
    return fetch(url, {"Accept": "application/json"}, {"Authorization": "geheim"}, seconds, 1000)


@pytest.mark.parametrize(
    ("scheme", "begin", "drop"),
    [
        ("http:", b"", b"H"),
        ("http:", OK + b"X-Slow: ", b"x"),
        ("http:", OK + b"\r\n", b" "),
        ("http:", OK + b"Content-Length: 900\r\n\r\n", b" "),
        # A TLS record of 16 KiB that never is complete.
        ("https:", b"\x16\x03\x03\x40\x00", b"\x00"),
    ],
    ids=["status", "header", "body", "body of known length", "handshake"],
)
def test_an_answer_that_drips_in_is_given_up(scheme: str, begin: bytes, drop: bytes) -> None:
    # Longer than it takes to begin, shorter than the drops could go on.
    with serving(dripping(begin, drop)) as url, pytest.raises(TooLateError, match=r"than 0\.5 s"):
        asked(scheme + url, 0.5)


def test_a_proxy_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(dripping(OK + b"X-Slow: ", b"x")) as url:
        monkeypatch.setenv("https_proxy", "http:" + url)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(TooLateError, match=r"than 0\.5 s"):
            asked("https://collector.example/", 0.5)


def test_a_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answers.wait(60))
    began = time.monotonic()
    with pytest.raises(TooLateError):
        asked("http://collector.example/", 0.5)
    assert time.monotonic() - began < 30
    answers.set()


def test_who_is_connected_too_late_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()
    resolve = socket.getaddrinfo

    def late(*arguments: Any, **options: Any) -> Any:
        resolved.wait(60)
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", late)

    def until_it_ends(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with serving(until_it_ends) as url:
        with pytest.raises(TooLateError):
            asked("http:" + url, 0.2)
        resolved.set()


def test_an_answer_ends_where_its_server_says() -> None:
    with serving(saying(OK + b"Content-Length: 2\r\n\r\n[]")) as url:
        assert asked("http:" + url) == b"[]"


def test_a_long_answer_is_given_up() -> None:
    with serving(saying(OK + b"\r\n" + b" " * 2000)) as url, pytest.raises(TooLongError):
        asked("http:" + url)


def test_a_redirect_is_followed_without_the_secret_and_its_own_body() -> None:
    heard: list[bytes] = []

    def target(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(OK + b"\r\n[]")

    with serving(target) as there:
        endless = dripping(f"HTTP/1.1 302 Found\r\nLocation: http:{there}\r\n\r\n".encode(), b"x")
        with serving(endless) as url:
            assert asked("http:" + url) == b"[]"
    assert b"application/json" in heard[0]
    assert b"geheim" not in heard[0]


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_leads_to_http_only(place: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    with serving(saying(answer)) as url, pytest.raises(OSError, match=r"not allowed|unknown url"):
        asked("http:" + url)
