"""The real engine as the one node of a cluster, in a process of its own.

The engine in process has an in-memory Keeper, macros and remote servers, but runs nothing
``ON CLUSTER`` and no replication: tables with Replicated engines can be made and looked at, but
not filled. ``plain`` gives statements for tables to fill: on this node, without replication.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from tests.support.folders import own_folder

_CONFIG = """<clickhouse>
  <tcp_port>9000</tcp_port>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <macros><shard>01</shard><replica>one</replica></macros>
  <remote_servers><flow><shard><internal_replication>true</internal_replication>
    <replica><host>localhost</host><port>9000</port></replica>
  </shard></flow></remote_servers>
</clickhouse>
"""
# Host and port are the engine's own, so that it asks itself without a connection.
_SERVE = """
import json, sys
import chdb._chdb as chdb
connection = chdb.connect(sys.argv[1])
for line in sys.stdin:
    try:
        rows = connection.query(json.loads(line), "JSONCompact").bytes().decode()
        answer = {"rows": json.loads(rows)["data"] if rows.strip() else []}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""


class EngineRefusalError(Exception):
    """What the engine says of a statement that it refuses."""


class ClusterNode:
    """An empty engine with cluster ``flow`` and database ``flow``; a context manager."""

    def __enter__(self) -> ClusterNode:
        self._made = ExitStack()
        folder = self._made.enter_context(own_folder("flow-cluster-"))
        config = folder / "config.xml"
        config.write_text(_CONFIG)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, f"{folder}/data?config-file={config}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for statement in ("CREATE DATABASE flow", "USE flow"):
            self.run(statement)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Told to end, it would try for long to make its replicas active.
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._made.close()

    def run(self, statement: str) -> list[list[Any]]:
        """Rows of the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(statement) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise EngineRefusalError(answer["error"])
        rows: list[list[Any]] = answer["rows"]
        return rows


class NodeClient:
    """As much of a driver's client as what is asked of a node needs."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> Any:
        for name, value in (parameters or {}).items():
            kind = "Array(String)" if isinstance(value, list) else "String"
            sql = sql.replace(f"{{{name}:{kind}}}", repr(value))
        return SimpleNamespace(result_rows=self._node.run(sql))

    def command(self, sql: str, settings: dict[str, Any] | None = None) -> None:
        assert " ON CLUSTER 'flow'" in sql
        given = ", ".join(f"{name} = {value}" for name, value in (settings or {}).items())
        self._node.run(here(sql) + (f" SETTINGS {given}" if given else ""))


def here(sql: str) -> str:
    """The statement for this node only."""
    return sql.replace(" ON CLUSTER 'flow'", "")


def plain(sql: str) -> str:
    """The statement for this node only and without replication."""
    sql = re.sub(r"Replicated(\w+)\('[^']*', '[^']*'(?:, )?", r"\1(", here(sql))
    return re.sub(
        r"\breplicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+",
        r"non_replicated_deduplication_window = \1",
        sql,
    )
