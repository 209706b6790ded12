"""What runs on one machine, where, and with which files: decided before anything starts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from exporter.config import Config
from exporter.resources import resource
from exporter.simulate.demo import write_as_names
from exporter.store.server.users import Users
from exporter.up.alerting import render_alerting
from exporter.up.demo import Demo, demo_steps, moment
from exporter.up.errors import UpError
from exporter.up.grafana import grafana
from exporter.up.ports import LOOPBACK, Ports
from exporter.up.program import command, program
from exporter.up.supervisor import Child, Task

#: The past of the nodes' metrics and that of policies are written one after the other, about the
#: same days; Prometheus merges them in its first minutes, and says so with every block.
_MERGING = re.compile("Overlapping blocks found")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is started and done, in this order, and where a person looks.

    ``config_file`` has the settings that all parts run with.
    """

    steps: list[Child | Task]
    places: list[tuple[str, str]]
    config_file: Path


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
    clickhouse = f"http://{LOOPBACK}:{ports.store}" if own_store else config.clickhouse.url
    config_file = _write_config(config, data, ports, own_store=own_store, demo=demo is not None)
    # A ClickHouse of the user's may be away for now: the collector waits for it, we need not.
    steps.append(_collector(config_file, ports, "ready" if own_store else "healthy"))
    if demo is not None:
        steps += demo_steps(
            demo, config, config_file, data, ports, past=own_store and demo.history > 0
        )
    steps += _alerting(data, ports, own_store=own_store, demo=demo is not None)
    places = [
        ("Prometheus", f"http://{LOOPBACK}:{ports.prometheus}"),
        ("Alertmanager", f"http://{LOOPBACK}:{ports.alertmanager}"),
        ("Collector's metrics", f"http://{LOOPBACK}:{ports.collector}/metrics"),
        ("ClickHouse (HTTP)", clickhouse),
        *[
            ("Flows (UDP)", f"{listener.address}:{listener.port}")
            for listener in config.receive.udp
        ],
    ]
    if config.receive.grpc is not None:
        grpc = config.receive.grpc
        places.append(("eBPF agents (gRPC)", f"{grpc.address}:{grpc.port}"))
    places += [
        ("Resolvers (dnstap)", resolver.socket or f"{resolver.address}:{resolver.port}")
        for resolver in config.receive.dnstap
    ]
    if own_store:
        places.append(("ClickHouse's passwords", str(data / "store" / "*.password")))
    if demo is not None:
        places += [(f"Demo: {name}", f"from {moment(at)} UTC") for name, at in demo.begins.items()]
    places += [("Data", str(data)), ("Settings", str(config_file))]
    if own_store and (child := _grafana(data, ports)) is not None:
        steps.append(child)
        places.insert(0, ("Grafana", f"http://{LOOPBACK}:{ports.grafana}"))
        places.insert(1, ("Grafana's admin password", str(data / "grafana" / "admin.password")))
    return Plan(steps, places, config_file)


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
            "url": f"http://{LOOPBACK}:{ports.store}",
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


def _store(data: Path, ports: Ports) -> Child:
    return Child(
        name="store",
        argv=command(
            "store", "--data-dir", str(data / "store"), "--listen", f"{LOOPBACK}:{ports.store}"
        ),
        ready_url=f"http://{LOOPBACK}:{ports.store}/ping",
    )


def _collector(config_file: Path, ports: Ports, state: str) -> Child:
    return Child(
        name="collector",
        argv=command("run", "--migrate", "--config", str(config_file)),
        ready_url=f"http://{LOOPBACK}:{ports.collector}/-/{state}",
        # Of a collector of its own; our Prometheus and Alertmanager do not send it.
        environment={"FLOW_WEBHOOK_TOKEN": ""},
    )


def _alerting(data: Path, ports: Ports, *, own_store: bool, demo: bool) -> list[Child]:
    files = render_alerting(
        data / "config",
        prometheus=f"{LOOPBACK}:{ports.prometheus}",
        alertmanager=f"{LOOPBACK}:{ports.alertmanager}",
        collector=f"{LOOPBACK}:{ports.collector}",
        store=f"{LOOPBACK}:{ports.store}" if own_store else "",
        grafana_url=f"http://{LOOPBACK}:{ports.grafana}",
        baseline_interval="1m" if demo else "",
        demo=f"{LOOPBACK}:{ports.demo}" if demo else "",
    )
    return [
        Child(
            name="alertmanager",
            argv=[
                program("prometheus-alertmanager", "alertmanager"),
                f"--config.file={files.alertmanager}",
                f"--storage.path={data / 'alertmanager'}",
                f"--web.listen-address={LOOPBACK}:{ports.alertmanager}",
                f"--web.external-url=http://{LOOPBACK}:{ports.alertmanager}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            ready_url=f"http://{LOOPBACK}:{ports.alertmanager}/-/ready",
        ),
        Child(
            name="prometheus",
            argv=[
                program("prometheus"),
                f"--config.file={files.prometheus}",
                f"--storage.tsdb.path={data / 'prometheus'}",
                "--storage.tsdb.retention.time=60d",
                f"--web.listen-address={LOOPBACK}:{ports.prometheus}",
                f"--web.external-url=http://{LOOPBACK}:{ports.prometheus}",
                "--log.level=warn",
            ],
            ready_url=f"http://{LOOPBACK}:{ports.prometheus}/-/ready",
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
