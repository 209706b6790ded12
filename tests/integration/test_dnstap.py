"""dnstap over real sockets: real resolvers, and peers that real resolvers would never be."""

from __future__ import annotations

import ipaddress
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exporter.address import pack_address
from exporter.batch import DnsBatch
from exporter.config.dns import DnstapListener
from exporter.config.dns import LearnedNames as LearnedSettings
from exporter.enrich.end_facts import EndFacts
from exporter.enrich.host_fact import HostFact
from exporter.enrich.host_names import HostFacts, HostNames
from exporter.enrich.learned import LearnedNames
from exporter.enrich.network_fact import NetworkFact, Networks
from exporter.receive.dnstap import DnstapReceiver, receiver, rows
from exporter.receive.dnstap.frame_stream import Control, control_frame, data_frame
from exporter.receive.dnstap.listener import Listener
from exporter.receive.udp import ReceiveError
from tests.support.dnstap import Sender, frame, query, response
from tests.support.resolvers import named, unbound
from tests.support.stack import until


@dataclass
class Receiving:
    """A receiver and what it has handed over."""

    path: Path
    hosts: HostNames = field(default_factory=HostNames)
    batches: list[DnsBatch] = field(default_factory=list)
    receiver: DnstapReceiver = field(init=False)

    def write(self, batch: DnsBatch) -> None:
        self.batches.append(batch)

    @property
    def tcp(self) -> int:
        return self.receiver.listeners[1].port

    def rows(self, count: int) -> list[dict[str, Any]]:
        """All rows, as soon as there are ``count``."""
        until(f"{count} queries", 30, lambda: sum(map(len, self.batches)) >= count)
        return [row for batch in self.batches for row in batch.rows()]


@contextmanager
def receiving(folder: Path, write: Callable[[DnsBatch], None] | None = None) -> Iterator[Receiving]:
    """A receiver on a unix socket and a TCP port."""
    found = Receiving(folder / "dnstap.sock")
    learned = LearnedNames(found.hosts, LearnedSettings())
    found.receiver = DnstapReceiver(
        [DnstapListener(socket=str(found.path)), DnstapListener(port=0)],
        write or found.write,
        learned,
        EndFacts([HostFact(found.hosts), NetworkFact(Networks([]))]),
    )
    found.receiver.start()
    try:
        yield found
    finally:
        found.receiver.stop()


def exchange(number: int, **about: Any) -> tuple[bytes, bytes]:
    """Frames of a query and its response."""
    asked = query(f"n{number}.example", number=number % 65536)
    answer = response(asked, f"n{number}.example. 60 IN A 192.0.2.{number % 250 + 1}")
    return frame(asked, **about), frame(answer, **about)


@pytest.mark.parametrize("way", ["unix", "tcp", "unidirectional"])
def test_unbound_tells_who_asked_for_what_and_got_what(tmp_path: Path, way: str) -> None:
    with receiving(tmp_path) as found:
        where: dict[str, Any] = {"port": found.tcp} if way == "tcp" else {"path": found.path}
        found.hosts.layer("static").update({pack_address("127.0.0.9"): HostFacts("laptop-9")})
        with unbound(tmp_path / "unbound", bidirectional=way != "unidirectional", **where) as it:
            it.ask("Registry.Example", client="127.0.0.9")
            it.ask("nope.example", "AAAA")
            rows = {(r["dns_name"], r["dns_type"]): r for r in found.rows(3)}
        asked = rows["registry.example", "A"]
        assert asked["device"] == "unbound-1"
        assert asked["source"] == "dnstap"
        assert (asked["src_addr"], asked["dst_addr"]) == ("127.0.0.9", "127.0.0.1")
        assert asked["src_host"] == "laptop-9"
        assert asked["dns_rcode"] == "NOERROR"
        assert 0 < asked["dns_latency"] < 10
        assert sorted(asked["answers"]) == ["192.0.2.10", "192.0.2.11"]
        missing = rows["nope.example", "AAAA"]
        assert (missing["dns_rcode"], missing["answers"]) == ("NXDOMAIN", [])
        # The name asked for, not the alias that the addresses belong to.
        known = found.hosts.snapshot()
        assert known[pack_address("192.0.2.10")].name == "registry.example"
        stats = found.receiver.stats
        until("end of the connection", 30, lambda: stats.connections == 0)
        assert stats.accepted == 1
        assert (stats.errors.total(), stats.closed.total()) == (0, 0)


