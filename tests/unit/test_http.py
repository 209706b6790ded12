"""The collector's HTTP server: what it answers, to whom, and how it fails."""

import base64
import contextlib
import gzip
import http.client
import json
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest
import trustme
from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import exporter.http.guard
import exporter.http.server
import exporter.web_config
from exporter.config import ConfigError, Http
from exporter.http import Guard, Health, HttpServer, HttpServerError, create_app
from exporter.web_config import WebConfig, load_web_config
from tests.support.stack import soon

PASSWORD = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


ECHO = Route("/api/v1/webhook", _echo, methods=["POST"])


class Served:
    """A running server and requests to it."""

    def __init__(self, web=None, *, token=False, health=None, reload=lambda: None, routes=(ECHO,)):
        web = web or WebConfig()
        registry = CollectorRegistry()
        Counter("things", "Things.", registry=registry).inc(3)
        self.guard = Guard(web, alerts_have_token=token)
        app = create_app(registry, health or Health(), routes, reload, self.guard)
        self.server = HttpServer(Http(port=0), web, app)

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop()

    def ask(self, path, method="GET", body=None, headers=None, tls=None):
        connect = http.client.HTTPConnection if tls is None else http.client.HTTPSConnection
        options = {} if tls is None else {"context": tls}
        connection = connect("127.0.0.1", self.server.port, timeout=60, **options)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def post(self, body=b"{}", **headers):
        return self.ask(
            "/api/v1/webhook", "POST", body, {"Content-Type": "application/json"} | headers
        )


@pytest.fixture(scope="module")
def served():
    with Served() as running:
        yield running


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("accept", "content_type", "end"),
    [
        ("", "text/plain; version=", b""),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", b"# EOF\n"),
    ],
)
def test_metrics_come_in_the_format_that_is_asked_for(served, accept, content_type, end):
    status, body, headers = served.ask("/metrics", headers={"Accept": accept})
    assert status == 200
    assert headers["Content-Type"].startswith(content_type)
    assert b"things_total 3.0\n" in body
    assert body.endswith(end)


