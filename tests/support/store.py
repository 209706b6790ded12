"""Runs the real ``flow-exporter store`` for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clickhouse_connect
import urllib3
from clickhouse_connect.driver.client import Client

from exporter.up.supervisor import die_with_parent
from tests.support.folders import own_folder
from tests.support.stack import free_port

_READY = "flow-exporter store: listening on "


class RunningStore:
    """A store on a free port of loopback: ``start``, ``stop``, ``kill``; a context manager.

    ``url``, ``port``, ``pid`` are those of the running process; the data directory, its passwords
    and the port stay the same when it is started again.
    """

    def __init__(
        self,
        data_dir: Path,
        arguments: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.url = ""
        self.port = free_port(socket.SOCK_STREAM)
        self._arguments = list(arguments)
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> RunningStore:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [
            sys.executable, "-c", "from exporter.cli import main; main()", "store",
            "--data-dir", str(self.data_dir), "--listen", f"127.0.0.1:{self.port}",
            *self._arguments,
        ]  # fmt: skip
        self.log = self.data_dir.parent / f"{self.data_dir.name}.log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self._environment,
                preexec_fn=die_with_parent,  # else it outlives tests that are killed
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(_READY):
            self._process.wait(60)
            raise RuntimeError(f"the store did not start: {line}{self.log.read_text()}")
        self.url = line.removeprefix(_READY).split(",")[0]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def user(self) -> str:
        return "flow_writer"

    @property
    def password(self) -> str:
        return (self.data_dir / "writer.password").read_text().strip()

    @property
    def reader(self) -> str:
        return "flow_reader"

    @property
    def reader_password(self) -> str:
        return (self.data_dir / "reader.password").read_text().strip()

    def authorization(self, *, reader: bool = False) -> dict[str, str]:
        """The header that tells who asks."""
        password = self.reader_password if reader else self.password
        credentials = f"{self.reader if reader else self.user}:{password}"
        return urllib3.make_headers(basic_auth=credentials)

    def client(self, *, reader: bool = False, **options: Any) -> Client:
        """A clickhouse-connect client of the writer (or the reader)."""
        options.setdefault("autogenerate_session_id", False)
        return clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.port,
            username=self.reader if reader else self.user,
            password=self.reader_password if reader else self.password,
            **options,
        )

    def ask(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, by a connection of its own: the store may have restarted."""
        client = self.client(database=database)
        try:
            return list(client.query(sql).result_rows)
        finally:
            client.close()

    def stop(self) -> int:
        """End it as a service manager would; its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        return self.wait()

    def kill(self) -> None:
        """End it as a power failure would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self.wait()

    def restart(self) -> None:
        """Stop it, then start it on the same port and data."""
        self.stop()
        self.start()

    def wait(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(180)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextmanager
def running_store(
    *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[RunningStore]:
    """A store on a new, empty data directory, which is removed at the end."""
    with (
        own_folder("flow-store-") as folder,
        RunningStore(folder / "store", arguments, environment) as store,
    ):
        yield store