def test_bind_tells_it_too(tmp_path: Path) -> None:
    with receiving(tmp_path) as found:
        with named(tmp_path / "bind", path=found.path) as it:
            it.ask("eu1.pool.example", client="127.0.0.7")
            rows = {r["dns_name"]: r for r in found.rows(2)}
        asked = rows["eu1.pool.example"]
        assert (asked["device"], asked["dns_rcode"]) == ("bind-1", "NOERROR")
        assert (asked["src_addr"], asked["answers"]) == ("127.0.0.7", ["198.51.100.7"])
        assert found.receiver.stats.errors.total() == 0


def test_a_query_without_an_answer_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.receive.dnstap.exchanges.WAIT_SECONDS", 0.5)
    with receiving(tmp_path) as found, Sender(found.path) as sender:
        sender.shake_hands()
        sender.send(frame(query("silent.example")))
        [row] = found.rows(1)
        assert (row["dns_name"], row["dns_rcode"]) == ("silent.example", "")
        assert found.receiver.stats.unanswered == 1


def test_many_resolvers_are_read_at_a_time(tmp_path: Path) -> None:
    with receiving(tmp_path) as found:
        senders = [Sender(found.path if n % 2 else found.tcp) for n in range(20)]
        for sender in senders:
            sender.shake_hands()
        for number, sender in enumerate(senders):
            for k in range(100):
                sender.send(*exchange(100 * number + k, identity=f"r{number}"))
        for sender in senders:
            sender.finish()
            assert sender.closed()
        rows = found.rows(2000)
    assert {row["dns_name"] for row in rows} == {f"n{number}.example" for number in range(2000)}
    assert {row["device"] for row in rows} == {f"r{number}" for number in range(20)}


def test_slow_and_broken_peers_stop_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "_PATIENCE_SECONDS", 5.0)
    with receiving(tmp_path) as found, Sender(found.path) as good:
        good.shake_hands()
        mute = Sender(found.path)  # connects and says nothing
        half = Sender(found.tcp)  # stops in the middle of a frame
        half.shake_hands()
        half.socket.sendall(struct.pack(">I", 1000) + b"x" * 10)
        long = Sender(found.tcp)
        long.shake_hands()
        long.socket.sendall(struct.pack(">I", 1 << 30))
        wrong = Sender(found.tcp)
        wrong.socket.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        gone = Sender(found.path)
        gone.socket.sendall(control_frame(Control.READY)[:7])
        gone.socket.close()
        rubbish = Sender(found.path)
        rubbish.shake_hands()
        rubbish.send(b"\xff" * 50, frame(query("a.example"))[:-5], *exchange(1))
        good.send(*exchange(2))
        assert {row["dns_name"] for row in found.rows(2)} == {"n1.example", "n2.example"}
        stats = found.receiver.stats
        for peer in (long, wrong, mute, half):
            assert peer.closed()
        closed = {"frame_length": 2, "timeout": 2}
        until("count", 30, lambda: closed.items() <= stats.closed.items())
        assert stats.errors["protobuf"] == 2
        # Silence between frames is no fault.
        until("idle connections", 30, lambda: stats.connections == 2)
        good.send(*exchange(3))
        found.rows(3)
        for peer in (mute, half, long, wrong, rubbish):
            peer.socket.close()


def test_a_frame_that_comes_in_pieces_is_waited_for(tmp_path: Path) -> None:
    with receiving(tmp_path) as found, Sender(found.tcp) as sender:
        sender.shake_hands()
        for byte in b"".join(map(data_frame, exchange(1))):
            sender.socket.sendall(bytes([byte]))
        [row] = found.rows(1)
        assert row["dns_name"] == "n1.example"