def test_metrics_are_compressed_for_those_who_can_read_it(served):
    _, body, headers = served.ask("/metrics", headers={"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert b"things_total 3.0" in gzip.decompress(body)


def test_health_names_its_reasons():
    reasons = {"alive": None, "ready": "ClickHouse is away"}
    health = Health([lambda: reasons["alive"]], [lambda: reasons["ready"]])
    with Served(health=health) as served:
        assert served.ask("/-/healthy")[:2] == (200, b"healthy\n")
        assert served.ask("/-/ready")[:2] == (503, b"not ready: ClickHouse is away\n")
        reasons["ready"] = None
        assert served.ask("/-/ready")[:2] == (200, b"ready\n")
        reasons["alive"] = "decoding has stopped"
        assert served.ask("/-/healthy")[:2] == (503, b"not healthy: decoding has stopped\n")
        assert served.ask("/-/ready")[0] == 503


def test_reload_is_a_post_and_says_when_it_failed():
    faults = []

    def reload():
        if faults:
            raise ConfigError(faults[0])

    with Served(reload=reload) as served:
        assert served.ask("/-/reload")[0] == 405
        assert served.ask("/-/reload", "POST")[:2] == (200, b"reloaded\n")
        faults.append("flow.yaml:3: what")
        assert served.ask("/-/reload", "POST")[:2] == (500, b"not reloaded: flow.yaml:3: what\n")


def test_alerts_are_taken_as_json_only_so_that_web_pages_cannot_post_them(served):
    assert served.post(b"{}")[:2] == (200, b"2")
    status, _, _ = served.ask("/api/v1/webhook", "POST", b"{}", {"Content-Type": "text/plain"})
    assert status == 415


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://127.0.0.1:9105", "null"])
def test_web_pages_can_post_nothing_whatever_name_they_have_here(origin):
    reloads = []
    with Served(reload=lambda: reloads.append(1)) as served:
        assert served.post(b"{}", Origin=origin)[0] == 403
        assert served.ask("/-/reload", "POST", headers={"Origin": origin})[0] == 403
        assert served.ask("/metrics", headers={"Origin": origin})[0] == 200
    assert not reloads


def test_a_body_that_drips_in_is_given_up(monkeypatch):
    monkeypatch.setattr(exporter.http.guard, "_BODY_SECONDS", 0.2)
    with Served() as served, socket.create_connection(("127.0.0.1", served.server.port)) as client:
        client.sendall(
            b"POST /api/v1/webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        client.settimeout(30)
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def test_connections_are_bounded_and_the_server_recovers():
    with Served() as served:
        idle = [socket.create_connection(("127.0.0.1", served.server.port)) for _ in range(80)]
        soon(lambda: served.ask("/metrics")[0] == 503)
        for client in idle:
            client.close()
        soon(lambda: served.ask("/metrics")[0] == 200)


@pytest.mark.parametrize("begin", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
def test_who_never_asks_loses_the_connection_to_others(monkeypatch, begin):
    # As long as it takes to connect them all and to be refused: longer on a busy machine.
    for patience in (2.0, 10.0, 50.0):
        monkeypatch.setattr(exporter.http.server, "_PATIENCE_SECONDS", patience)
        with Served() as served, contextlib.ExitStack() as opened:
            for _ in range(80):
                stuck = socket.create_connection(("127.0.0.1", served.server.port))
                opened.enter_context(stuck).sendall(begin)
            refused = served.ask("/metrics")[0] == 503
            soon(lambda served=served: served.ask("/metrics")[0] == 200)
        if refused:
            break
    assert refused


def connections(served):
    """How many are open."""
    return next(iter(served.server.connections.collect())).samples[0].value


def test_who_does_not_read_the_answer_loses_it(monkeypatch):
    size = 64 << 20  # more than the kernel's buffers hold
    large = Route("/large", lambda _: PlainTextResponse(b"x" * size))
    with Served(routes=[large]) as served:
        assert len(served.ask("/large")[1]) == size
        monkeypatch.setattr(exporter.http.server, "_PATIENCE_SECONDS", 3.0)
        with socket.create_connection(("127.0.0.1", served.server.port)) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            soon(lambda: connections(served) == 1)
            soon(lambda: not connections(served))  # it reads nothing
            client.settimeout(60)
            read = 0
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(1 << 20):
                    read += len(data)
            assert read < size


def test_users_need_their_password_everywhere():
    web = WebConfig(basic_auth_users={"me": PASSWORD})
    with Served(web) as served:
        for path in ("/metrics", "/-/healthy", "/-/ready", "/nowhere"):
            status, _, headers = served.ask(path)
            assert status == 401
            assert headers["WWW-Authenticate"].startswith("Basic ")
        assert served.ask("/-/reload", "POST")[0] == 401
        assert served.post()[0] == 401
        for _ in range(2):  # remembered the second time
            assert served.ask("/metrics", headers=basic("me", "secret"))[0] == 200
            assert served.ask("/metrics", headers=basic("me", "wrong"))[0] == 401
        assert served.ask("/metrics", headers=basic("you", "secret"))[0] == 401
        assert served.ask("/metrics", headers=basic("me", "x" * 100))[0] == 401
        assert served.ask("/metrics", headers={"Authorization": "Basic %%%"})[0] == 401
        assert served.ask("/metrics", headers={"Authorization": "Bearer secret"})[0] == 401
        assert served.post(**basic("me", "secret"))[0] == 200
        served.guard.replace(WebConfig())
        assert served.ask("/metrics")[0] == 200


def test_who_guesses_passwords_holds_up_nobody_who_knows_one(monkeypatch):
    web = WebConfig(basic_auth_users={"me": PASSWORD})
    with Served(web) as served, ThreadPoolExecutor(8) as guessing:
        assert served.ask("/metrics", headers=basic("me", "secret"))[0] == 200
        free, checks = threading.Event(), []

        def slow(password, _):
            checks.append(password)
            assert free.wait(300)
            return False

        monkeypatch.setattr(exporter.web_config.bcrypt, "checkpw", slow)
        guesses = [
            guessing.submit(served.ask, "/metrics", headers=basic("me", f"guess {n}"))
            for n in range(8)
        ]
        try:
            assert served.ask("/metrics", headers=basic("me", "secret"))[0] == 200
            assert len(checks) <= 1, "one password is checked at a time"
        finally:
            free.set()
        assert {guess.result()[0] for guess in guesses} == {401}
        assert len(checks) == 8
        # However many were wrong, the right one is remembered.
        monkeypatch.setattr(exporter.web_config.bcrypt, "checkpw", lambda *_: False)
        assert served.ask("/metrics", headers=basic("me", "secret"))[0] == 200


def test_requests_of_one_host_that_hangs_up_leave_room_for_others(monkeypatch):
    monkeypatch.setattr(exporter.http.guard, "host_of", lambda address: address)
    free = threading.Event()

    def slow(_):
        free.wait(300)
        return PlainTextResponse("done")

    def ask(source, path):
        connection = http.client.HTTPConnection(
            "127.0.0.1", served.server.port, timeout=60, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Retry-After"]

    with Served(routes=[Route("/slow", slow)]) as served:
        try:
            for _ in range(4):
                for _ in range(20):
                    with socket.create_connection(("127.0.0.1", served.server.port)) as client:
                        client.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
                assert ask("127.0.0.2", "/metrics")[0] == 200
            assert ask("127.0.0.1", "/metrics") == (503, "1")
        finally:
            free.set()
        soon(lambda: ask("127.0.0.1", "/metrics")[0] == 200)


def test_a_reload_forgets_whose_password_has_changed_and_nobody_else(monkeypatch):
    other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    with Served(WebConfig(basic_auth_users={"me": PASSWORD, "you": PASSWORD})) as served:
        for user in ("me", "you"):
            assert served.ask("/metrics", headers=basic(user, "secret"))[0] == 200
        checked, check = [], bcrypt.checkpw

        def counted(*login):
            checked.append(login)
            return check(*login)

        monkeypatch.setattr(exporter.web_config.bcrypt, "checkpw", counted)
        served.guard.replace(WebConfig(basic_auth_users={"me": PASSWORD, "you": other}))
        assert served.ask("/metrics", headers=basic("me", "secret"))[0] == 200
        assert not checked
        assert served.ask("/metrics", headers=basic("you", "secret"))[0] == 401
        served.guard.replace(WebConfig(basic_auth_users={"you": other}))
        assert served.ask("/metrics", headers=basic("me", "secret"))[0] == 401
        assert len(checked) == 2


def test_who_guesses_and_hangs_up_takes_no_turn_of_others(monkeypatch):
    """Uvicorn does not end the requests of those who have gone, and has 64 at a time."""
    monkeypatch.setattr(exporter.http.guard, "host_of", lambda address: address)
    web = WebConfig(basic_auth_users={"me": PASSWORD})
    known, guess = basic("me", "secret"), basic("me", "guess")["Authorization"]
    with Served(web) as served:
        assert served.ask("/metrics", headers=known)[0] == 200
        free = threading.Event()
        monkeypatch.setattr(exporter.web_config.bcrypt, "checkpw", lambda *_: not free.wait(300))
        try:
            for _ in range(4):
                for _ in range(20):  # 80 at a time are refused for their number
                    with socket.create_connection(("127.0.0.1", served.server.port)) as client:
                        client.sendall(
                            f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {guess}\r\n\r\n".encode()
                        )
                # Who has nothing to be checked waits for none of them: they have been read now.
                assert served.ask("/metrics")[0] == 401
            status, body, _ = served.ask("/metrics", headers=basic("me", "b"))
            assert (status, body[:8]) == (503, b"too many")
            assert served.ask("/metrics", headers=known)[0] == 200
        finally:
            free.set()
        soon(lambda: served.ask("/metrics", headers=basic("me", "b"))[0] == 401)


def test_alert_posts_with_a_token_of_their_own_need_no_user():
    with Served(WebConfig(basic_auth_users={"me": PASSWORD}), token=True) as served:
        assert served.post()[0] == 200
        assert served.ask("/metrics")[0] == 401


def test_configured_headers_are_on_every_answer():
    web = WebConfig.model_validate({"http_server_config": {"headers": {"X-Frame-Options": "deny"}}})
    with Served(web) as served:
        for path in ("/metrics", "/nowhere"):
            assert served.ask(path)[2]["X-Frame-Options"] == "deny"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def _tls_files(folder, authority, *names):
    certificate = authority.issue_cert(*names)
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(c.bytes() for c in certificate.cert_chain_pems))
    authority.cert_pem.write_to_path(folder / "ca.pem")


def _client(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_with_and_without_client_certificates(tmp_path, authority):
    _tls_files(tmp_path, authority, "127.0.0.1")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n")
    trusting = _client(authority)
    with Served(load_web_config(str(file))) as served:
        assert served.ask("/metrics", tls=trusting)[0] == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            served.ask("/metrics")
    file.write_text(
        "tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS13}\n"
    )
    with Served(load_web_config(str(file))) as served:
        old = _client(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            served.ask("/metrics", tls=old)
        assert served.ask("/metrics", tls=trusting)[0] == 200
    file.write_text(
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
    )
    with Served(load_web_config(str(file))) as served:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            served.ask("/metrics", tls=trusting)
        authority.issue_cert("client").configure_cert(trusting)
        assert served.ask("/metrics", tls=trusting)[0] == 200


def test_a_renewed_certificate_is_shown_after_a_reload(tmp_path, authority):
    _tls_files(tmp_path, authority, "old.example")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n")
    web = load_web_config(str(file))
    with Served(web) as served:
        with pytest.raises(ssl.SSLCertVerificationError):
            served.ask("/metrics", tls=_client(authority))
        _tls_files(tmp_path, authority, "127.0.0.1")
        served.server.reload_certificate(web)
        assert served.ask("/metrics", tls=_client(authority))[0] == 200
        (tmp_path / "cert.pem").write_text("nonsense")
        with pytest.raises(ConfigError, match=r"cert\.pem"):
            served.server.reload_certificate(web)
        assert served.ask("/metrics", tls=_client(authority))[0] == 200
        with pytest.raises(ConfigError, match="restart"):
            served.server.reload_certificate(WebConfig())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("basic_auth_users:\n  me: secret\n", 1, "user 'me' is no bcrypt hash"),
        ("tls_server_config:\n  cert_file: a\n", 2, "key_file: is required"),
        (
            "tls_server_config:\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n",
            1,
            "go together",
        ),
        (
            "tls_server_config:\n  client_auth_type: RequestClientCert\n",
            2,
            "NoClientCert",
        ),
        ("http_server_config:\n  headers:\n    X-Other: a\n", 2, "'X-Other' is none of"),
        ("bearer_tokens: []\n", 1, "there is no such setting"),
    ],
)
def test_a_wrong_web_configuration_names_its_line(tmp_path, text, line, message):
    file = tmp_path / "web.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_web_config(str(file))
    assert str(caught.value).startswith(f"{file}:{line}: ")


def test_a_taken_port_is_named(served):
    app = create_app(
        CollectorRegistry(), Health(), [], lambda: None, Guard(WebConfig(), alerts_have_token=False)
    )
    with pytest.raises(HttpServerError, match=f"port {served.server.port}/tcp"):
        HttpServer(Http(port=served.server.port), WebConfig(), app)


def test_large_alert_posts_are_refused_by_the_real_routes(served):
    del served
    from exporter.incidents.http import MAX_BODY, routes
    from exporter.incidents.recorder import AlertRecorder

    def no_client():
        raise AssertionError("nothing is written")

    with Served(routes=routes(AlertRecorder(no_client), "token")) as running:
        bearer = {"Authorization": "Bearer token"}
        assert running.post()[0] == 401
        assert running.post(b" " * (MAX_BODY + 1), **bearer)[0] == 413
        assert running.post(json.dumps([]).encode(), **bearer)[0] == 400


def test_bodies_of_alerts_are_parsed_one_at_a_time(monkeypatch):
    from exporter.incidents import http as alerts
    from exporter.incidents.recorder import AlertRecorder

    running, most = [], []

    def slow(body, _):
        running.append(body)
        most.append(len(running))
        time.sleep(0.05)
        running.remove(body)
        return []

    monkeypatch.setattr(alerts, "from_webhook", slow)
    recorder = AlertRecorder(lambda: None)
    with Served(routes=alerts.routes(recorder)) as served, ThreadPoolExecutor(8) as senders:
        assert {status for status, *_ in senders.map(lambda _: served.post(), range(8))} == {200}
    assert most == [1] * 8


def test_so_many_bodies_of_alerts_wait_that_others_are_answered(monkeypatch):
    from exporter.incidents import http as alerts
    from exporter.incidents.recorder import AlertRecorder

    free = threading.Event()

    def held(*_):
        assert free.wait(300)
        return []

    monkeypatch.setattr(alerts, "from_webhook", held)
    with Served(routes=alerts.routes(AlertRecorder(lambda: None))) as served:
        post = (
            b"POST /api/v1/webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n[]"
        )
        address = ("127.0.0.1", served.server.port)
        with contextlib.ExitStack() as opened:
            opened.callback(free.set)
            for _ in range(alerts.MAX_WAITING):
                opened.enter_context(socket.create_connection(address)).sendall(post)
            # Those before it have been read.
            status, body, headers = served.post()
            assert (status, headers["Retry-After"]) == (503, "10")
            assert b"too many alerts wait to be read" in body
            assert served.ask("/metrics")[0] == 200
        soon(lambda: served.post()[0] == 200)
