"""Alerts of real Prometheus and Alertmanager come home to the real store."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.incidents.http import MAX_BODY, routes
from exporter.incidents.recorder import AlertRecorder
from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.metrics import PolicyCollector
from exporter.policies.model import Policy, PolicySet
from exporter.up.alerting import render_alerting
from tests.support.database import Database, emptied
from tests.support.programs import program, running
from tests.support.stack import free_port, until

TOKEN = "a-token"


class Collector:
    """The alert endpoints and a /metrics on a free port, writing to ``database``."""

    def __init__(self, database: Database, token: str = "") -> None:
        self.registry = CollectorRegistry()
        self.recorder = AlertRecorder(database.connect)
        self.registry.register(self.recorder)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        app = Starlette(routes=[*routes(self.recorder, token), Route("/metrics", self._metrics)])
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

    def __enter__(self) -> Collector:
        self.recorder.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.recorder.stop()

    def post(self, path: str, body: bytes, **headers: str) -> int:
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            body,
            {"Content-Type": "application/json"} | headers,
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def announce(self, path: str, length: int) -> int:
        """The answer to a body that is said to be this long, before any of it is sent."""
        host, _, port = self.address.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            return connection.getresponse().status
        finally:
            connection.close()

    def deliveries(self) -> dict[tuple[str, str], float]:
        """Counted posts by endpoint and outcome."""
        return {
            (sample.labels["endpoint"], sample.labels["outcome"]): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "flow_exporter_webhook_deliveries_total" and sample.value
        }


@pytest.fixture
def table(database: Database) -> Iterator[Client]:
    with emptied(database, "alerts", "flows") as client:
        yield client


def rows(client: Client, where: str = "1") -> list[dict[str, Any]]:
    return list(
        client.query(
            f"SELECT * FROM alerts FINAL WHERE {where} ORDER BY starts_at, fingerprint"
        ).named_results()
    )


def posted(**changes: Any) -> bytes:
    alert = {
        "labels": {"alertname": "A", "severity": "warning", "policy": "p", "team": "network"},
        "annotations": {"summary": "S.", "value": "12.5"},
        "startsAt": "2026-03-01T12:00:00.123456789Z",
        "endsAt": "2026-03-01T12:10:00Z",
        "generatorURL": "http://prometheus/graph?x",
    }
    return json.dumps([alert | changes]).encode()


def test_a_post_of_prometheus_becomes_a_row(database: Database, table: Client) -> None:
    with Collector(database) as collector:
        assert collector.post("/api/v2/alerts", posted()) == 200
        (row,) = until("a row", 30, lambda: rows(table))
    assert row["alertname"] == "A"
    assert (row["severity"], row["policy"], row["team"]) == ("warning", "p", "network")
    assert row["incident"] == ""
    assert row["status"] == "resolved"
    assert row["starts_at"].isoformat() == "2026-03-01T12:00:00.123000+00:00"
    assert row["ends_at"].isoformat() == "2026-03-01T12:10:00+00:00"
    assert row["value"] == 12.5
    assert row["annotations"]["summary"] == "S."
    assert row["generator_url"] == "http://prometheus/graph?x"
    assert row["source"] == "prometheus"


def test_posts_without_the_token_are_refused_and_counted(database: Database, table: Client) -> None:
    with Collector(database, TOKEN) as collector:
        assert collector.post("/api/v2/alerts", posted()) == 401
        assert collector.post("/api/v2/alerts", posted(), Authorization="Bearer other") == 401
        assert collector.post("/api/v1/webhook", b"{}", Authorization=f"Basic {TOKEN}") == 401
        assert collector.post("/api/v2/alerts", posted(), Authorization=f"Bearer {TOKEN}") == 200
        until("a row", 30, lambda: rows(table))
        assert collector.deliveries() == {
            ("alerts", "unauthorized"): 2,
            ("webhook", "unauthorized"): 1,
            ("alerts", "accepted"): 1,
        }


@pytest.mark.parametrize(
    ("path", "endpoint"), [("/api/v1/webhook", "webhook"), ("/api/v2/alerts", "alerts")]
)
def test_bad_bodies_are_refused_and_counted(
    database: Database, table: Client, path: str, endpoint: str
) -> None:
    with Collector(database) as collector:
        assert collector.post(path, b"not JSON") == 400
        assert collector.post(path, posted()[:-20]) == 400
        assert collector.post(path, b'{"version": "4", "alerts": "none"}') == 400
        assert collector.announce(path, MAX_BODY + 1) == 413
        assert collector.post(path, b"[]" if endpoint == "alerts" else _webhook()) == 200
        assert collector.deliveries() == {
            (endpoint, "malformed"): 3,
            (endpoint, "too_large"): 1,
            (endpoint, "accepted"): 1,
        }
    assert rows(table) == []


def _webhook() -> bytes:
    return json.dumps({"version": "4", "status": "firing", "alerts": []}).encode()


def test_an_alert_that_is_wrong_does_not_lose_the_others(database: Database, table: Client) -> None:
    foreign = {"labels": {"alertname": "B", "list": "x" * 10_000}}
    with Collector(database) as collector:
        body = json.dumps([foreign, *json.loads(posted())]).encode()
        assert collector.post("/api/v2/alerts", body) == 200
        (row,) = until("a row", 30, lambda: rows(table))
        assert collector.deliveries() == {("alerts", "malformed"): 1}
    assert row["alertname"] == "A"


def test_a_body_that_does_not_tell_its_length_is_cut_off_at_the_limit(
    database: Database, table: Client
) -> None:
    with Collector(database) as collector:
        host, _, port = collector.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /api/v2/alerts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            answer = b""
            for _ in range(MAX_BODY // 0x10000 + 2):
                try:
                    connection.sendall(chunk)
                except OSError:
                    break
            answer = connection.recv(100)
        assert b" 413 " in answer
        assert collector.deliveries() == {("alerts", "too_large"): 1}


def test_when_too_much_waits_the_sender_is_asked_to_come_back(
    database: Database, table: Client
) -> None:
    with Collector(database) as collector:
        collector.recorder.stop()  # nobody takes in what is queued
        body = json.dumps([json.loads(posted())[0]] * 4_000).encode()
        assert [collector.post("/api/v2/alerts", body) for _ in range(3)] == [200, 200, 503]
        assert collector.deliveries()[("alerts", "overloaded")] == 1


def test_alerts_that_come_while_the_store_is_away_are_written_when_it_is_back(
    database: Database, table: Client
) -> None:
    with Collector(database) as collector:
        assert collector.post("/api/v2/alerts", posted()) == 200
        until("the first row", 30, lambda: rows(table))
        database.store.stop()
        try:
            labels = {"alertname": "B"}
            assert collector.post("/api/v2/alerts", posted(labels=labels)) == 200
            assert collector.post("/api/v2/alerts", posted(labels=labels)) == 200
            time.sleep(1.5)
        finally:
            database.store.start()
        found = until("the second row", 30, lambda: rows(table, "alertname = 'B'"))
        assert len(found) == 1
    assert len(rows(table)) == 2


def test_prometheus_and_alertmanager_bring_alerts_home(
    database: Database, table: Client, tmp_path: Path
) -> None:
    policy = Policy.model_validate(
        {
            "name": "host_bits",
            "dimensions": ["dst_addr", "dst_host"],
            "measure": "bits_per_second",
            "window": "1m",
            "interval": "5s",
            "bounds": {"above": {"static": 1000}},
            "breach": {"minutes": 1, "of": 1},
            "severity": "critical",
            "incident": "load",
        }
    )
    table.command(
        "INSERT INTO flows (time_received, dst_addr, dst_host, bytes) "
        "SELECT now64(3) - 30 + number, toIPv6('10.0.1.13'), 'fl13', 75000 FROM numbers(3600)"
    )
    evaluator = PolicyEvaluator(
        database.connect,
        PolicySet(policies=[policy]),
        delay_seconds=0,
        query_timeout_seconds=60,
    )
    with Collector(database) as collector:
        collector.registry.register(PolicyCollector(evaluator))
        toggled = Gauge("toggled", "Alerts that a test turns on and off.", ["key"],
                        registry=collector.registry)  # fmt: skip
        toggled.labels("a").set(1)
        toggled.labels("b").set(1)
        evaluator.start()
        try:
            with _alerting(collector.address, tmp_path) as alertmanager:
                _check_alerts_come_home(collector, table, alertmanager, toggled)
        finally:
            evaluator.stop()


class _alerting:  # noqa: N801 - reads as a context manager
    """Prometheus and Alertmanager with our configuration, only faster."""

    def __init__(self, collector: str, folder: Path) -> None:
        prometheus, self._alertmanager = (
            f"127.0.0.1:{free_port(socket.SOCK_STREAM)}" for _ in range(2)
        )
        files = render_alerting(
            folder,
            prometheus=prometheus,
            alertmanager=self._alertmanager,
            collector=collector,
            store="",
            grafana_url="http://grafana",
            evaluation_interval="1s",
        )
        rules = folder / "toggled.yml"
        rules.write_text(
            yaml.safe_dump(
                {
                    "groups": [
                        {
                            "name": "toggled",
                            "rules": [
                                {
                                    "alert": "Toggled",
                                    "expr": "toggled == 1",
                                    "labels": {"severity": "critical", "incident": "toggled"},
                                }
                            ],
                        }
                    ]
                }
            )
        )
        made = yaml.safe_load(files.prometheus.read_text())
        made["global"]["scrape_interval"] = "1s"
        made["rule_files"].append(str(rules))
        files.prometheus.write_text(yaml.safe_dump(made))
        notified = yaml.safe_load(files.alertmanager.read_text())
        for route in (notified["route"], *notified["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "2s"}
        files.alertmanager.write_text(yaml.safe_dump(notified))
        self._commands = (
            (
                [
                    program("prometheus-alertmanager", "alertmanager"),
                    f"--config.file={files.alertmanager}",
                    f"--storage.path={folder / 'alertmanager'}",
                    f"--web.listen-address={self._alertmanager}",
                    "--cluster.listen-address=",
                ],
                folder / "alertmanager.log",
                f"http://{self._alertmanager}/-/ready",
            ),
            (
                [
                    program("prometheus"),
                    f"--config.file={files.prometheus}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address={prometheus}",
                    "--rules.alert.resend-delay=2s",
                ],
                folder / "prometheus.log",
                f"http://{prometheus}/-/ready",
            ),
        )

    def __enter__(self) -> str:
        self._outer = running(*self._commands[0])
        self._inner = running(*self._commands[1])
        self._outer.__enter__()
        try:
            self._inner.__enter__()
        except BaseException:
            self._outer.__exit__(None, None, None)
            raise
        return f"http://{self._alertmanager}"

    def __exit__(self, *_: object) -> None:
        self._inner.__exit__(None, None, None)
        self._outer.__exit__(None, None, None)


def _check_alerts_come_home(
    collector: Collector, table: Client, alertmanager: str, toggled: Gauge
) -> None:
    (host,) = until("the policy's alert", 60, lambda: rows(table, "policy = 'host_bits'"))
    assert host["alertname"] == "FlowPolicyAbove"
    assert host["status"] == "firing"
    assert host["ends_at"] is None
    assert (host["severity"], host["team"], host["incident"]) == ("critical", "network", "load")
    assert host["labels"]["dst_host"] == "fl13"
    assert 1000 <= host["value"] <= 700_000
    assert host["annotations"]["dashboard_url"].startswith("http://grafana/d/flow-incident?from=1")
    assert "grafana_url" not in host["labels"]

    until("two more alerts", 30, lambda: len(rows(table, "alertname = 'Toggled'")) == 2)

    def all_known() -> bool:
        with urllib.request.urlopen(f"{alertmanager}/api/v2/alerts", timeout=60) as response:
            known = {alert["fingerprint"] for alert in json.load(response)}
        return known == {row["fingerprint"] for row in rows(table)}

    until("the same alerts in both", 30, all_known)
    until(
        "notifications by webhook",
        30,
        lambda: collector.deliveries().get(("webhook", "accepted"), 0) >= 2,
    )

    before = collector.deliveries()
    toggled.labels("b").set(0)
    (ended,) = until(
        "the end of one", 30, lambda: rows(table, "alertname = 'Toggled' AND status = 'resolved'")
    )
    assert ended["labels"]["key"] == "b"
    assert ended["ends_at"] > ended["starts_at"]
    until(
        "a notification of it",
        30,
        lambda: collector.deliveries()[("webhook", "accepted")] > before[("webhook", "accepted")],
    )
    time.sleep(0.5)
    toggles = rows(table, "alertname = 'Toggled'")
    assert {row["labels"]["key"]: row["status"] for row in toggles} == {
        "a": "firing",
        "b": "resolved",
    }
    assert len(rows(table)) == 3
    posts = ("alerts", "accepted")  # repeated, yet one row each
    until("more posts than alerts", 30, lambda: collector.deliveries()[posts] > 3)
    assert len(rows(table)) == 3
    assert set(collector.deliveries()) == {("alerts", "accepted"), ("webhook", "accepted")}
