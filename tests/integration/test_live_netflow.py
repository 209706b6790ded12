"""Other people's exporters send to our receiver: what they say they sent is what we decode."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.batch import FlowBatch, concat
from exporter.config import Config, Receive, UdpListener
from exporter.decode import Decoder
from exporter.receive.udp import open_receivers
from exporter.simulate.encode import NetFlow9Encoder
from tests.support.flows import random_flows
from tests.support.frames import ethernet, ipv4, ipv6, pcap, udp
from tests.support.peers import nfcapd_files, program, started, wait_for

FLOWS = 60
NOW = 1_760_000_000_000
SOURCES = {5: "netflow5", 9: "netflow9", 10: "ipfix"}


class Collected:
    """What has been decoded so far, and what went wrong."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.batches: list[FlowBatch] = []

    @property
    def flows(self) -> FlowBatch:
        return concat([b for b in list(self.batches) if len(b)] or [FlowBatch(0)])

    def totals(self) -> tuple[int, int, int]:
        flows = self.flows
        return int(flows.array("bytes").sum()), int(flows.array("packets").sum()), len(flows)


@contextmanager
def collecting() -> Iterator[Collected]:
    """Our receiver and decoder on a free port of loopback."""
    settings = Receive(udp=[UdpListener(port=0)], socket_buffer_bytes=1 << 20)
    decoder = Decoder(Config().decode, [])
    stop = threading.Event()
    with open_receivers(settings) as receivers:
        collected = Collected(receivers.receivers[0].port)

        def run() -> None:
            for datagrams in receivers.batches(stop):
                collected.batches += decoder.decode(datagrams)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield collected
        finally:
            stop.set()
            thread.join()


def capture(path: Path, *, family: int = 4) -> tuple[int, int, int]:
    """Packets of ``FLOWS`` UDP conversations; their bytes (IP packets), packets and flows."""
    frames = []
    octets = 0
    for flow in range(FLOWS):
        for size in range(flow % 7 + 1):
            payload = udp(bytes(20 + 10 * size), 10_000 + flow, 53)
            packet = ipv4(payload, "10.1.0.1", "10.2.0.2") if family == 4 else ipv6(payload)
            octets += len(packet)
            frames.append(ethernet(packet))
    now = time.time() - 30
    path.write_bytes(pcap(frames, times=[now + n / 100 for n in range(len(frames))]))
    return octets, len(frames), FLOWS


def softflowd(version: int, port: int, folder: Path, *arguments: str) -> list[str]:
    return [
        program("softflowd"), "-d", "-v", str(version), "-n", f"127.0.0.1:{port}",
        "-p", str(folder / "softflowd.pid"), "-c", str(folder / "softflowd.ctl"), *arguments,
    ]  # fmt: skip


@pytest.mark.parametrize("version", [5, 9, 10])
def test_softflowd_reads_a_capture_and_we_get_its_flows(version: int, tmp_path: Path) -> None:
    expected = capture(tmp_path / "traffic.pcap")
    with collecting() as collected:
        argv = softflowd(version, collected.port, tmp_path, "-r", str(tmp_path / "traffic.pcap"))
        told = subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout
        wait_for(lambda: collected.totals()[2] >= FLOWS, "all flows")
        assert collected.totals() == expected
        exported = re.search(r"Flows exported: (\d+)", told)
        assert exported, told
        assert int(exported[1]) == FLOWS
        assert {row["source"] for row in collected.flows.rows()} == {SOURCES[version]}


@pytest.mark.parametrize("version", [9, 10])
def test_softflowd_and_ipv6(version: int, tmp_path: Path) -> None:
    expected = capture(tmp_path / "traffic.pcap", family=6)
    with collecting() as collected:
        argv = softflowd(version, collected.port, tmp_path, "-r", str(tmp_path / "traffic.pcap"))
        subprocess.run(argv, capture_output=True, timeout=60)
        wait_for(lambda: collected.totals()[2] >= FLOWS, "all flows")
        assert collected.totals() == expected
        assert {row["src_addr"] for row in collected.flows.rows()} == {"2001:db8::1"}


def test_softflowd_watches_loopback(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "capturing on loopback needs root"
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        collecting() as collected,
    ):
        sink.bind(("127.0.0.1", 0))
        sender.bind(("127.0.0.1", 0))
        watched = sink.getsockname()[1]
        log = tmp_path / "softflowd.log"
        argv = softflowd(9, collected.port, tmp_path, "-i", "lo", f"udp dst port {watched}")
        with started(argv, log):
            wait_for(lambda: (tmp_path / "softflowd.ctl").exists(), "softflowd")
            time.sleep(0.3)
            # softflowd gets packets from the kernel by the block and leaves the last one there.
            for _ in range(20_000):
                sender.sendto(bytes(1000), ("127.0.0.1", watched))
            control = [program("softflowctl"), "-c", str(tmp_path / "softflowd.ctl")]

            def processed() -> int:
                told = subprocess.check_output([*control, "statistics"], text=True, timeout=60)
                found = re.search(r"Packets processed: (\d+)", told)
                assert found, told
                return int(found[1])

            wait_for(lambda: processed() > 10_000, "softflowd sees the packets")
            packets = 0
            while packets != (packets := processed()):  # blocks may still be on their way
                time.sleep(0.5)
            subprocess.run([*control, "expire-all"], check=True, timeout=60, capture_output=True)
            wait_for(lambda: collected.totals()[2], "the flow")
        assert collected.totals() == (packets * 1028, packets, 1)
        (flow,) = collected.flows.rows()
        assert (flow["src_port"], flow["dst_port"]) == (sender.getsockname()[1], watched)


@pytest.mark.parametrize("version", [5, 9, 10])
def test_pmacctd_exports_a_capture_by_nfprobe(version: int, tmp_path: Path) -> None:
    expected = capture(tmp_path / "traffic.pcap")
    with collecting() as collected:
        settings = tmp_path / "pmacctd.conf"
        settings.write_text(
            f"""\
daemonize: false
pcap_savefile: {tmp_path}/traffic.pcap
pcap_savefile_delay: 1
aggregate: src_host, dst_host, src_port, dst_port, proto, tos
plugins: nfprobe
nfprobe_receiver: 127.0.0.1:{collected.port}
nfprobe_version: {version}
"""
        )
        log = tmp_path / "pmacctd.log"
        with started([program("pmacctd"), "-f", str(settings)], log) as process:
            wait_for(lambda: process.poll() is not None, "pmacctd's end")
            wait_for(lambda: collected.totals()[2] >= FLOWS, log.read_text())
        assert collected.totals() == expected


@pytest.mark.parametrize("version", [5, 9])
def test_nfreplay_sends_what_nfcapd_stored(version: int, tmp_path: Path) -> None:
    batch = random_flows(500, now=NOW)
    datagrams = NetFlow9Encoder(boot=NOW - 10_000_000).encode(batch, NOW)
    files = nfcapd_files(datagrams, tmp_path)
    with collecting() as collected:
        for file in sorted(files.glob("nfcapd.2*")):
            subprocess.run(
                [program("nfreplay"), "-r", str(file), "-H", "127.0.0.1",
                 "-p", str(collected.port), "-v", str(version), "-d", "1000"],
                capture_output=True, check=True, timeout=20,
            )  # fmt: skip
        wait_for(lambda: collected.totals()[2] >= len(batch), "all flows")
        expected = int(batch.array("bytes").sum()), int(batch.array("packets").sum()), len(batch)
        assert collected.totals() == expected
