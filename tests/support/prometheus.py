"""Runs the real Prometheus over samples that a test makes up."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.stack import free_port

_DEADLINE_SECONDS = 300.0


class Prometheus:
    """A Prometheus that only answers queries."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, at: float) -> list[dict[str, Any]]:
        """The result of an instant query."""
        return self._ask("query", query=expression, time=at)

    def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """The series of a range query."""
        return self._ask("query_range", query=expression, start=start, end=end, step=step)

    def _ask(self, endpoint: str, **parameters: object) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{endpoint}?{query}") as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters['query']}: {error.read().decode()}") from error
        result = body["data"]["result"]
        if body["data"]["resultType"] == "scalar":
            return [{"metric": {}, "value": result}]
        return list(result)


def blocks(folder: Path, exposition: str) -> None:
    """Makes a database of an OpenMetrics text with time stamps."""
    text = folder / "samples.om"
    text.write_text(exposition, encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, folder / "data"]
    subprocess.run(command, check=True, capture_output=True, text=True)


def version() -> str:
    """That of the Prometheus that is run."""
    told = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, check=True)
    return (told.stdout + told.stderr).split()[2].partition("+")[0].rstrip(",")


@contextmanager
def running_prometheus(
    folder: Path, configuration: Mapping[str, Any] | None = None, *flags: str
) -> Iterator[Prometheus]:
    """A Prometheus on a free port of loopback with the database in ``folder/data``."""
    (folder / "prometheus.yml").write_text(json.dumps(configuration or {}), encoding="utf-8")
    port = free_port(socket.SOCK_STREAM)
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *(flags or ("--storage.tsdb.retention.time=60d",)),
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(process, url, folder / "log")
            yield Prometheus(url)
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/-/ready"):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Prometheus did not start: {log.read_text()}")