def test_connections_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiver, "MAX_CONNECTIONS", 3)
    with receiving(tmp_path) as found:
        kept = [Sender(found.path) for _ in range(3)]
        for sender in kept:
            sender.shake_hands()
        with Sender(found.path) as refused:
            assert refused.closed()
        until("count", 30, lambda: found.receiver.stats.closed["too_many"] == 1)
        until("log", 30, lambda: "there are 3, 0 of them of that host" in caplog.text)
        kept.pop().finish()
        until("room", 30, lambda: found.receiver.stats.connections == 2)
        with Sender(found.path) as another:
            another.shake_hands()
        for sender in kept:
            sender.socket.close()


def test_one_host_leaves_connections_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MAX_CONNECTIONS_OF_A_HOST", 2)
    # As if it were no address of this machine.
    monkeypatch.setattr(receiver, "host_of", ipaddress.IPv4Address)
    with receiving(tmp_path) as found:
        kept = [Sender(found.tcp) for _ in range(2)]
        for sender in kept:
            sender.shake_hands()
        with Sender(found.tcp) as refused:
            assert refused.closed()
        until("count", 30, lambda: found.receiver.stats.closed["too_many"] == 1)
        with Sender(found.path) as local:
            local.shake_hands()
        for sender in kept:
            sender.socket.close()


def test_while_rows_cannot_be_stored_names_are_learned_and_the_loss_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_WAITING", 10)
    free = threading.Event()
    stored: list[DnsBatch] = []

    def write(batch: DnsBatch) -> None:
        free.wait(300)
        stored.append(batch)

    with receiving(tmp_path, write) as found, Sender(found.path) as sender:
        sender.shake_hands()
        stats = found.receiver.stats
        sender.send(*exchange(1))
        until("the first in the hands of the writer", 30, lambda: stats.queries == 1)
        for number in range(2, 202):
            sender.send(*exchange(number))
        until("all read", 30, lambda: stats.queries == 201)
        assert found.hosts.snapshot()[pack_address("192.0.2.201")].name == "n200.example"
        assert 150 < stats.dropped <= 200
        free.set()
    assert sum(map(len, stored)) == 201 - stats.dropped


def test_queries_that_fail_on_their_way_are_counted_and_stop_no_others(tmp_path: Path) -> None:
    stored: list[DnsBatch] = []
    faults = [RuntimeError("a fault of ours")]

    def write(batch: DnsBatch) -> None:
        if faults:
            raise faults.pop()
        stored.append(batch)

    with receiving(tmp_path, write) as found, Sender(found.path) as sender:
        sender.shake_hands()
        sender.send(*exchange(1))
        until("a fault", 30, lambda: found.receiver.stats.failed == 1)
        sender.send(*exchange(2))
        until("rows", 30, lambda: bool(stored))
    assert sum(map(len, stored)) == 1


def test_the_unix_socket_has_the_configured_mode_and_goes_with_the_receiver(tmp_path: Path) -> None:
    with receiving(tmp_path) as found:
        assert stat.S_IMODE(found.path.stat().st_mode) == 0o660
    assert not found.path.exists()


def test_a_socket_left_by_a_dead_process_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    with receiving(tmp_path) as found:
        left = tmp_path / "left.sock"
        found.path.rename(left)
    with receiving(tmp_path) as found:
        with pytest.raises(ReceiveError, match="another process listens there"):
            DnstapReceiver(
                [DnstapListener(socket=str(found.path))], found.write, None, EndFacts([])
            )
        with Sender(found.path) as sender:
            sender.shake_hands()
    left.rename(found.path)
    with receiving(tmp_path) as found, Sender(found.path) as sender:
        sender.shake_hands()
    found.path.write_text("a file")
    with pytest.raises(ReceiveError, match=f"the folder {tmp_path}/gone is not there"):
        Listener(DnstapListener(socket=str(tmp_path / "gone" / "dnstap.sock")))
    with pytest.raises(ReceiveError, match="no socket"):
        DnstapReceiver([DnstapListener(socket=str(found.path))], found.write, None, EndFacts([]))
    assert found.path.read_text() == "a file"
