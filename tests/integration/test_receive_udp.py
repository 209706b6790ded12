"""Receiving from real sockets on loopback."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

import exporter.receive.udp
from exporter.batch import format_address
from exporter.config import Receive, UdpListener
from exporter.receive.buffers import DatagramBuffer, take_coalesced
from exporter.receive.collector import ReceiveCollector
from exporter.receive.datagrams import SPARE_BYTES
from exporter.receive.udp import (
    BATCH_DATAGRAMS,
    BATCHES_AHEAD,
    ReceiveError,
    UdpReceiver,
    UdpReceivers,
    open_receivers,
)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6 on loopback")


def settings(*addresses: str, **others: object) -> Receive:
    listeners = [{"address": address, "port": 0} for address in addresses]
    return Receive.model_validate({"udp": listeners, **others})


@pytest.fixture
def receivers() -> Iterator[UdpReceivers]:
    with open_receivers(settings("127.0.0.1")) as opened:
        yield opened


def send(port: int, payloads: list[bytes], address: str = "127.0.0.1") -> tuple[str, int]:
    """Send from a fresh socket; returns its address and port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        for payload in payloads:
            sock.send(payload)
        name = sock.getsockname()
        return name[0], name[1]


def take_batches(receivers: UdpReceivers, count: int) -> list[list[bytes]]:
    """Copies of the next ``count`` payloads, by batch."""
    taken: list[list[bytes]] = []
    deadline = time.monotonic() + 300
    while sum(map(len, taken)) < count and time.monotonic() < deadline:
        batch = receivers.receive(0.2)
        if batch is not None:
            taken.append([bytes(payload) for payload in batch.payloads])
    return taken


def take(receivers: UdpReceivers, count: int) -> list[bytes]:
    """Copies of the next ``count`` payloads."""
    return [payload for batch in take_batches(receivers, count) for payload in batch]


def test_payloads_arrive_whole_and_in_order(receivers: UdpReceivers) -> None:
    sent = [bytes([i % 256]) * (i * 13 % 1400) for i in range(2000)]
    send(receivers.receivers[0].port, sent)
    assert take(receivers, len(sent)) == sent


