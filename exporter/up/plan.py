"""What runs on one machine, where, and with which files: decided before anything starts."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from exporter.config import Config
from exporter.resources import resource
from exporter.simulate.demo import write_as_names
from exporter.store.server.users import Users
from exporter.up.alerting import render_alerting
from exporter.up.errors import UpError
from exporter.up.grafana import grafana
from exporter.up.ports import HeldPorts
from exporter.up.story import begin_story
from exporter.up.supervisor import Child, Task

_LOOPBACK = "127.0.0.1"
_DAY = 86400
#: The past of the nodes' metrics and that of policies are written one after the other, about the
#: same days; Prometheus merges them in its first minutes, and says so with every block.
_MERGING = re.compile("Overlapping blocks found")
#: What each device of the demo has sent, at the end.
_TOTALS = re.compile(r"^\S+ +\d+ messages, \d+ flows")


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on loopback, by the child that listens there."""

    store: int
    collector: int
    prometheus: int
    alertmanager: int
    grafana: int
    demo: int

    @classmethod
    def choose(cls, config: Config, held: HeldPorts) -> Ports:
        """The usual port of each part, moved on where somebody else listens."""
        usual = {
            "store": 8123,
            "collector": config.http.port,
            "prometheus": 9090,
            "alertmanager": 9093,
            "grafana": 3000,
            "demo": 9106,
        }
        return cls(**{child: held.pick(child, port) for child, port in usual.items()})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started and done, in this order, and where a person looks.

    ``config_file`` has the settings that all parts run with.
    """

    steps: list[Child | Task]
    places: list[tuple[str, str]]
    config_file: Path


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo: what happens when (seconds since the epoch), and how much of the past is told.

    ``history`` is in seconds; 0: none.
    """

    begins: Mapping[str, int]
    history: int

    @property
    def story(self) -> list[str]:
        """As ``flow-exporter simulate`` takes it."""
        return [f"{name}@{_moment(begin)}" for name, begin in self.begins.items()]


