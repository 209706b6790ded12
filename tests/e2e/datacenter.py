"""The simulated datacenter under the eyes of the whole product, and what it is told of incidents.

Packets, gRPC and dnstap go in at one end of the real collector; at the other one a receiver of
webhooks takes Alertmanager's notifications. Of the past there is what baselines look at: the hours
around now, of today and of the same day of three weeks.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse, Config, Host
from exporter.enrich import NameSources
from exporter.policies.backfill import Backfill
from exporter.policies.model import load_policies
from exporter.resources import resource
from exporter.simulate.demo import demo_config, write_as_names
from exporter.simulate.fill import Past, fill
from exporter.simulate.scenarios import SCENARIOS, told_together
from exporter.simulate.site import HOSTS, REGISTRY
from exporter.store.client import connect
from exporter.up.alerting import render_alerting
from tests.support.collector import RunningCollector
from tests.support.programs import program, running
from tests.support.stack import free_port, until
from tests.support.store import RunningStore, running_store
from tests.support.webhooks import webhook

_WEEK: Final = 7 * 86400
_WEEKS: Final = 3
#: Around the time of day, in the weeks before.
_AROUND: Final = 100 * 60
_TODAY: Final = 225 * 60


@dataclass(frozen=True)
class Pace:
    """How often rules are evaluated, and how long Alertmanager waits for more of an incident."""

    evaluation: str
    baselines: str
    scrape: str
    group_interval: str


#: The policies' minutes become evaluations: alerts within a minute or two.
QUICK: Final = Pace("5s", "5s", "5s", "10s")
#: As shipped.
REAL: Final = Pace("1m", "1m", "15s", "1m")


@dataclass
class Inbox:
    """Notifications with the moments at which they came (seconds since the epoch)."""

    received: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def take(self, notification: dict[str, Any]) -> None:
        """One that came now."""
        self.received.append((time.time(), notification))

    def alerts(self) -> Iterator[tuple[float, dict[str, Any], dict[str, Any]]]:
        """Each firing alert of each notification: when, the notification, the alert."""
        for at, notification in list(self.received):
            for alert in notification["alerts"]:
                if alert["status"] == "firing":
                    yield at, notification, alert

    def first(self, **labels: str) -> tuple[float, dict[str, Any]] | None:
        """When an alert with these labels was first told, and the alert."""
        for at, _, alert in self.alerts():
            if labels.items() <= alert["labels"].items():
                return at, alert
        return None


@dataclass(frozen=True)
class Site:
    """The parts that answer. ``begins``: when each scenario began, seconds since the epoch."""

    begins: Mapping[str, int]
    inbox: Inbox
    reader: Client
    prometheus: str
    log: Path

    def told(self, seconds: float, **labels: str) -> dict[str, Any]:
        """The first alert with these labels that was notified."""
        found = until(f"notification of {labels}", seconds, lambda: self.inbox.first(**labels))
        return found[1]

    def delay(self, scenario: str, **labels: str) -> float:
        """Seconds from the first packet of a scenario to the first notification of an alert."""
        found = self.inbox.first(**labels)
        assert found is not None, labels
        # Each story is quiet for its first ten seconds.
        return found[0] - self.begins[scenario] - 10


@contextmanager
def watched(folder: Path, pace: Pace, begins: Callable[[int], dict[str, int]]) -> Iterator[Site]:
    """Everything, from the past on; ``begins`` says from the present moment when stories begin."""
    with ExitStack() as opened:
        store = opened.enter_context(running_store())
        grpc, dnstap, metrics, prometheus, alertmanager = (
            free_port(socket.SOCK_STREAM) for _ in range(5)
        )
        write_as_names(folder / "as-names.csv")
        settings: dict[str, Any] = demo_config() | {
            "receive": {"grpc": {"port": grpc}, "dnstap": [{"port": dnstap}]},
            "policies": {"file": str(resource("alerting/policies.yaml"))},
            "geo": {"as_names_file": str(folder / "as-names.csv")},
        }
        collector = opened.enter_context(RunningCollector(folder, store, "flow", settings))
        writer = _settings(store)
        now = int(time.time())
        told = begins(now)
        _write_past(writer, told, now)
        story = [f"{name}@{time.strftime('%FT%T', time.gmtime(at))}" for name, at in told.items()]
        opened.enter_context(
            _simulating(
                folder / "simulate.log", *story, "--to", f"127.0.0.1:{collector.flows}",
                "--agents-to", f"127.0.0.1:{grpc}", "--dnstap", f"127.0.0.1:{dnstap}",
                "--metrics-port", str(metrics),
            )
        )  # fmt: skip
        _backfill(writer, now, folder / "prometheus")
        inbox = Inbox()
        hook = opened.enter_context(webhook(inbox.take))
        files = render_alerting(
            folder,
            prometheus=f"127.0.0.1:{prometheus}",
            alertmanager=f"127.0.0.1:{alertmanager}",
            collector=collector.url.removeprefix("http://"),
            store="",
            grafana_url="http://grafana",
            evaluation_interval=pace.evaluation,
            baseline_interval=pace.baselines,
            demo=f"127.0.0.1:{metrics}",
        )
        _edit(files.prometheus, lambda made: made["global"].update(scrape_interval=pace.scrape))
        _edit(files.alertmanager, lambda made: _told_to(made, hook, pace))
        for command, port in (
            (
                [
                    program("prometheus-alertmanager", "alertmanager"),
                    f"--config.file={files.alertmanager}",
                    f"--storage.path={folder / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{alertmanager}",
                    "--cluster.listen-address=",
                ],
                alertmanager,
            ),
            (
                [
                    program("prometheus"),
                    f"--config.file={files.prometheus}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    "--storage.tsdb.retention.time=60d",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                ],
                prometheus,
            ),
        ):
            log = folder / f"{Path(command[0]).name}.log"
            opened.enter_context(running(command, log, f"http://127.0.0.1:{port}/-/ready"))
        reader = opened.enter_context(store.client(reader=True, database="flow"))
        yield Site(told, inbox, reader, f"http://127.0.0.1:{prometheus}", collector.log)


def _settings(store: RunningStore) -> ClickHouse:
    return ClickHouse(url=store.url, password_file=str(store.data_dir / "writer.password"))


def _write_past(writer: ClickHouse, begins: Mapping[str, int], now: int) -> None:
    registry = Host(address=HOSTS[REGISTRY], name=REGISTRY)
    config = Config.model_validate(demo_config())
    names = NameSources(config.model_copy(update={"hosts": [*config.hosts, registry]}))
    story = told_together([(SCENARIOS[name], float(at - now)) for name, at in begins.items()])
    past = Past(story, now * 1000, 1, names)
    client = connect(writer)
    spans = [
        (now - week * _WEEK - _AROUND, now - week * _WEEK + _AROUND)
        for week in range(_WEEKS, 0, -1)
    ]
    begin, end = now - _TODAY, now
    for span in [*spans, (begin, end)]:
        _fill(client, past, *span)
    missing = float(end - begin)
    # Until it is next to nothing, or what a busy machine needs for a moment.
    while 2 < time.time() - end < missing:
        begin, end = end, int(time.time())
        missing = end - begin
        _fill(client, past, begin, end)
    client.close()


def _fill(client: Client, past: Past, begin: int, end: int) -> None:
    for _ in fill(client, past, begin * 1000, end * 1000, stop=threading.Event()):
        pass


def _backfill(writer: ClickHouse, now: int, data: Path) -> None:
    data.mkdir()
    loaded = load_policies(resource("alerting/policies.yaml"))
    policies = [policy for policy in loaded.policies if policy.has_baseline]
    client = connect(writer)
    for week in range(_WEEKS, 0, -1):
        middle = now - week * _WEEK
        span = (middle - _AROUND + 600, middle + _AROUND)
        Backfill(client, policies, loaded.loaded_lists, *span).write(data, lambda: None)
    client.close()


@contextmanager
def _simulating(log: Path, *arguments: str) -> Iterator[None]:
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", "simulate", *arguments], stdout=stream, stderr=stream
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(120)


def _edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    made = yaml.safe_load(file.read_text())
    change(made)
    file.write_text(yaml.safe_dump(made))


def _told_to(made: dict[str, Any], hook: str, pace: Pace) -> None:
    for receiver in made["receivers"]:
        receiver["webhook_configs"].append({"url": hook, "send_resolved": True})
    for route in (made["route"], *made["route"]["routes"]):
        route["group_interval"] = pace.group_interval
