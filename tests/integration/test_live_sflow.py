"""Real sFlow agents (Open vSwitch, pmacct) to our receiver; tshark reads the same datagrams."""

from __future__ import annotations

import re
import shlex
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exporter.config import Decode, Receive, UdpListener
from exporter.decode.decoder import Decoder
from exporter.receive.files import batches, read_datagrams
from exporter.receive.udp import UdpReceivers, open_receivers
from tests.support import frames as f
from tests.support import peers
from tests.support.pcap import write_pcap
from tests.support.switch import Switch, running_switch


@dataclass
class Collector:
    """Receiver and decoder, with all that came."""

    receivers: UdpReceivers
    decoder: Decoder = field(default_factory=lambda: Decoder(Decode(), []))
    rows: list[dict[str, Any]] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.receivers.receivers[0].port

    def take(self) -> None:
        batch = self.receivers.receive(0.1)
        if batch is not None:
            self.payloads += map(bytes, batch.payloads)
            for flows in self.decoder.decode(batch):
                self.rows += flows.rows(all_columns=True)

    def take_until(self, enough: Callable[[], bool]) -> None:
        """Receive; what is still missing after minutes does not come."""
        deadline = time.monotonic() + 300
        while not enough() and time.monotonic() < deadline:
            self.take()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with open_receivers(Receive(udp=[UdpListener(port=0)])) as receivers:
        yield Collector(receivers)


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    with running_switch(tmp_path_factory.mktemp("ovs")) as running:
        yield running


def traffic(count: int) -> list[bytes]:
    """Frames of different lengths, IPv4 TCP and tagged IPv6 UDP by turns."""
    frames = []
    for i in range(count):
        body = bytes(40 + i)
        if i % 2:
            tcp = struct.pack("!HHIIHHHH", 1000 + i, 443, 1, 2, 0x5012, 100, 0, 0) + body
            frames.append(f.ethernet(f.ipv4(tcp, "10.0.0.1", f"10.1.0.{i}", 6)))
        else:
            udp = f.udp(body, 1000 + i, 53)
            frames.append(f.ethernet(f.ipv6(udp, "2001:db8::1"), [(0x8100, 9)]))
    return frames


