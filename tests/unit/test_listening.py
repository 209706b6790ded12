"""A server keeps connections for others, however many one host opens."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry

import exporter.listening
from exporter.config import Http
from exporter.http import Guard, Health, HttpServer, create_app
from exporter.listening import Connections, Listener, cannot_listen
from exporter.web_config import TlsServerConfig, WebConfig
from tests.support.stack import soon


def value(connections: Connections, name: str, reason: str | None = None) -> float:
    registry = CollectorRegistry()
    registry.register(connections)
    labels = {} if reason is None else {"reason": reason}
    found = registry.get_sample_value(f"served_{name}", labels)
    assert found is not None
    return found


def admitted(connections: Connections, address: str) -> bool:
    try:
        connections.enter(address)
    except ConnectionAbortedError:
        return False
    return True


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ("fe80::1%eth0", "fe80::2", "fe81::1"),
    ],
)
def test_a_host_has_its_share_whatever_address_of_its_own_it_uses(
    address: str, same: str, other: str
) -> None:
    connections = Connections("served", total=10, each=2)
    assert admitted(connections, address)
    assert admitted(connections, same)
    assert not admitted(connections, same)
    assert admitted(connections, other)
    assert value(connections, "connections") == 3
    assert value(connections, "refused_connections_total", "host") == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_has_all_there_are(address: str) -> None:
    connections = Connections("served", total=10, each=2)
    assert [admitted(connections, address) for _ in range(11)] == [True] * 10 + [False]
    assert not admitted(connections, "192.0.2.1")
    assert value(connections, "refused_connections_total", "total") == 2


def test_who_leaves_may_come_again() -> None:
    connections = Connections("served", total=2, each=1)
    for _ in range(5):
        host = connections.enter("192.0.2.1")
        assert not admitted(connections, "192.0.2.1")
        connections.leave(host)
    assert value(connections, "connections") == 0


def test_refusals_are_logged_rarely(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections("served", total=10, each=1)
    assert sum(admitted(connections, "192.0.2.7") for _ in range(50)) == 1
    said = "a connection from 192.0.2.7 was refused: all 1 that this host may have are open"
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize(
    ("address", "port", "said"),
    [
        ("127.0.0.1", None, "cannot listen on there: Address already in use: another program"),
        ("192.0.2.1", 0, "cannot listen on there: Cannot assign requested address: no interface"),
        ("no such name", 0, "cannot listen on there: Name or service not known"),
    ],
)
def test_what_cannot_be_listened_on_is_told_with_what_to_do(
    address: str, port: int | None, said: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match=r"in use|assign|not known") as failed,
    ):
        socket.create_server((address, taken.getsockname()[1] if port is None else port))
    assert cannot_listen("there", failed.value).startswith(said)


def _far(address: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(address)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """The collector's server, to which addresses of loopback are other hosts."""
    monkeypatch.setattr(exporter.listening, "host_of", _far)
    guard = Guard(WebConfig(), alerts_have_token=False)
    app = create_app(CollectorRegistry(), Health(), [], lambda: None, guard)
    running = HttpServer(Http(port=0), WebConfig(), app)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def _connected(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))


def _status(port: int, source: str) -> bytes:
    with contextlib.suppress(ConnectionError), _connected(port, source) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(12)
    return b""


def test_one_host_leaves_connections_of_the_collector_to_others(server: HttpServer) -> None:
    idle = [_connected(server.port, "127.0.0.2") for _ in range(40)]
    assert _status(server.port, "127.0.0.2") == b""
    assert _status(server.port, "127.0.0.3") == b"HTTP/1.1 200"
    for client in idle:
        client.close()
    soon(lambda: _status(server.port, "127.0.0.2") == b"HTTP/1.1 200")


def test_whatever_ends_a_connection_it_is_no_longer_counted(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = TlsServerConfig(cert_file=f"{tmp_path}/cert.pem", key_file=f"{tmp_path}/key.pem")
    guard = Guard(WebConfig(), alerts_have_token=False)
    app = create_app(CollectorRegistry(), Health(), [], lambda: None, guard)
    running = HttpServer(Http(port=0), WebConfig(tls_server_config=tls), app)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    running.start()
    try:
        held = _connected(running.port, "127.0.0.1")
        soon(lambda: _open(running) == 1)
        for begin in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"):
            _connected(running.port, "127.0.0.1").close()  # before a word
            with _connected(running.port, "127.0.0.1") as client:
                client.sendall(begin)
            with _connected(running.port, "127.0.0.1") as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(begin)  # and a reset
        with (
            contextlib.suppress(ssl.SSLError),
            ssl.create_default_context().wrap_socket(
                _connected(running.port, "127.0.0.1"), server_hostname="127.0.0.1"
            ),
        ):
            pytest.fail("the certificate is not to be trusted")
        with trusting.wrap_socket(
            _connected(running.port, "127.0.0.1"), server_hostname="127.0.0.1"
        ) as client:
            client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        soon(lambda: _open(running) == 1)
        held.close()
        soon(lambda: _open(running) == 0)
    finally:
        running.stop()


def _open(server: HttpServer) -> float:
    [number] = [m for m in server.connections.collect() if m.name.endswith("http_connections")]
    return number.samples[0].value


def test_a_listener_is_taken_over_whole() -> None:
    connections = Connections("served", total=1, each=1)
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(20)
        port = opened.getsockname()[1]
        with Listener.of(opened, connections) as listener:
            assert opened.fileno() == -1
            first = socket.create_connection(("127.0.0.1", port))
            accepted, _ = listener.accept()
            second = socket.create_connection(("127.0.0.1", port))
            with pytest.raises(ConnectionAbortedError):
                listener.accept()
            assert second.recv(1) == b""
            accepted.close()
            accepted.close()
            assert value(connections, "connections") == 0
            for client in (first, second):
                client.close()