def test_a_batch_tells_sender_port_and_time() -> None:
    before = time.time_ns() // 1_000_000
    opened = open_receivers(settings("127.0.0.1"))
    # Before somebody reads: so they come together.
    _, port = send(opened.receivers[0].port, [b"x", b"y"])
    with opened as receivers:
        batch = receivers.receive(60)
    assert batch is not None
    assert [format_address(row.tobytes()) for row in batch.senders] == ["127.0.0.1"] * 2
    assert batch.ports.tolist() == [port, port]
    assert batch.ports.dtype == np.uint16
    assert (before <= batch.time_received).all()
    assert (batch.time_received <= time.time_ns() // 1_000_000).all()


def test_datagrams_sent_within_a_moment_share_a_batch(receivers: UdpReceivers) -> None:
    for _ in range(100):  # where the sender did not get the time for it within a moment, once more
        for _ in range(5):
            send(receivers.receivers[0].port, [b"a"])
            time.sleep(0.005)
        batch = receivers.receive(60)
        assert batch is not None
        if len(batch) == 5:
            break
        take(receivers, 5 - len(batch))
    assert len(batch) == 5


def test_a_backlog_is_read_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    linger = 30.0
    monkeypatch.setattr(exporter.receive.udp, "LINGER_SECONDS", linger)
    sent = 2 * BATCH_DATAGRAMS
    with open_receivers(settings("127.0.0.1")) as receivers:
        if receivers.receivers[0].buffer_bytes < 32 << 20:
            pytest.skip("needs a receive buffer of 32 MiB: CAP_NET_ADMIN or net.core.rmem_max")
        send(receivers.receivers[0].port, [b"x" * 1000] * sent)
        begin = time.monotonic()
        assert len(take(receivers, sent)) == sent
        assert time.monotonic() - begin < linger
        assert receivers.receivers[0].kernel_drops() == 0


@needs_ipv6
def test_all_listeners_are_read_and_senders_keep_their_family() -> None:
    with open_receivers(settings("127.0.0.1", "::1", "::")) as receivers:
        v4, v6, both = (receiver.port for receiver in receivers.receivers)
        send(v4, [b"v4"])
        send(v6, [b"v6"], "::1")
        send(both, [b"both-v6"], "::1")
        send(both, [b"both-v4"])
        seen = {}
        while len(seen) < 4:
            batch = receivers.receive(60)
            assert batch is not None
            for payload, sender in zip(batch.payloads, batch.senders, strict=True):
                seen[bytes(payload)] = format_address(sender.tobytes())
    assert seen == {
        b"v4": "127.0.0.1", b"v6": "::1", b"both-v6": "::1", b"both-v4": "127.0.0.1"
    }  # fmt: skip


def test_nothing_received_is_none(receivers: UdpReceivers) -> None:
    assert receivers.receive(0.01) is None


def test_what_came_before_the_stop_is_still_handed_over() -> None:
    stop = threading.Event()
    with open_receivers(settings("127.0.0.1")) as receivers:
        send(receivers.receivers[0].port, [b"x"] * 3000)
        stop.set()
        assert sum(len(batch) for batch in receivers.batches(stop)) == 3000


def test_a_decoder_that_takes_nothing_holds_up_no_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter.receive.udp, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(exporter.receive.udp, "_DRAIN_SECONDS", 0.1)
    receivers = open_receivers(settings("127.0.0.1"))
    receivers.start()
    for _ in range(10 * BATCHES_AHEAD):  # far more batches than may wait
        send(receivers.receivers[0].port, [b"x"])
        time.sleep(0.05)
    stopping = threading.Thread(target=receivers.stop, daemon=True)
    stopping.start()
    stopping.join(120)
    assert not stopping.is_alive()
    assert "came before the stop and were not decoded" in caplog.text


def test_a_slow_decoder_fills_the_kernel_buffer_and_its_drops_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = 0
    with open_receivers(settings("127.0.0.1", socket_buffer_bytes=8 << 20)) as receivers:
        receiver = receivers.receivers[0]
        while not receiver.kernel_drops() and sent < 100_000:
            send(receiver.port, [b"x" * 1000] * 100)
            sent += 100
            time.sleep(0.002)
        drops = receiver.kernel_drops()
        batches = take_batches(receivers, sent - drops)
        assert sum(map(len, batches)) + drops == sent
        assert drops > 0
        assert len(batches) > BATCHES_AHEAD
        assert receivers.stalled_seconds > 0
    assert receiver.kernel_drops() == drops
    assert "the kernel dropped" in caplog.text


def test_a_buffer_smaller_than_asked_for_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for a process without CAP_NET_ADMIN: the option that overrides the limit is refused.
    monkeypatch.setattr("exporter.receive.udp._SO_RCVBUFFORCE", 9999)
    with (
        caplog.at_level(logging.WARNING),
        open_receivers(settings("127.0.0.1", socket_buffer_bytes=1 << 30)) as receivers,
    ):
        assert receivers.receivers[0].buffer_bytes < 1 << 30
    assert "net.core.rmem_max=1073741824" in caplog.text


def test_without_listeners_nothing_comes() -> None:
    with open_receivers(Receive(udp=[])) as receivers:
        assert receivers.receive(0.05) is None


def test_what_was_never_started_can_be_stopped() -> None:
    receivers = open_receivers(settings("127.0.0.1"))
    port = receivers.receivers[0].port
    receivers.stop()
    UdpReceiver(UdpListener(port=port), Receive()).close()


def test_an_address_in_use_is_named_and_nothing_stays_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            other = free.getsockname()[1]
        with pytest.raises(ReceiveError, match=f"127.0.0.1 port {port}/udp: Address already"):
            open_receivers(Receive(udp=[UdpListener(port=other), UdpListener(port=port)]))
    UdpReceiver(UdpListener(port=other), Receive()).close()


def test_a_port_is_shared_only_when_asked_for() -> None:
    first = UdpReceiver(UdpListener(port=0), Receive(reuse_port=True))
    UdpReceiver(UdpListener(port=first.port), Receive(reuse_port=True)).close()
    with pytest.raises(ReceiveError):
        UdpReceiver(UdpListener(port=first.port), Receive())
    first.close()


@pytest.fixture
def any_address() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        sock.setblocking(False)
        yield sock


@needs_ipv6
@pytest.mark.parametrize("batched", [True, False])
def test_a_buffer_takes_datagrams_with_and_without_recvmmsg(
    any_address: socket.socket, batched: bool
) -> None:
    buffer = DatagramBuffer(4, 50, batched=batched)
    port = any_address.getsockname()[1]
    assert buffer.read(any_address) == (0, 0)
    _, sender = send(port, [b"", b"x" * 101])
    assert buffer.read(any_address) == (2, 101)
    send(port, [b"one", b"two", b"three"], "::1")
    assert buffer.read(any_address)[0] == 2
    assert buffer.full
    batch = buffer.take()
    assert [bytes(p) for p in batch.payloads] == [b"", b"x" * 101, b"one", b"two"]
    assert batch.ports[0] == sender
    addresses = [format_address(row.tobytes()) for row in batch.senders]
    assert addresses == ["127.0.0.1", "127.0.0.1", "::1", "::1"]
    assert buffer.read(any_address) == (1, 5)


@pytest.mark.parametrize("batched", [True, False])
def test_datagrams_longer_than_a_slot_are_whole(any_address: socket.socket, batched: bool) -> None:
    buffer = DatagramBuffer(40, 10, batched=batched)
    sent = [bytes([number]) * (number * 7 % 95) for number in range(39)] + [b"x" * 65_507]
    send(any_address.getsockname()[1], sent)
    assert buffer.read(any_address) == (40, sum(map(len, sent)))
    assert [bytes(p) for p in buffer.take().payloads] == sent


#: Linux' numbers: a sender whose datagrams of that size go as one message, as a network interface
#: that coalesces hands them over; and a receive buffer beyond the usual limit.
UDP_SEGMENT = 103
SO_RCVBUFFORCE = 33


class Segmented:
    """A sender of messages of datagrams."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.connect((address, port))

    def send(self, message: bytes, size: int) -> list[bytes]:
        """Send a message of datagrams of ``size`` octets; returns these."""
        try:
            self._socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        except OSError:
            pytest.skip("needs UDP_SEGMENT: Linux from 4.18 on")
        self._socket.send(message)
        return [message[at : at + size] for at in range(0, len(message), size)]

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port


@pytest.fixture
def coalescing(any_address: socket.socket) -> socket.socket:
    if not take_coalesced(any_address):
        pytest.skip("needs UDP_GRO: Linux from 5.0 on")
    any_address.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    return any_address


def content(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@needs_ipv6
def test_datagrams_that_come_as_one_message_are_told_apart(coalescing: socket.socket) -> None:
    buffer = DatagramBuffer(BATCH_DATAGRAMS)
    port = coalescing.getsockname()[1]
    senders = [Segmented(port), Segmented(port, "::1"), Segmented(port)]
    sent: list[tuple[bytes, int]] = []
    for number in range(60):
        sender = senders[number % 3]
        size = (1388, 1200, 1364)[number % 3]
        # Whole datagrams and a last one that is shorter, or none.
        message = content(size * (1 + number % 11) + (number % 2) * 100, number)
        sent += [(payload, sender.port) for payload in sender.send(message, size)]
        send(port, [b"alone"])
        sent.append((b"alone", 0))
    assert buffer.read(coalescing) == (len(sent), sum(len(payload) for payload, _ in sent))
    assert buffer.filled == len(sent)
    batch = buffer.take()
    assert [bytes(payload) for payload in batch.payloads] == [payload for payload, _ in sent]
    ports = [port for (_, told), port in zip(sent, batch.ports.tolist(), strict=True) if told]
    assert ports == [told for _, told in sent if told]
    addresses = {format_address(row.tobytes()) for row in batch.senders}
    assert addresses == {"127.0.0.1", "::1"}
    assert not (batch.starts % 4).any()
    assert (np.diff(batch.starts) > 0).all()
    assert len(batch.buffer) >= batch.starts[-1] + batch.lengths[-1] + SPARE_BYTES


@pytest.mark.parametrize("size", [7, 1001, 1388])
def test_long_messages_one_after_the_other(coalescing: socket.socket, size: int) -> None:
    # Slots grow with the messages, and shrink again; datagrams of odd sizes are moved apart.
    buffer = DatagramBuffer(300)
    sender = Segmented(coalescing.getsockname()[1])
    for round_ in range(4):
        sent = []
        for number in range(3):
            sent += sender.send(content(size * 40 + 3, round_ * 10 + number), size)
        buffer.read(coalescing)
        assert [bytes(payload) for payload in buffer.take().payloads] == sent
    send(coalescing.getsockname()[1], [b"a", b"", b"bc"])
    buffer.read(coalescing)
    assert [bytes(payload) for payload in buffer.take().payloads] == [b"a", b"", b"bc"]


def test_a_backlog_of_long_messages_does_not_fill_the_memory(coalescing: socket.socket) -> None:
    buffer = DatagramBuffer(BATCH_DATAGRAMS)
    sender = Segmented(coalescing.getsockname()[1])
    count = 600
    for number in range(count):
        sender.send(bytes([number % 256]) * 40 * 1400, 1400)
    seen: list[int] = []
    while buffer.read(coalescing)[0]:
        batch = buffer.take()
        assert len(batch.buffer) < 40 << 20
        assert (batch.lengths == 1400).all()
        seen += batch.buffer[batch.starts].tolist()
    assert seen == [number % 256 for number in range(count) for _ in range(40)]


def test_a_lost_message_counts_once_as_the_kernel_counts_it() -> None:
    with open_receivers(settings("127.0.0.1", socket_buffer_bytes=1 << 20)) as receivers:
        receiver = receivers.receivers[0]
        sender = Segmented(receiver.port)
        sent = 0
        while not receiver.kernel_drops() and sent < 1_000_000:
            sent += len(sender.send(bytes(40 * 1400), 1400))
        drops = receiver.kernel_drops()
        assert drops
        came = sent - 40 * drops
        assert len(take(receivers, came)) == receiver.packets == came
        assert receiver.bytes == came * 1400


@pytest.mark.parametrize("count", [3, 40])
def test_a_batch_stays_as_it_is_while_the_buffer_is_filled_again(
    any_address: socket.socket, count: int
) -> None:
    buffer = DatagramBuffer(40)
    send(any_address.getsockname()[1], [b"first"] * count)
    buffer.read(any_address)
    first = buffer.take()
    send(any_address.getsockname()[1], [b"other"] * count)
    buffer.read(any_address)
    assert [bytes(p) for p in first.payloads] == [b"first"] * count
    assert len(first.buffer) >= first.starts[-1] + first.lengths[-1] + SPARE_BYTES
    assert not (first.starts % 4).any()


def test_jumbo_frames_fill_a_buffer_before_they_fill_the_memory(
    any_address: socket.socket,
) -> None:
    buffer = DatagramBuffer(BATCH_DATAGRAMS)
    any_address.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    send(any_address.getsockname()[1], [b"x" * 16_000] * 1500)
    buffer.read(any_address)
    assert buffer.full
    assert buffer.filled < BATCH_DATAGRAMS
    assert len(buffer.take().buffer) < 32 << 20


def test_counters_are_exposed(receivers: UdpReceivers) -> None:
    send(receivers.receivers[0].port, [b"abc"] * 3)
    take(receivers, 3)
    registry = CollectorRegistry()
    registry.register(ReceiveCollector(receivers))
    labels = {"listener": f"127.0.0.1:{receivers.receivers[0].port}"}
    prefix = "flow_exporter_receive_"
    assert registry.get_sample_value(prefix + "packets_total", labels) == 3
    assert registry.get_sample_value(prefix + "bytes_total", labels) == 9
    assert registry.get_sample_value(prefix + "kernel_drops_total", labels) == 0
    assert registry.get_sample_value(prefix + "socket_buffer_bytes", labels)
    assert registry.get_sample_value(prefix + "read_errors_total") == 0


def test_a_hundred_packets_a_second_cost_next_to_nothing(receivers: UdpReceivers) -> None:
    stop = threading.Event()
    taken: list[int] = []
    consumer = threading.Thread(target=lambda: taken.extend(map(len, receivers.batches(stop))))
    consumer.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", receivers.receivers[0].port))
        began = time.monotonic()
        begin = time.process_time() - time.thread_time()
        for _ in range(100):
            sock.send(b"x" * 1000)
            time.sleep(0.01)
        # Of all threads but this one, which sends: in a second, on a busy machine in some more.
        used = time.process_time() - time.thread_time() - begin
        seconds = time.monotonic() - began
    stop.set()
    consumer.join()
    assert sum(taken) == 100
    assert len(taken) <= 15 * seconds
    assert used < 0.02 * seconds