def endpoints(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    names = ("src_addr", "dst_addr", "proto", "src_port", "dst_port", "tcp_flags", "src_vlan")
    return Counter(tuple(row[name] for name in names) for row in rows)


def expected(count: int) -> Counter[tuple[Any, ...]]:
    return Counter(
        ("10.0.0.1", f"10.1.0.{i}", 6, 1000 + i, 443, 0x12, 0)
        if i % 2
        else ("2001:db8::1", "2001:db8::2", 17, 1000 + i, 53, 0, 9)
        for i in range(count)
    )


def test_open_vswitch_samples_every_packet_and_reports_its_interfaces(
    switch: Switch, collector: Collector, tmp_path: Path
) -> None:
    switch.configure(
        "--", "--id=@s", "create", "sflow", 'agent="192.0.2.1"',
        f'target="127.0.0.1:{collector.port}"', "sampling=1", "header=128", "polling=1",
        "--", "set", "bridge", "br0", "sflow=@s",
    )  # fmt: skip
    frames = traffic(100)
    switch.receive("p1", frames)
    collector.take_until(lambda: len(collector.rows) >= len(frames))
    interfaces = collector.decoder.sflow.interfaces

    def counted() -> set[int]:
        return {index for _, index, _, _ in interfaces.recent(time.time_ns() // 10**6)}

    collector.take_until(lambda: counted() >= {101, 102})
    switch.configure("clear", "bridge", "br0", "sflow")

    assert endpoints(collector.rows) == expected(len(frames))
    assert sum(row["packets"] for row in collector.rows) == len(frames)
    # The agent counts the frame check sequence, which the dummy port does not have.
    assert sum(row["bytes"] for row in collector.rows) == sum(len(x) + 4 for x in frames)
    assert {row["device_addr"] for row in collector.rows} == {"192.0.2.1"}
    assert {row["in_if"] for row in collector.rows} == {101}
    assert {101, 102} <= counted()
    assert collector.decoder.stats.errors() == {}

    capture = tmp_path / "sflow.pcap"
    write_pcap(capture, collector.payloads, port=6343)
    names = ["sflow_245.agent", "sflow_245.header.frame_length", "sflow_245.vlan.in",
             "tcp.srcport", "ipv6.src"]  # fmt: skip
    seen = peers.tshark_fields(capture, names, port=6343, protocol="sflow")
    lengths = [int(x) for frame in seen for x in frame["sflow_245.header.frame_length"]]
    assert sorted(lengths) == sorted(row["bytes"] for row in collector.rows)
    ports = [int(x) for frame in seen for x in frame["tcp.srcport"]]
    assert sorted(ports) == sorted(r["src_port"] for r in collector.rows if r["proto"] == 6)
    vlans = [int(x) for frame in seen for x in frame["sflow_245.vlan.in"]]
    assert sorted(vlans) == sorted(row["src_vlan"] for row in collector.rows)

    again = Decoder(Decode(), [])
    read = [flows for batch in batches(read_datagrams(capture)) for flows in again.decode(batch)]
    assert sum(map(len, read)) == len(frames)


def test_open_vswitch_netflow_and_ipfix_agree_with_what_it_saw(
    switch: Switch, collector: Collector
) -> None:
    target = f'targets="127.0.0.1:{collector.port}"'
    switch.configure(
        "--", "--id=@n", "create", "netflow", target, "active_timeout=1",
        "--", "--id=@i", "create", "ipfix", target, "sampling=1", "obs_domain_id=123",
        "cache_active_timeout=1", "--", "set", "bridge", "br0", "netflow=@n", "ipfix=@i",
    )  # fmt: skip
    frames = [frame for frame in traffic(20) if frame[12:14] == b"\x08\x00"]
    for _ in range(2):
        switch.receive("p1", frames)

    def sums(source: str) -> tuple[int, int]:
        # IPFIX reports packets again for each port that they leave by.
        rows = [r for r in collector.rows if r["source"] == source and r["direction"] != "egress"]
        return sum(r["packets"] for r in rows), sum(r["bytes"] for r in rows)

    packets = 2 * len(frames)
    layer3 = 2 * sum(len(frame) - 14 for frame in frames)
    layer2 = 2 * sum(len(frame) for frame in frames)
    collector.take_until(lambda: {sums("netflow5")[0], sums("ipfix")[0]} == {packets})
    switch.configure("clear", "bridge", "br0", "netflow", "--", "clear", "bridge", "br0", "ipfix")
    # Open vSwitch's NetFlow counts whole frames, its IPFIX the IP packets.
    assert sums("netflow5") == (packets, layer2)
    assert sums("ipfix") == (packets, layer3)


def test_pmacct_sfprobe_samples_every_packet(collector: Collector, tmp_path: Path) -> None:
    frames = traffic(100)
    capture = tmp_path / "traffic.pcap"
    capture.write_bytes(f.pcap(frames, times=[1.7e9 + i / 100 for i in range(len(frames))]))
    settings = tmp_path / "pmacctd.conf"
    settings.write_text(
        f"""\
daemonize: false
pcap_savefile: {capture}
pcap_savefile_wait: 1
plugins: sfprobe[s]
aggregate[s]: src_host, dst_host
sfprobe_receiver[s]: 127.0.0.1:{collector.port}
sfprobe_agentip[s]: 192.0.2.55
sfprobe_agentsubid[s]: 3
sampling_rate[s]: 1
"""
    )
    argv = [peers.program("pmacctd"), "-f", str(settings)]
    with peers.started(argv, tmp_path / "pmacctd.log") as process:
        while process.poll() is None:
            collector.take()
    for _ in range(10):  # what was sent before the end
        collector.take()
    # When it ends, pmacctd does not send its last datagram that is not full.
    seen = len(collector.rows)
    assert len(frames) - 10 < seen
    assert endpoints(collector.rows) == expected(seen)
    assert sum(row["bytes"] for row in collector.rows) == sum(len(x) + 4 for x in frames[:seen])
    assert {(r["device_addr"], r["observation_domain"]) for r in collector.rows} == {
        ("192.0.2.55", 3)
    }


PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/connect-devices.md"


def shown(kind: str, port: int) -> list[str]:
    """Arguments of the page's ``ovs-vsctl`` for records of this kind: every packet, at once."""
    text = PAGE.read_text().partition("## Open vSwitch")[2].replace("\\\n", " ")
    [command] = [line for line in text.splitlines() if f" create {kind} " in line]
    for pattern, value in (
        (r"192\.0\.2\.10:\d+", f"127.0.0.1:{port}"),
        (r"agent=\w+", 'agent="192.0.2.1"'),
        (r"sampling=\d+", "sampling=1"),
        (r"(polling|active_timeout)=\d+", r"\1=1"),
    ):
        command = re.sub(pattern, value, command)
    return shlex.split(command)[1:]


@pytest.mark.parametrize(
    ("kind", "source"), [("sFlow", "sflow5"), ("IPFIX", "ipfix"), ("NetFlow", "netflow5")]
)
def test_open_vswitch_configured_by_our_page_tells_each_packet_once(
    kind: str, source: str, switch: Switch, collector: Collector
) -> None:
    switch.configure(*shown(kind, collector.port))
    frames = [frame for frame in traffic(20) if frame[12:14] == b"\x08\x00"]
    switch.receive("p1", frames)
    collector.take_until(lambda: sum(r["packets"] for r in collector.rows) >= len(frames))
    switch.configure("clear", "bridge", "br0", kind.lower())
    for _ in range(20):  # what is told again would come soon
        collector.take()
    assert {row["source"] for row in collector.rows} == {source}
    assert sum(row["packets"] for row in collector.rows) == len(frames)
