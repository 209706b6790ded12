"""The whole stack as `make up` starts it: packets in at one end, everything out at the other."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
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
from tests.support.stack import Stack, until

FLOWS = 6_000
RATE = 100


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    devices = [
        {"address": f"127.0.1.{number}", "name": name}
        for number, name in enumerate(("nf5", "nf9", "ipfix", "sflow"), 1)
    ]
    arguments = ("--demo", "--demo-history", "6h")
    running = Stack(tmp_path_factory.mktemp("up"), {"devices": devices}, *arguments)
    try:
        yield running
    finally:
        running.interrupt()


def _flows(now: int) -> FlowBatch:
    random = np.random.default_rng(7)
    addresses = np.zeros((2, FLOWS, 16), np.uint8)
    addresses[:, :, 10:12] = 0xFF
    addresses[0, :, 12:] = random.integers(1, 255, (FLOWS, 4))
    addresses[1, :, 12:] = random.integers(1, 255, (FLOWS, 4))
    return FlowBatch(
        FLOWS,
        {
            "time_flow_start": np.full(FLOWS, now - 3000, np.int64),
            "time_flow_end": np.full(FLOWS, now - 1000, np.int64),
            "bytes": random.integers(60, 1400, FLOWS).astype(np.uint64) * np.uint64(RATE),
            "packets": np.full(FLOWS, RATE, np.uint64),
            "src_addr": addresses[0],
            "dst_addr": addresses[1],
            "etype": np.full(FLOWS, 0x0800, np.uint16),
            "proto": np.full(FLOWS, 6, np.uint8),
            "src_port": random.integers(1024, 65535, FLOWS).astype(np.uint16),
            "dst_port": np.full(FLOWS, 443, np.uint16),
            "in_if": random.integers(1, 4, FLOWS).astype(np.uint32),
            "out_if": np.full(FLOWS, 9, np.uint32),
        },
    )


def _encoder(device: str, boot: int) -> Encoder:
    if device == "nf5":
        return NetFlow5Encoder(boot=boot, sampling_rate=RATE)
    if device == "nf9":
        return NetFlow9Encoder(boot=boot, sampling_rate=RATE)
    if device == "ipfix":
        return IpfixEncoder(boot=boot, sampling_rate=RATE)
    return SFlow5Encoder(agent="127.0.1.4", boot=boot, sampling_rate=RATE)


@pytest.mark.parametrize(
    ("device", "address"),
    [("nf5", "127.0.1.1"), ("nf9", "127.0.1.2"), ("ipfix", "127.0.1.3"), ("sflow", "127.0.1.4")],
)
def test_what_is_sent_is_what_is_stored_and_what_is_counted(
    stack: Stack, device: str, address: str
) -> None:
    now = int(time.time()) * 1000
    flows = _flows(now)
    expected = {
        "flows": FLOWS,
        "packets": int(flows.array("packets").sum()),
        "bytes": int(flows.array("bytes").sum()),
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 0))
        for number, datagram in enumerate(_encoder(device, now - 3_600_000).encode(flows, now)):
            sender.sendto(datagram, ("127.0.0.1", stack.flows))
            if number % 50 == 49:
                time.sleep(0.01)  # what a device would take, so that the test measures no buffers

    sql = (
        "SELECT count() AS flows, sum(packets) AS packets, sum(bytes) AS bytes, "
        "any(sampling_rate) AS rate, uniqExact(src_addr) > 5000 AS spread "
        f"FROM flows WHERE device = '{device}'"
    )
    stored = until(
        f"{FLOWS} flows of {device} in the store",
        30,
        lambda: next((row for row in stack.ask(sql) if row["flows"] >= FLOWS), None),
    )
    assert stored == expected | {"rate": RATE, "spread": 1}

    for measure, value in expected.items():
        name = f"flow_device_{measure}_total"
        stack.metric(name, device=device)  # a new series shows 0 at its first scrape
        assert stack.metric(name, device=device) == value
        assert stack.metric(f"flow_interface_{measure}_total", device=device) == value
        until(
            f"{name} of {device} in Prometheus",
            30,
            lambda name=name, value=value: (
                stack.query(f'sum({name}{{device="{device}"}})') == value
            ),
        )


def _talk(stop: threading.Event, payload: int) -> None:
    """TCP on loopback, some of it every tenth of a second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        while not stop.wait(0.1):
            with socket.create_connection(server.getsockname()) as client:
                connection, _ = server.accept()
                with connection:
                    client.sendall(b"x" * payload)
                    client.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass


