"""Runs the real ``flow-exporter run`` for tests, and sends flows to it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from exporter.batch import FlowBatch
from exporter.simulate.encode import Encoder
from tests.support.stack import free_port, until
from tests.support.store import RunningStore


class RunningCollector:
    """A collector on free ports that writes to ``store``; a context manager.

    ``config`` is what the configuration file has besides; change it and call :meth:`write_config`.
    """

    def __init__(
        self, folder: Path, store: RunningStore, database: str, config: dict[str, Any] | None = None
    ) -> None:
        self.file = folder / "flow-exporter.yaml"
        self.log = folder / "collector.log"
        self.flows = free_port(socket.SOCK_DGRAM)
        self.url = f"http://127.0.0.1:{(port := free_port(socket.SOCK_STREAM))}"
        self.config: dict[str, Any] = {
            "receive": {"udp": [{"port": self.flows}], "socket_buffer_bytes": 8 << 20},
            "http": {"port": port},
            "clickhouse": {
                "url": store.url,
                "database": database,
                "user": store.user,
                "password_file": str(store.data_dir / "writer.password"),
                "batch_seconds": 0.5,
            },
        }
        for section, values in (config or {}).items():
            if isinstance(values, dict):
                self.config[section] = self.config.get(section, {}) | values
            else:
                self.config[section] = values
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningCollector:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()

    def write_config(self) -> None:
        """Put ``config`` into the file, for the next start or reload."""
        self.file.write_text(yaml.safe_dump(self.config))

    def start(self, *, ready: bool = True, arguments: Sequence[str] = ("--migrate",)) -> None:
        """Start it and wait until it is ready (or, without ``ready``, answers)."""
        self.write_config()
        command = [sys.executable, "-m", "exporter", "run", "-c", str(self.file), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        try:
            until("start of the collector", 60, lambda: self._answers(ready))
        except AssertionError as error:
            self.stop()
            raise AssertionError(self.log.read_text()) from error

    def _answers(self, ready: bool) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/-/ready" if ready else "/-/healthy")[0] == 200
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as a service manager would; its exit code."""
        assert self.process is not None
        try:
            self.process.send_signal(number)
            return self.process.wait(180)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None

    def get(
        self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of a request."""
        request = urllib.request.Request(self.url + path, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the series of that name that have those labels."""
        total = 0.0
        pattern = rf"^{name}(?:\{{(.*?)\}})? (\S+)$"
        for found in re.finditer(pattern, self.get("/metrics")[1], re.MULTILINE):
            if all(
                f"{key}={json.dumps(value)}" in (found[1] or "") for key, value in labels.items()
            ):
                total += float(found[2])
        return total

    def send(self, encoder: Encoder, flows: FlowBatch, *, source: str = "127.0.0.1") -> None:
        """Send flows as a device with the address ``source`` would."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            for number, datagram in enumerate(encoder.encode(flows, int(time.time() * 1000))):
                sender.sendto(datagram, ("127.0.0.1", self.flows))
                if number % 50 == 49:
                    time.sleep(0.01)  # as a device would: the test measures no buffers
