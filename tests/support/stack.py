"""Runs ``flow-exporter up`` as a user does, on free ports, and ends it as Ctrl-C does."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

T = TypeVar("T")


#: A wait's seconds are those of an idle machine; a busy one may take so many times as long.
_PATIENCE: Final = 5

_BLOCKS: Final = 24
_PORTS_OF_A_BLOCK: Final = 500


@functools.cache
def _ports() -> Iterator[int]:
    """Ports that no other process of any test run gets, below those that Linux gives by itself."""
    for block in range(_BLOCKS):
        # A name in Linux's abstract namespace, which is the network's, as ports are.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0flow-exporter/tests/ports/{block}")
        except OSError:
            claim.close()
            continue
        claim.detach()  # kept until this process ends
        begin = 20_000 + block * _PORTS_OF_A_BLOCK
        own = range(begin, begin + _PORTS_OF_A_BLOCK)
        # Where runs follow one another, ports of the last may linger.
        return itertools.cycle(random.sample(own, len(own)))
    raise AssertionError(f"{_BLOCKS} other processes of tests have all ports")


def free_port(kind: socket.SocketKind) -> int:
    """A port of loopback that nobody has, and that nobody else gets who asks here."""
    for port in itertools.islice(_ports(), _PORTS_OF_A_BLOCK):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def until(what: str, seconds: float, ask: Callable[[], T | None]) -> T:
    """The first answer of ``ask`` that is neither empty nor false.

    ``seconds`` are enough on a machine that does nothing else; others are given more.
    """
    deadline = time.monotonic() + _PATIENCE * seconds
    pause = 0.01
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    raise AssertionError(f"{what}: not within {_PATIENCE * seconds:.0f} s")


def soon(true: Callable[[], object], seconds: float = 60.0) -> None:
    """The same of what needs no name."""
    until("it did not happen", seconds, true)


class Stack:
    """Everything that ``up`` starts. ``flows`` is the UDP port, the others are URLs."""

    def __init__(
        self,
        folder: Path,
        configuration: dict[str, Any],
        *arguments: str,
        program: Sequence[str] = (sys.executable, "-m", "exporter"),
    ) -> None:
        # The demo has a folder of its own.
        self.data = folder / "data" / ("demo" if "--demo" in arguments else "")
        self.log_file = folder / "up.log"
        self.flows = free_port(socket.SOCK_DGRAM)
        config_file = folder / "flow-exporter.yaml"
        own = {
            "receive": {"udp": [{"port": self.flows}], "socket_buffer_bytes": 8 << 20},
            "http": {"port": free_port(socket.SOCK_STREAM)},
        }
        config_file.write_text(yaml.safe_dump(configuration | own))
        command = [*program, "up", "--config", str(config_file)]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(folder / "data"), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            until("start of everything", 180, self._started)
            self.prometheus = self._place("Prometheus")
            self.alertmanager = self._place("Alertmanager")
            self.metrics_url = self._place("Collector's metrics")
            self.store = self._place("ClickHouse (HTTP)")
        except AssertionError:
            self.interrupt()
            raise

    def _started(self) -> bool:
        log = self.log_file.read_text()
        assert self.process.poll() is None, log
        return "Ctrl-C ends all of it." in log

    def _place(self, name: str) -> str:
        log = self.log_file.read_text()
        found = re.search(rf"^  {re.escape(name)} {{2,}}(\S+)", log, re.MULTILINE)
        assert found, name
        return found[1]

    def get(self, url: str, **parameters: str) -> Any:
        """JSON of an HTTP API."""
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        with urllib.request.urlopen(url + query, timeout=60) as answer:
            return json.load(answer)

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """Rows from the store as the read-only user gets them."""
        password = (self.data / "store" / "reader.password").read_text().strip()
        token = base64.b64encode(f"flow_reader:{password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.store}/?database=flow&default_format=JSONEachRow"
            "&output_format_json_quote_64bit_integers=0",
            data=sql.encode(),
            headers={"Authorization": f"Basic {token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the collector's series of that name with those labels."""
        with urllib.request.urlopen(self.metrics_url, timeout=60) as answer:
            text = answer.read().decode()
        total = 0.0
        for found in re.finditer(rf"^{name}(?:_total)?\{{(.*?)\}} (\S+)", text, re.MULTILINE):
            if all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
                total += float(found[2])
        return total

    def query(self, promql: str) -> float | None:
        """A PromQL query's first value."""
        result = self.get(f"{self.prometheus}/api/v1/query", query=promql)["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(180)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
