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
from tests.support.peers import nfcapd_files, program, started
from tests.support.stack import until

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
        until("all flows", 60, lambda: collected.totals()[2] >= FLOWS)
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
        until("all flows", 60, lambda: collected.totals()[2] >= FLOWS)
        assert collected.totals() == expected
        assert {row["src_addr"] for row in collected.flows.rows()} == {"2001:db8::1"}


def test_softflowd_sends_both_directions_in_one_record(tmp_path: Path) -> None:
    """-b: what nobody answered has a reverse direction of zeros, which is no flow."""
    expected = capture(tmp_path / "traffic.pcap")
    with collecting() as collected:
        traffic = str(tmp_path / "traffic.pcap")
        argv = softflowd(10, collected.port, tmp_path, "-b", "-r", traffic)
        subprocess.run(argv, capture_output=True, timeout=60)
        until("all octets", 60, lambda: collected.totals()[:2] == expected[:2])
        assert collected.totals() == expected


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
            until("softflowd", 60, lambda: (tmp_path / "softflowd.ctl").exists())
            control = [program("softflowctl"), "-c", str(tmp_path / "softflowd.ctl")]

            def processed() -> int:
                told = subprocess.check_output([*control, "statistics"], text=True, timeout=60)
                found = re.search(r"Packets processed: (\d+)", told)
                assert found, told
                return int(found[1])

            def seen() -> bool:
                """softflowd gets packets by the block: it leaves the last one with the kernel, and
                what does not fit is lost."""
                for _ in range(5_000):
                    sender.sendto(bytes(1000), ("127.0.0.1", watched))
                return processed() > 10_000

            until("softflowd sees the packets", 60, seen)

            def all_told() -> int:
                """Packets, when softflowd has told of all that it has processed."""
                expire = [*control, "expire-all"]
                subprocess.run(expire, check=True, timeout=60, capture_output=True)
                packets = collected.totals()[1]
                return packets if packets == processed() else 0

            packets = until("the flow", 60, all_told)
        assert collected.totals()[:2] == (packets * 1028, packets)
        ports = {(flow["src_port"], flow["dst_port"]) for flow in collected.flows.rows()}
        assert ports == {(sender.getsockname()[1], watched)}


def pmacctd_tells(collected: Collected, folder: Path, settings: str) -> None:
    """pmacctd's nfprobe tells the flows of ``traffic.pcap`` in ``folder``."""
    file, log = folder / "pmacctd.conf", folder / "pmacctd.log"
    file.write_text(
        f"""\
daemonize: false
pcap_savefile: {folder}/traffic.pcap
pcap_savefile_delay: 1
aggregate: src_host, dst_host, src_port, dst_port, proto, tos
plugins: nfprobe
nfprobe_receiver: 127.0.0.1:{collected.port}
{settings}
"""
    )
    with started([program("pmacctd"), "-f", str(file)], log) as process:
        until("pmacctd's end", 60, lambda: process.poll() is not None)
        until(log.read_text(), 60, lambda: collected.totals()[2] >= FLOWS)


@pytest.mark.parametrize("version", [5, 9, 10])
def test_pmacctd_exports_a_capture_by_nfprobe(version: int, tmp_path: Path) -> None:
    expected = capture(tmp_path / "traffic.pcap")
    with collecting() as collected:
        pmacctd_tells(collected, tmp_path, f"nfprobe_version: {version}")
        assert collected.totals() == expected


def test_pmacctd_and_times_of_microseconds(tmp_path: Path) -> None:
    """Its microseconds are seconds and microseconds of 8 octets each, not times of NTP."""
    expected = capture(tmp_path / "traffic.pcap")
    began = time.time() - 30  # as the capture tells
    with collecting() as collected:
        pmacctd_tells(collected, tmp_path, "nfprobe_version: 10\nnfprobe_tstamp_usec: true")
        flows = collected.flows
        assert collected.totals() == expected
        assert {row["time_source"] for row in flows.rows()} == {"record"}
        assert int(flows.array("time_flow_start").min()) == pytest.approx(began * 1000, abs=1000)


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
                capture_output=True, check=True, timeout=60,
            )  # fmt: skip
        until("all flows", 60, lambda: collected.totals()[2] >= len(batch))
        expected = int(batch.array("bytes").sum()), int(batch.array("packets").sum()), len(batch)
        assert collected.totals() == expected
