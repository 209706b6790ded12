"""The real collector between real packets and the real store."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.batch import FlowBatch
from exporter.simulate.encode import (
    Encoder,
    IpfixEncoder,
    NetFlow5Encoder,
    NetFlow9Encoder,
    SFlow5Encoder,
)
from tests.support.collector import RunningCollector
from tests.support.flows import random_flows
from tests.support.stack import until
from tests.support.store import RunningStore, running_store

FLOWS = 3_000
DEVICES = [
    {"address": "127.0.2.1", "name": "edge1", "site": "ams", "interfaces": {7: "transit-a"}},
    {"address": "127.0.2.2", "name": "edge2"},
    {"address": "127.0.2.3", "name": "edge3"},
    {"address": "127.0.2.4", "name": "edge4"},
]


def simple_flows(count: int, *, seed: int = 1) -> FlowBatch:
    """Flows that every protocol can carry; recent ones."""
    now = int(time.time() * 1000)
    flows = random_flows(count, seed=seed, now=now)
    wanted = (
        "time_flow_start", "time_flow_end", "bytes", "packets", "src_addr", "dst_addr", "etype",
        "proto", "src_port", "dst_port", "in_if", "out_if", "src_as", "dst_as",
    )  # fmt: skip
    chosen = FlowBatch(count, {name: flows.columns[name] for name in wanted})
    chosen.columns["in_if"] = flows.array("in_if") % 8  # fewer pairs than a counter has room for
    chosen.columns["out_if"] = flows.array("out_if") % 8
    chosen.columns["src_as"] = np.minimum(flows.array("src_as"), 65_535)
    chosen.columns["dst_as"] = np.minimum(flows.array("dst_as"), 65_535)
    return chosen


def boot_time() -> int:
    """An hour ago, in milliseconds, to the second."""
    return (int(time.time()) - 3600) * 1000


@pytest.fixture(scope="module")
def collector(
    tmp_path_factory: pytest.TempPathFactory, store: RunningStore
) -> Iterator[RunningCollector]:
    folder = tmp_path_factory.mktemp("collector")
    config = {
        "devices": DEVICES,
        "networks": [{"name": "production", "prefixes": ["10.1.0.0/16"]}],
        "services": [{"port": 14999, "name": "aggregation"}],
    }
    with RunningCollector(folder, store, f"c{uuid.uuid4().hex[:8]}", config) as running:
        yield running


def database_of(collector: RunningCollector) -> str:
    name: str = collector.config["clickhouse"]["database"]
    return name


@pytest.mark.parametrize(
    ("device", "address", "encoder"),
    [
        ("edge1", "127.0.2.1", NetFlow5Encoder),
        ("edge2", "127.0.2.2", NetFlow9Encoder),
        ("edge3", "127.0.2.3", IpfixEncoder),
        ("edge4", "127.0.2.4", SFlow5Encoder),
    ],
)
def test_bytes_packets_and_flows_sent_are_those_stored_and_those_counted(
    collector: RunningCollector, store: RunningStore, device: str, address: str, encoder: Any
) -> None:
    flows = simple_flows(FLOWS)
    boot = boot_time()
    made: Encoder
    if encoder is SFlow5Encoder:
        # sFlow samples packets one by one.
        flows.columns["bytes"] = flows.array("bytes") // flows.array("packets")
        flows.columns["packets"] = np.ones(FLOWS, np.uint64)
        made = SFlow5Encoder(agent=address, boot=boot, sampling_rate=1)
    else:
        made = encoder(boot=boot)
    collector.send(made, flows, source=address)
    sent = (int(flows.array("bytes").sum()), int(flows.array("packets").sum()), FLOWS)
    sql = f"SELECT sum(bytes), sum(packets), count() FROM flows WHERE device = '{device}'"
    database = database_of(collector)
    until("all flows stored", 30, lambda: store.ask(database, sql)[0][2] >= FLOWS)
    assert store.ask(database, sql)[0] == sent
    for family in ("device", "interface"):
        counted = tuple(
            int(collector.metric(f"flow_{family}_{measure}_total", device=device))
            for measure in ("bytes", "packets", "flows")
        )
        assert counted == sent


def test_flows_are_stored_with_their_names(
    collector: RunningCollector, store: RunningStore
) -> None:
    flows = simple_flows(200, seed=5)
    flows.columns["dst_port"] = np.full(200, 14999, np.uint16)
    flows.columns["proto"] = np.full(200, 6, np.uint8)
    flows.columns["in_if"] = np.full(200, 7, np.uint32)
    boot = boot_time()
    collector.send(NetFlow5Encoder(boot=boot, observation_domain=9), flows, source="127.0.2.1")
    sql = (
        "SELECT DISTINCT device, site, in_if_name, src_network, dst_network, service, dst_service "
        "FROM flows WHERE dst_port = 14999 AND in_if = 7 AND proto = 6 AND device = 'edge1' "
        "AND observation_domain = 9"
    )
    rows = until("named flows", 30, lambda: store.ask(database_of(collector), sql))
    assert rows == [("edge1", "ams", "transit-a", "production", "", "aggregation", "aggregation")]


def test_few_flows_are_in_the_metrics_at_once_and_in_the_store_within_the_batch_time(
    collector: RunningCollector, store: RunningStore
) -> None:
    boot = boot_time()
    collector.send(NetFlow5Encoder(boot=boot), simple_flows(1), source="127.0.2.77")
    until(
        "one flow in /metrics",
        30,
        lambda: collector.metric("flow_device_flows_total", device="127.0.2.77") == 1,
    )
    sql = "SELECT count() FROM flows WHERE device = '127.0.2.77'"
    until("one flow stored", 30, lambda: store.ask(database_of(collector), sql)[0][0] == 1)


def test_prometheus_sees_a_new_series_begin_at_zero(collector: RunningCollector) -> None:
    boot = boot_time()
    collector.send(NetFlow5Encoder(boot=boot), simple_flows(2), source="127.0.2.78")
    name, label = "flow_device_flows_total", 'device="127.0.2.78"'
    until("flows counted", 30, lambda: collector.metric(name, device="127.0.2.78") == 2)

    def scraped() -> str:
        header = {"X-Prometheus-Scrape-Timeout-Seconds": "10"}
        lines = collector.get("/metrics", headers=header)[1].splitlines()
        return next(x for x in lines if x.startswith(name) and label in x).rpartition(" ")[2]

    assert [scraped(), scraped()] == ["0", "2"]


def test_foreign_datagrams_are_counted_and_change_nothing_else(
    collector: RunningCollector,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for junk in (b"", b"\0", b"hello world" * 20, b"\0\x09" + b"\xff" * 60, b"\0\x0a\xff\xff"):
            sender.sendto(junk, ("127.0.0.1", collector.flows))
    until("errors counted", 30, lambda: collector.metric("flow_exporter_decode_errors_total") >= 3)
    assert collector.get("/-/healthy")[0] == 200
    assert collector.metric("flow_exporter_pipeline_errors_total") == 0


def test_a_reload_takes_new_names_over_and_keeps_the_old_ones_when_wrong(
    collector: RunningCollector,
) -> None:
    boot = boot_time()
    encoder = NetFlow5Encoder(boot=boot, observation_domain=3)

    def counted(name: str) -> float:
        return collector.metric("flow_device_flows_total", device=name)

    collector.config["devices"] = [*DEVICES, {"address": "127.0.2.90", "name": "renamed"}]
    collector.write_config()
    assert collector.get("/-/reload", method="POST") == (200, "reloaded\n")
    collector.send(encoder, simple_flows(5), source="127.0.2.90")
    until("flows of the new name", 30, lambda: counted("renamed") == 5)

    collector.file.write_text("devices:\n  - adress: 127.0.2.90\n")
    status, body = collector.get("/-/reload", method="POST")
    assert status == 500
    assert f"{collector.file}:2:" in body
    assert collector.metric("flow_exporter_config_last_reload_successful") == 0
    collector.send(encoder, simple_flows(5, seed=2), source="127.0.2.90")
    until("flows of the kept name", 30, lambda: counted("renamed") == 10)

    before = collector.metric("flow_exporter_config_last_reload_success_timestamp_seconds")
    collector.write_config()
    assert collector.process is not None
    collector.process.send_signal(signal.SIGHUP)
    until(
        "reload by signal",
        30,
        lambda: collector.metric("flow_exporter_config_last_reload_successful") == 1,
    )
    name = "flow_exporter_config_last_reload_success_timestamp_seconds"
    assert collector.metric(name) > before


def test_two_addresses_of_one_name_are_one_series(collector: RunningCollector) -> None:
    addresses = ("127.0.2.95", "127.0.2.96")
    collector.config["devices"] = [*DEVICES, *({"address": a, "name": "twin"} for a in addresses)]
    collector.write_config()
    assert collector.get("/-/reload", method="POST")[0] == 200
    for address in addresses:
        collector.send(NetFlow5Encoder(boot=boot_time()), simple_flows(3), source=address)
    until(
        "flows of both",
        30,
        lambda: collector.metric("flow_device_flows_total", device="twin") == 6,
    )
    samples = [line.rpartition(" ")[0] for line in collector.get("/metrics")[1].splitlines()
               if not line.startswith("#")]  # fmt: skip
    assert any('device="twin"' in sample for sample in samples)
    assert len(samples) == len(set(samples))


def test_an_alert_that_prometheus_posts_is_stored(
    collector: RunningCollector, store: RunningStore
) -> None:
    alert = {
        "labels": {"alertname": "FlowTest", "severity": "warning", "policy": "p"},
        "annotations": {"summary": "A test."},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://127.0.0.1/graph",
    }
    request = urllib.request.Request(
        collector.url + "/api/v2/alerts",
        data=json.dumps([alert]).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    sql = "SELECT alertname, toString(status) FROM alerts FINAL WHERE alertname = 'FlowTest'"
    rows = until("the alert in the table", 30, lambda: store.ask(database_of(collector), sql))
    assert rows == [("FlowTest", "firing")]


def test_sigterm_stores_what_was_received(tmp_path: Path, store: RunningStore) -> None:
    database = f"c{uuid.uuid4().hex[:8]}"
    config = {"clickhouse": {"batch_seconds": 60}}
    with RunningCollector(tmp_path, store, database, config) as collector:
        boot = boot_time()
        collector.send(IpfixEncoder(boot=boot), simple_flows(20_000))
        assert collector.stop() == 0
    assert store.ask(database, "SELECT count() FROM flows")[0][0] == 20_000


@pytest.mark.parametrize("kept", [True, False])
def test_templates_outlive_a_restart_when_there_is_a_file_for_them(
    tmp_path: Path, store: RunningStore, kept: bool
) -> None:
    database = f"c{uuid.uuid4().hex[:8]}"
    config = {"decode": {"template_file": "templates.json" if kept else ""}}
    encoder = IpfixEncoder(boot=boot_time())  # sends its templates once, then not for minutes
    with RunningCollector(tmp_path, store, database, config) as collector:
        collector.send(encoder, simple_flows(10))
        until("flows", 30, lambda: collector.metric("flow_device_flows_total") == 10)
        assert collector.stop() == 0
        collector.start()
        collector.send(encoder, simple_flows(10, seed=2))
        name = "flow_device_flows_total" if kept else "flow_exporter_waiting_sets"
        until("flows again, or waiting", 30, lambda: collector.metric(name) > 0)
        assert collector.metric("flow_device_flows_total") == (10 if kept else 0)


def test_clickhouse_killed_and_back_loses_nothing(tmp_path: Path) -> None:
    with running_store() as store:
        with RunningCollector(tmp_path, store, "flow") as collector:
            encoder = IpfixEncoder(boot=boot_time())
            collector.send(encoder, simple_flows(1_000))
            sql = "SELECT count(), uniqExact(bytes, src_addr, dst_addr, src_port) FROM flows"
            until("flows before", 30, lambda: store.ask("flow", sql)[0][0] == 1_000)
            store.kill()
            collector.send(encoder, simple_flows(2_000, seed=2))
            until(
                "a failed insert",
                30,
                lambda: collector.metric("flow_exporter_insert_failures_total") > 0,
            )
            # Counting and answering go on.
            until("counts", 30, lambda: collector.metric("flow_device_flows_total") == 3_000)
            assert collector.get("/-/healthy")[0] == 200
            store.start()
            until("flows after", 30, lambda: store.ask("flow", sql)[0][0] >= 3_000)
            assert collector.stop() == 0
        rows, different = store.ask("flow", sql)[0]
        assert rows == 3_000
        assert different > 2_990  # random flows, hardly two alike: none came twice


def test_it_starts_without_clickhouse_says_so_and_migrates_when_it_comes(tmp_path: Path) -> None:
    with running_store() as store:
        store.stop()
        collector = RunningCollector(tmp_path, store, "flow")
        collector.start(ready=False)
        try:
            until("the reason", 30, lambda: "cannot be reached" in collector.get("/-/ready")[1])
            assert collector.get("/-/ready")[0] == 503
            assert collector.metric("flow_exporter_ready") == 0
            collector.send(IpfixEncoder(boot=boot_time()), simple_flows(500))
            store.start()
            until("ready", 30, lambda: collector.get("/-/ready")[0] == 200)
            sql = "SELECT count() FROM flows"
            until("the flows that waited", 30, lambda: store.ask("flow", sql)[0][0] == 500)
            assert collector.metric("flow_exporter_ready") == 1
        finally:
            collector.stop()


def flow_exporter(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter", *arguments], capture_output=True, text=True, timeout=300
    )


def test_check_says_what_is_wrong_and_where(tmp_path: Path, store: RunningStore) -> None:
    database = f"c{uuid.uuid4().hex[:8]}"
    collector = RunningCollector(tmp_path, store, database)
    collector.write_config()
    config = ("-c", str(collector.file))

    missing = flow_exporter("check", *config)
    assert missing.returncode == 1
    assert "0001_" in missing.stderr
    assert "flow-exporter migrate" in missing.stderr
    assert flow_exporter("migrate", *config).returncode == 0
    good = flow_exporter("check", *config)
    assert (good.returncode, good.stderr) == (0, "")
    assert f"database {database} is up to date" in good.stdout
    writer = collector.config["clickhouse"]
    collector.config["clickhouse"] = {
        **writer, "user": "flow_reader", "password_file": str(store.data_dir / "reader.password")
    }  # fmt: skip
    collector.write_config()
    reader = flow_exporter("check", *config)
    assert reader.returncode == 1
    assert "may only be read: check the rights of user 'flow_reader'" in reader.stderr
    collector.config["clickhouse"] = writer

    policies = tmp_path / "policies.yaml"
    policies.write_text("policies:\n  - name: x\n    dimension: [dst_host]\n")
    (tmp_path / "web.yml").write_text("basic_auth_users: {me: plain}\n")
    collector.config["policies"] = {"file": "policies.yaml"}
    collector.config["http"]["web_config_file"] = "web.yml"
    collector.config["http"]["webhook_token_file"] = "nowhere"
    collector.write_config()
    wrong = flow_exporter("check", "--offline", *config)
    assert wrong.returncode == 2
    assert f"{policies}:" in wrong.stderr
    assert f"{tmp_path / 'web.yml'}:1:" in wrong.stderr
    assert f"{tmp_path / 'nowhere'}: No such file" in wrong.stderr

    collector.file.write_text("http:\n  prot: 1\n")
    assert f"{collector.file}:2: http.prot" in flow_exporter("check", *config).stderr


def test_run_explains_why_it_cannot_start(tmp_path: Path, store: RunningStore) -> None:
    collector = RunningCollector(tmp_path, store, "flow")
    collector.write_config()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", collector.flows))
        result = flow_exporter("run", "-c", str(collector.file))
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {collector.flows}/udp" in result.stderr
    collector.file.write_text("receive: {udp: [{port: x}]}\n")
    result = flow_exporter("run", "-c", str(collector.file))
    assert result.returncode == 2
    assert f"{collector.file}:1: receive.udp.0.port" in result.stderr