def make_plan(config: Config, data: Path, ports: Ports, *, demo: Demo | None) -> Plan:
    """Write the files that the parts read below ``data`` and say how to start each part.

    The embedded store is left out when ``config`` names a ClickHouse of its own; the demo's past is
    written into the embedded one only.

    Raises:
        exporter.up.errors.UpError: Prometheus or Alertmanager is not installed, or ``config`` lets
            nobody ask the collector without TLS, a password or a token, which they are not given.
        exporter.config.ConfigError: a file that ``config`` names cannot be read.
    """
    if config.http.web_config_file or config.http.webhook_token_file:
        raise UpError(
            "http.web_config_file and http.webhook_token_file are for a collector of its own "
            "(`flow-exporter run`): leave them out here, where Prometheus and Alertmanager ask on "
            "loopback"
        )
    for name in ("config", "store", "prometheus", "alertmanager", "collector"):
        (data / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    own_store = "url" not in config.clickhouse.model_fields_set
    if own_store:
        Users.of(data / "store")  # makes the passwords now: collector and Grafana need them too
    steps: list[Child | Task] = [_store(data, ports)] if own_store else []
    clickhouse = f"http://{_LOOPBACK}:{ports.store}" if own_store else config.clickhouse.url
    config_file = _write_config(config, data, ports, own_store=own_store, demo=demo is not None)
    # A ClickHouse of the user's may be away for now: the collector waits for it, we need not.
    steps.append(_collector(config_file, ports, "ready" if own_store else "healthy"))
    if demo is not None:
        steps += _demo(demo, config, config_file, data, ports, past=own_store and demo.history > 0)
    steps += _alerting(data, ports, own_store=own_store, demo=demo is not None)
    places = [
        ("Prometheus", f"http://{_LOOPBACK}:{ports.prometheus}"),
        ("Alertmanager", f"http://{_LOOPBACK}:{ports.alertmanager}"),
        ("Collector's metrics", f"http://{_LOOPBACK}:{ports.collector}/metrics"),
        ("ClickHouse (HTTP)", clickhouse),
        *[
            ("Flows (UDP)", f"{listener.address}:{listener.port}")
            for listener in config.receive.udp
        ],
    ]
    if own_store:
        places.append(("ClickHouse's passwords", str(data / "store" / "*.password")))
    if demo is not None:
        places += [(f"Demo: {name}", f"from {_moment(at)} UTC") for name, at in demo.begins.items()]
    places += [("Data", str(data)), ("Settings", str(config_file))]
    if own_store and (child := _grafana(data, ports)) is not None:
        steps.append(child)
        places.insert(0, ("Grafana", f"http://{_LOOPBACK}:{ports.grafana}"))
        places.insert(1, ("Grafana's admin password", str(data / "grafana" / "admin.password")))
    return Plan(steps, places, config_file)


def make_demo(data: Path, now: int, history: int) -> Demo:
    """The demo with its data in ``data``; ``now`` is in seconds since the epoch."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Demo(begin_story(data / "story.json", now), history)


def write_effective_config(config: Config, file: Path, changes: dict[str, dict[str, Any]]) -> None:
    """``config`` with ``changes`` by section, as a file that only its owner can read."""
    document = config.model_dump(mode="json")
    for section, values in changes.items():
        document[section] |= values
    text = "# Written by `flow-exporter up`; edit your own configuration instead.\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text + yaml.safe_dump(document, sort_keys=False))


def _write_config(config: Config, data: Path, ports: Ports, *, own_store: bool, demo: bool) -> Path:
    changes: dict[str, dict[str, Any]] = {"http": {"port": ports.collector}}
    clickhouse: dict[str, Any] = {}
    if own_store:
        clickhouse |= {
            "url": f"http://{_LOOPBACK}:{ports.store}",
            "user": "flow_writer",
            "password_file": str(data / "store" / "writer.password"),
        }
    if not config.clickhouse.spool.directory:
        spool = config.clickhouse.spool.model_dump(mode="json")
        clickhouse["spool"] = spool | {"directory": str(data / "collector" / "spool")}
    changes["clickhouse"] = clickhouse
    if not config.policies.file:
        changes["policies"] = {
            "file": str(resource("alerting/policies.yaml")),
            "new_normal_file": str(data / "config" / "new-normal.yaml"),
        }
    if not config.decode.template_file:
        changes["decode"] = {"template_file": str(data / "collector" / "templates.json")}
    if demo and not config.geo.as_names_file:
        as_names = data / "config" / "as-names.csv"
        write_as_names(as_names)
        changes["geo"] = {"as_names_file": str(as_names)}
    file = data / "config" / "flow-exporter.yaml"
    write_effective_config(config, file, changes)
    return file


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "exporter", *arguments]


def _store(data: Path, ports: Ports) -> Child:
    return Child(
        name="store",
        argv=_command(
            "store", "--data-dir", str(data / "store"), "--listen", f"{_LOOPBACK}:{ports.store}"
        ),
        ready_url=f"http://{_LOOPBACK}:{ports.store}/ping",
    )


def _collector(config_file: Path, ports: Ports, state: str) -> Child:
    return Child(
        name="collector",
        argv=_command("run", "--migrate", "--config", str(config_file)),
        ready_url=f"http://{_LOOPBACK}:{ports.collector}/-/{state}",
        # Of a collector of its own; our Prometheus and Alertmanager do not send it.
        environment={"FLOW_WEBHOOK_TOKEN": ""},
    )


def _alerting(data: Path, ports: Ports, *, own_store: bool, demo: bool) -> list[Child]:
    files = render_alerting(
        data / "config",
        prometheus=f"{_LOOPBACK}:{ports.prometheus}",
        alertmanager=f"{_LOOPBACK}:{ports.alertmanager}",
        collector=f"{_LOOPBACK}:{ports.collector}",
        store=f"{_LOOPBACK}:{ports.store}" if own_store else "",
        grafana_url=f"http://{_LOOPBACK}:{ports.grafana}",
        baseline_interval="1m" if demo else "",
        demo=f"{_LOOPBACK}:{ports.demo}" if demo else "",
    )
    return [
        Child(
            name="alertmanager",
            argv=[
                _program("prometheus-alertmanager", "alertmanager"),
                f"--config.file={files.alertmanager}",
                f"--storage.path={data / 'alertmanager'}",
                f"--web.listen-address={_LOOPBACK}:{ports.alertmanager}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            ready_url=f"http://{_LOOPBACK}:{ports.alertmanager}/-/ready",
        ),
        Child(
            name="prometheus",
            argv=[
                _program("prometheus"),
                f"--config.file={files.prometheus}",
                f"--storage.tsdb.path={data / 'prometheus'}",
                "--storage.tsdb.retention.time=60d",
                f"--web.listen-address={_LOOPBACK}:{ports.prometheus}",
                f"--web.external-url=http://{_LOOPBACK}:{ports.prometheus}",
                "--log.level=warn",
            ],
            ready_url=f"http://{_LOOPBACK}:{ports.prometheus}/-/ready",
            hidden=_MERGING,
        ),
    ]


def _grafana(data: Path, ports: Ports) -> Child | None:
    return grafana(
        data / "grafana",
        port=ports.grafana,
        store=ports.store,
        prometheus=ports.prometheus,
        alertmanager=ports.alertmanager,
        reader_password=(data / "store" / "reader.password").read_text().strip(),
    )


def _demo(
    demo: Demo, config: Config, config_file: Path, data: Path, ports: Ports, *, past: bool
) -> list[Child | Task]:
    """The past up to now, sending from then on, and what policies would have told of that past."""
    listener = config.receive.udp[0]
    arguments = ["--to", f"{listener.address}:{listener.port}", "--metrics-port", str(ports.demo)]
    grpc = config.receive.grpc
    arguments += ["--agents-to", f"{grpc.address}:{grpc.port}" if grpc and not grpc.tls else ""]
    for resolver in config.receive.dnstap:
        if resolver.port:
            arguments += ["--dnstap", f"{resolver.address}:{resolver.port}"]
            break
    sending = Child(
        name="demo",
        argv=_command("simulate", *demo.story, *arguments),
        ready_url=f"http://{_LOOPBACK}:{ports.demo}/metrics",
        hidden=_TOTALS,
    )
    if not past:
        return [sending]
    prometheus = data / "prometheus"
    options = ["--config", str(config_file), "--prometheus-data", str(prometheus)]
    missing, days = _missing(prometheus, demo.history)
    history = Task(
        name="history",
        argv=_command(
            "simulate", *demo.story, "--history", f"{-(-demo.history // 60)}m", "--resume", *options
        ),
        about=f"writing the demo's past, {missing}",
    )
    backfill = Task(
        name="backfill",
        argv=_command("backfill", "--until", "now", "--days", str(days), *options),
        about=f"computing what is usual from it, {missing}",
    )
    return [history, sending, backfill] if days else [history, sending]


def _missing(prometheus: Path, history: int) -> tuple[str, int]:
    """How much there is to do, in words, and of how many days Prometheus knows no policies."""
    told = [file.stat().st_mtime for file in (prometheus / "wal").glob("*")]
    if not told:
        days = -(-history // _DAY)
        return f"{days} days: a minute or two for four weeks on two cores", days
    away = int(time.time() - max(told))
    return f"since {_moment(int(max(told)))} UTC", -(-away // _DAY) if away > _DAY // 4 else 0


def _moment(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _program(*names: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UpError(
        f"{names[0]} is not installed: as root, run `apt-get install --no-install-recommends "
        "prometheus prometheus-alertmanager`, or put the program on PATH"
    )
