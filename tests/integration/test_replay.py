"""``flow-exporter replay`` sends captures to a real receiver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.batch import format_address
from exporter.config import Receive, UdpListener
from exporter.receive.udp import LINGER_SECONDS, UdpReceivers, open_receivers
from tests.support import frames as f


@pytest.fixture
def receivers() -> Iterator[UdpReceivers]:
    with open_receivers(Receive(udp=[UdpListener(port=0)])) as opened:
        yield opened


def replay(receivers: UdpReceivers, *arguments: object) -> subprocess.CompletedProcess[str]:
    port = receivers.receivers[0].port
    command = [sys.executable, "-m", "exporter", "replay", "--to", f"127.0.0.1:{port}"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False
    )


def received(receivers: UdpReceivers) -> list[tuple[str, int, bytes]]:
    found = []
    while (batch := receivers.receive(2 * LINGER_SECONDS)) is not None:
        for sender, port, payload in zip(
            batch.senders, batch.ports.tolist(), batch.payloads, strict=True
        ):
            found.append((format_address(sender.tobytes()), port, bytes(payload)))
    return found


def test_payloads_arrive_in_order_and_senders_stay_apart(
    receivers: UdpReceivers, tmp_path: Path
) -> None:
    frames = [
        f.ethernet(f.ipv4(f.udp(bytes([i]), 5000 + i // 50), f"192.0.2.{i % 2}"))
        for i in range(100)
    ]
    (tmp_path / "a.pcap").write_bytes(f.pcap(frames))
    (tmp_path / "b.dat").write_bytes(b"raw")
    done = replay(receivers, tmp_path / "a.pcap", tmp_path / "b.dat", "--as-fast-as-possible")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("101 datagrams, 103 bytes from 5 senders")
    got = received(receivers)
    assert [payload for _, _, payload in got] == [bytes([i]) for i in range(100)] + [b"raw"]
    assert [address for address, _, _ in got[:2]] == ["127.88.0.1", "127.88.0.2"]
    assert len({(address, port) for address, port, _ in got[:100]}) == 4


@pytest.mark.parametrize(
    ("arguments", "seconds"), [(["--speed", "10"], 0.5), (["--rate", "20"], 0.25)]
)
def test_the_pace_is_that_of_the_capture_or_the_one_asked_for(
    receivers: UdpReceivers, tmp_path: Path, arguments: list[str], seconds: float
) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(f.pcap([f.ipv4(f.udp(b"x"))] * 6, 101))
    done = replay(receivers, path, *arguments)
    took = float(done.stdout.split(" in ")[1].split()[0])
    assert seconds - 0.1 <= took <= seconds + 3  # at the capture's own pace: 5 s
    assert len(received(receivers)) == 6


def test_only_the_ports_asked_for_are_sent(receivers: UdpReceivers, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(f.pcap([f.ipv4(f.udp(bytes([i]), 1, 2000 + i)) for i in range(9)], 101))
    done = replay(receivers, path, "--as-fast-as-possible", "--port", 2003, "--port", 2005)
    assert done.returncode == 0
    assert [payload for _, _, payload in received(receivers)] == [b"\x03", b"\x05"]


def test_damage_is_named_and_the_rest_sent(receivers: UdpReceivers, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    whole = f.pcap([f.ipv4(f.udp(b"x"))] * 2, 101)
    path.write_bytes(whole[:-3])
    done = replay(receivers, path, "--as-fast-as-possible")
    assert done.returncode == 1
    assert f"{path}: offset 69: file ends within a record" in done.stderr
    assert len(received(receivers)) == 1


def test_nobody_listening_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(f.pcap([f.ipv4(f.udp(b"x"))] * 50, 101))
    with open_receivers(Receive(udp=[UdpListener(port=0)])) as closed:
        pass
    done = replay(closed, path, "--as-fast-as-possible")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
