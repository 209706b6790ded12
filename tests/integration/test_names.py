"""An eBPF agent's flows get names of containers, countries and AS on their way to ClickHouse."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from exporter.proto import pbflow_pb2 as pb
from exporter.proto.pbflow_pb2_grpc import CollectorStub
from tests.support.collector import RunningCollector
from tests.support.docker_engine import FakeEngine
from tests.support.ebpf import record
from tests.support.mmdb import MAXMIND_AS, MAXMIND_CITY, write
from tests.support.stack import free_port, until
from tests.support.store import RunningStore


@pytest.fixture(scope="module")
def collector(
    tmp_path_factory: pytest.TempPathFactory, store: RunningStore
) -> Iterator[tuple[RunningCollector, FakeEngine]]:
    folder = tmp_path_factory.mktemp("names")
    write(folder / "as.mmdb", {"198.51.100.0/24": MAXMIND_AS})
    write(folder / "country.mmdb", {"198.51.100.0/24": MAXMIND_CITY})
    (folder / "names.csv").write_text("65001,Our own\n")
    with FakeEngine(folder / "docker.sock") as engine:
        engine.run("shop-web-1", "172.18.0.2", labels={"com.docker.compose.service": "web"})
        config = {
            "receive": {"grpc": {"port": free_port(socket.SOCK_STREAM)}},
            "devices": [{"address": "192.0.2.7", "name": "node7", "role": "host"}],
            "docker": {"url": engine.url},
            "geo": {"files": ["as.mmdb", "country.mmdb"], "as_names_file": "names.csv"},
        }
        with RunningCollector(folder, store, f"n{uuid.uuid4().hex[:8]}", config) as running:
            yield running, engine


def ask(store: RunningStore, running: RunningCollector, sql: str) -> list[tuple[Any, ...]]:
    return store.ask(running.config["clickhouse"]["database"], sql)


def send(running: RunningCollector, *records: pb.Record) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{running.config['receive']['grpc']['port']}") as channel:
        CollectorStub(channel).Send(pb.Records(entries=records), timeout=30)


def test_flows_are_stored_with_names(
    collector: tuple[RunningCollector, FakeEngine], store: RunningStore
) -> None:
    running, _ = collector
    until("the engine is followed", 30, lambda: running.metric("flow_exporter_docker_connected"))
    made = record("172.18.0.2", "198.51.100.9", sampling=10, direction=pb.EGRESS)
    made.time_flow_rtt.FromMilliseconds(20)
    send(running, made)
    columns = (
        "source, device, role, src_host, dst_as, dst_country, bytes, round(1000 * rtt), "
        "in_if_name, direction"
    )
    stored = until("a flow", 30, lambda: ask(store, running, f"SELECT {columns} FROM flows"))
    assert stored == [
        ("ebpf", "node7", "host", "shop-web-1", 64496, "DE", 15_000, 20, "eth0", "egress")
    ]
    assert running.metric("flow_exporter_grpc_flows_total", device="node7") == 1
    names = until(
        "names of both AS", 60,
        lambda: len(found := ask(store, running, "SELECT number, name FROM as_names")) == 2
        and found,
    )  # fmt: skip
    assert sorted(names) == [(64496, "Example Transit"), (65001, "Our own")]
    shown = "SELECT joinGet('as_names', 'name', dst_as) FROM flows"
    assert ask(store, running, shown) == [("Example Transit",)]


def test_a_container_that_starts_is_named_in_the_next_flows(
    collector: tuple[RunningCollector, FakeEngine], store: RunningStore
) -> None:
    running, engine = collector
    engine.run("late", "172.18.0.77")
    until("its name", 30, lambda: running.metric("flow_exporter_docker_container_info",
                                                 container="late"))  # fmt: skip
    send(running, record("172.18.0.77", "10.0.0.1"))
    sql = "SELECT src_host FROM flows WHERE src_addr = '172.18.0.77'"
    assert until("a flow", 30, lambda: ask(store, running, sql)) == [("late",)]


def test_a_reload_with_a_broken_file_changes_nothing(
    collector: tuple[RunningCollector, FakeEngine],
) -> None:
    running, _ = collector
    before = running.file.read_text()
    running.config["geo"] = {"files": ["broken.mmdb"]}
    Path(running.file.parent, "broken.mmdb").write_text("nonsense")
    running.write_config()
    try:
        status, text = running.get("/-/reload", method="POST")
        assert status != 200
        assert "broken.mmdb" in text
        assert running.metric("flow_exporter_geo_file_timestamp_seconds") > 0
    finally:
        running.file.write_text(before)


def test_check_names_each_file_that_cannot_be_used(tmp_path: Path) -> None:
    for name in ("as.mmdb", "names.csv", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("nonsense")
    config = tmp_path / "flow-exporter.yaml"
    config.write_text(
        "geo: {files: [as.mmdb], as_names_file: names.csv}\n"
        "receive: {grpc: {tls: {cert_file: cert.pem, key_file: key.pem}}}\n"
    )
    command = [sys.executable, "-m", "exporter", "check", "--offline", "-c", str(config)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    for text in ("as.mmdb: ", "names.csv:1: ", "cert.pem"):
        assert text in found.stderr