def test_softflowd_in_another_terminal_shows_up_soon(stack: Stack, tmp_path: Path) -> None:
    softflowd = shutil.which("softflowd")
    assert softflowd, "install Debian's softflowd"
    stop = threading.Event()
    talking = threading.Thread(target=_talk, args=(stop, 10_000))
    talking.start()
    command = [
        softflowd, "-d", "-i", "lo", "-v", "9", "-n", f"127.0.0.1:{stack.flows}",
        "-t", "expint=1", "-t", "maxlife=3", "-t", "tcp.fin=1", "-t", "tcp=2",
        "-p", str(tmp_path / "pid"), "-c", str(tmp_path / "ctl"), "proto 6",
    ]  # fmt: skip
    exporting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        where = "device = '127.0.0.1' AND source = 'netflow9' AND proto = 6 AND bytes > 10000"
        until(
            "flows of softflowd in the store",
            15,
            lambda: stack.ask(f"SELECT count() AS n FROM flows WHERE {where}")[0]["n"] > 0,
        )
        until(
            "flows of softflowd in /metrics",
            15,
            lambda: stack.metric("flow_device_bytes_total", device="127.0.0.1") > 10_000,
        )
        until(
            "flows of softflowd in Prometheus",
            15,
            lambda: (stack.query('flow_device_bytes_total{device="127.0.0.1"}') or 0) > 10_000,
        )
    finally:
        stop.set()
        exporting.terminate()
        exporting.wait(60)
        talking.join()

    password = (stack.data / "store" / "reader.password").read_text().strip()
    host, _, port = stack.store.removeprefix("http://").partition(":")
    client = clickhouse_connect.get_client(
        host=host, port=int(port), username="flow_reader", password=password, database="flow"
    )
    parameters = {"device": "127.0.0.1"}
    rows = client.query(
        "SELECT dst_addr, bytes FROM flows WHERE device = {device:String} AND bytes > 10000",
        parameters,
    ).result_rows
    assert rows
    client.close()


def test_the_demo_has_a_past_that_policies_know(stack: Stack) -> None:
    [past] = stack.ask(
        "SELECT toUnixTimestamp(min(time_received)) AS first, "
        "uniqExact(toStartOfMinute(time_received)) AS minutes FROM flows_once "
        "WHERE dst_host = 'fl13'"
    )
    assert past["first"] < time.time() - 5.9 * 3600
    assert past["minutes"] >= 359, "up to where sending begins"
    values = stack.get(
        f"{stack.prometheus}/api/v1/query",
        query='key:flow_policy_value:max{policy="host_bits",dst_host="fl13"}',
        time=str(past["first"] + 3 * 3600),
    )
    assert values["data"]["result"], "of a time at which Prometheus did not run"
    assert re.search(r"history +│ flows: \d+ %", stack.log_file.read_text())


def test_the_demo_alert_is_in_alertmanager_and_comes_home(stack: Stack) -> None:
    def firing() -> list[dict[str, str]]:
        alerts = stack.get(f"{stack.alertmanager}/api/v2/alerts")
        return [a["labels"] for a in alerts if a["labels"].get("dst_host") == "fl13"]

    labels = until("an alert for fl13 in Alertmanager", 300, firing)[0]
    assert labels["severity"] in ("warning", "critical")
    assert labels["policy"].startswith("host_")
    row = until(
        "the alert in the table",
        60,
        lambda: stack.ask(
            "SELECT alertname, status, severity, policy, labels['dst_host'] AS host, "
            "annotations['dashboard_url'] AS url FROM alerts FINAL "
            f"WHERE labels['dst_host'] = 'fl13' AND policy = '{labels['policy']}' LIMIT 1"
        ),
    )[0]
    assert row["status"] == "firing"
    assert row["policy"] == labels["policy"]
    assert row["url"].startswith("http")


def _children(folder: Path) -> list[str]:
    """Command lines of living processes that name ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def test_ctrl_c_ends_all_of_it_and_loses_nothing(stack: Stack) -> None:
    assert len(_children(stack.data)) >= 4
    received = stack.metric("flow_device_flows_total")
    assert stack.interrupt() == 0
    assert _children(stack.data) == []
    log = stack.log_file.read_text()
    assert received > 0
    assert "killed" not in log, log
    assert "Traceback" not in log, log
