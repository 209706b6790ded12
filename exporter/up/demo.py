"""The demo of one machine: its past, its traffic, and what is usual in it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.config import Config
from exporter.up.ports import LOOPBACK, Ports
from exporter.up.program import command
from exporter.up.story import begin_story
from exporter.up.supervisor import Child, Task

_DAY = 86400
#: What each device of the demo has sent, at the end.
_TOTALS = re.compile(r"^\S+ +\d+ messages, \d+ flows")


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
        return [f"{name}@{moment(begin)}" for name, begin in self.begins.items()]


def make_demo(data: Path, now: int, history: int) -> Demo:
    """The demo with its data in ``data``; ``now`` is in seconds since the epoch."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Demo(begin_story(data / "story.json", now), history)


def demo_steps(
    demo: Demo, config: Config, config_file: Path, data: Path, ports: Ports, *, past: bool
) -> list[Child | Task]:
    """The past up to now, sending from then on, and what policies would have told of that past.

    Without ``past``, sending alone. ``data`` is where Prometheus' database lies.
    """
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
        argv=command("simulate", *demo.story, *arguments),
        ready_url=f"http://{LOOPBACK}:{ports.demo}/metrics",
        hidden=_TOTALS,
    )
    if not past:
        return [sending]
    prometheus = data / "prometheus"
    options = ["--config", str(config_file), "--prometheus-data", str(prometheus)]
    missing, days = _missing(prometheus, demo.history)
    history = Task(
        name="history",
        argv=command(
            "simulate", *demo.story, "--history", f"{-(-demo.history // 60)}m", "--resume", *options
        ),
        about=f"writing the demo's past, {missing}",
    )
    backfill = Task(
        name="backfill",
        argv=command("backfill", "--until", "now", "--days", str(days), *options),
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
    return f"since {moment(int(max(told)))} UTC", -(-away // _DAY) if away > _DAY // 4 else 0


def moment(at: int) -> str:
    """Seconds since the epoch as commands take them, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
