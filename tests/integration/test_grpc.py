"""The gRPC server and a pipeline behind it, spoken to over real connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import exporter.receive.grpc.server
import exporter.receive.grpc.service
import exporter.receive.grpc.stats
from exporter.batch import FlowBatch
from exporter.config import ConfigError, Device, Grpc, GrpcTls
from exporter.proto import pbflow_pb2 as pb
from exporter.proto.pbflow_pb2_grpc import CollectorStub
from exporter.receive.grpc import GrpcServer
from exporter.receive.grpc.stats import GrpcCollector
from exporter.receive.udp import ReceiveError
from tests.support.ebpf import record
from tests.support.stack import until

DEVICES = [Device(address="192.0.2.7", name="node7")]


class Taken:
    """What the server offered, while there is room."""

    def __init__(self) -> None:
        self.batches: list[FlowBatch] = []
        self.room = threading.Event()
        self.room.set()

    def offer(self, flows: FlowBatch, seconds: float) -> bool:
        if not self.room.wait(seconds):
            return False
        self.batches.append(flows)
        return True

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.batches for row in batch.rows()]


class Rig:
    """A server that is started, and a client's channel to it."""

    def __init__(self, settings: Grpc, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.taken = Taken()
        self.server = GrpcServer(settings, DEVICES)
        self.server.start(self.taken.offer)
        self.channel = self.connect(credentials)

    def connect(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        target = f"127.0.0.1:{self.server.port}"
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.ssl_target_name_override", "collector.example"),
        ]
        if credentials is None:
            return grpc.insecure_channel(target, options[:2])
        return grpc.secure_channel(target, credentials, options)

    def send(self, *records: pb.Record, channel: grpc.Channel | None = None) -> pb.CollectorReply:
        stub = CollectorStub(channel or self.channel)
        return stub.Send(pb.Records(entries=records), timeout=120)

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in GrpcCollector(self.server.stats).collect()
            for sample in family.samples
            if sample.name == f"flow_exporter_grpc_{name}"
            and labels.items() <= sample.labels.items()
        )


@contextmanager
def running(credentials: grpc.ChannelCredentials | None = None, **settings: Any) -> Iterator[Rig]:
    rig = Rig(Grpc(**{"port": 0} | settings), credentials)
    try:
        yield rig
    finally:
        rig.taken.room.set()
        rig.channel.close()
        rig.server.stop()


def refused(rig: Rig, *records: pb.Record, **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        rig.send(*records, **options)
    return error.value.code()


def test_flows_are_in_the_pipeline_when_the_call_is_answered() -> None:
    with running() as rig:
        assert rig.send(record("10.1.0.1"), record("10.1.0.2", agent="")) == pb.CollectorReply()
        assert [(row["src_addr"], row["device_addr"]) for row in rig.taken.rows] == [
            ("10.1.0.1", "192.0.2.7"),
            ("10.1.0.2", "127.0.0.1"),
        ]
        assert rig.metric("messages_total") == 1
        assert rig.metric("flows_total", device="node7") == 1
        assert rig.metric("flows_total", device="127.0.0.1") == 1


def test_made_up_agents_take_no_configured_ones_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter.receive.grpc.stats, "_MAX_DEVICES", 3)
    with running() as rig:
        rig.send(*(record(agent=f"198.51.100.{number}") for number in range(5)))
        rig.send(record())
        assert rig.metric("flows_total", device="node7") == 1
        assert rig.metric("flows_total", device="other") == 2


def test_a_full_pipeline_slows_agents() -> None:
    with running() as rig, ThreadPoolExecutor(1) as client:
        rig.taken.room.clear()
        call = client.submit(rig.send, record())
        while not rig.metric("waiting_messages"):
            assert not call.done()
        rig.taken.room.set()
        call.result(120)
        assert len(rig.taken.rows) == 1
        assert rig.metric("waiting_messages") == 0
        assert rig.metric("refused_flows_total") == 0


def test_a_pipeline_that_stays_full_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter.receive.grpc.service, "PATIENCE_SECONDS", 0.05)
    with running() as rig:
        rig.taken.room.clear()
        assert refused(rig, record(), record()) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert rig.metric("refused_flows_total") == 2
        assert rig.metric("flows_total") == 0
        rig.taken.room.set()
        rig.send(record())
        assert len(rig.taken.rows) == 1


def test_more_calls_than_allowed_are_refused() -> None:
    with running(max_concurrent_calls=1) as rig, ThreadPoolExecutor(1) as client:
        rig.taken.room.clear()
        call = client.submit(rig.send, record())
        while not rig.metric("waiting_messages"):
            assert not call.done()
        other = rig.connect()
        assert refused(rig, record(), channel=other) is grpc.StatusCode.RESOURCE_EXHAUSTED
        other.close()
        rig.taken.room.set()
        call.result(120)


def open_ones(sockets: list[socket.socket]) -> list[socket.socket]:
    """Those that the server has not closed."""

    def is_open(one: socket.socket) -> bool:
        try:
            while one.recv(4096):
                pass
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    return [one for one in sockets if is_open(one)]


def test_more_connections_than_allowed_are_closed_and_take_nothing_from_agents() -> None:
    with running(max_connections=8) as rig, ExitStack() as stack:
        rig.send(record())
        many = [
            stack.enter_context(socket.create_connection(("127.0.0.1", rig.server.port)))
            for _ in range(100)
        ]
        for one in many:
            one.setblocking(False)
        until("all others are closed", 30, lambda: len(open_ones(many)) == 7)
        rig.send(record())
        for one in many:
            one.close()
        # Those that are gone leave room.
        other = rig.connect()
        stack.callback(other.close)
        until("there is room", 30, lambda: refused_or_none(rig, other) is None)


def refused_or_none(rig: Rig, channel: grpc.Channel) -> grpc.StatusCode | None:
    try:
        rig.send(record(), channel=channel)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return None


def test_who_connects_and_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter.receive.grpc.server, "_HANDSHAKE_SECONDS", 1)
    with (
        running() as rig,
        socket.create_connection(("127.0.0.1", rig.server.port)) as silent,
    ):
        silent.settimeout(120)
        while silent.recv(4096):
            pass


class Stalled:
    """A call whose message never comes, of a peer of its own."""

    def __init__(self, rig: Rig) -> None:
        self._never = threading.Event()
        self._channel = rig.connect()
        self._begin = self._channel.stream_unary("/pbflow.Collector/Send")
        self.call = self._begin.future(self._nothing())

    def begin_again(self) -> None:
        """Where it was refused, since there was another call."""
        if self.call.done():
            self.call = self._begin.future(self._nothing())

    def close(self) -> None:
        self._never.set()
        self._channel.close()

    def _nothing(self) -> Iterator[bytes]:
        self._never.wait()
        yield from ()


@pytest.mark.parametrize(
    ("module", "limit"),
    [(exporter.receive.grpc.service, "MESSAGE_SECONDS"),
     (exporter.receive.grpc.server, "_AGE_SECONDS")],
    ids=["message", "connection"],
)  # fmt: skip
def test_calls_whose_message_never_comes_do_not_keep_agents_out_for_long(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 1)
    monkeypatch.setattr(exporter.receive.grpc.server, "_AGE_GRACE_SECONDS", 1)
    with running(max_concurrent_calls=1) as rig, closing(Stalled(rig)) as stalled:

        def is_taken() -> bool:
            stalled.begin_again()
            return refused_or_none(rig, rig.channel) is grpc.StatusCode.RESOURCE_EXHAUSTED

        until("the one call is taken", 30, is_taken)
        assert stalled.call.exception(timeout=120) is not None
        until("there is room", 30, lambda: refused_or_none(rig, rig.channel) is None)
        assert (rig.metric("faults_total", reason="too_slow") > 0) == (limit == "MESSAGE_SECONDS")


def test_a_call_without_a_message_is_refused_and_counted() -> None:
    with running() as rig:
        with pytest.raises(grpc.RpcError) as error:
            rig.channel.stream_unary("/pbflow.Collector/Send")(iter(()), timeout=120)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert rig.metric("faults_total", reason="malformed") == 1


def test_agents_lose_nothing_when_their_connection_has_come_of_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter.receive.grpc.server, "_AGE_SECONDS", 1)
    with running() as rig:
        end = time.monotonic() + 3
        sent = 0
        while time.monotonic() < end:
            rig.send(record())
            sent += 1
        assert len(rig.taken.rows) == sent


def test_long_messages_are_refused_also_when_compressed() -> None:
    large = record(interface="x" * 200_000)
    with running(max_message_bytes=65536) as rig:
        assert refused(rig, large) is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as error:
            CollectorStub(rig.channel).Send(
                pb.Records(entries=[large]), timeout=120, compression=grpc.Compression.Gzip
            )
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        rig.send(record())
        assert len(rig.taken.rows) == 1


def test_what_is_no_message_is_counted() -> None:
    with running() as rig:
        send = rig.channel.unary_unary("/pbflow.Collector/Send")
        with pytest.raises(grpc.RpcError) as error:
            send(b"\xff\xff\xff", timeout=120)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert rig.metric("faults_total", reason="malformed") == 1
        rig.send(record())


def test_a_message_of_too_many_records_is_refused_and_counted() -> None:
    with running() as rig:
        call = rig.channel.unary_unary("/pbflow.Collector/Send")
        with pytest.raises(grpc.RpcError) as error:
            call(b"\x0a\x00" * 60_000, timeout=120)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert rig.metric("faults_total", reason="too_many_records") == 1
        rig.send(record())
        assert len(rig.taken.rows) == 1


def test_faults_in_records_are_counted_by_reason() -> None:
    with running() as rig:
        wrong = record()
        wrong.network.src_addr.ipv6 = b"no"
        rig.send(wrong, record())
        assert rig.metric("faults_total", reason="invalid_address") == 1
        assert len(rig.taken.rows) == 2


def test_health_and_reflection() -> None:
    with running() as rig:
        stub = health_pb2_grpc.HealthStub(rig.channel)
        for service in ("", "pbflow.Collector"):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=120)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(rig.channel)
        assert "pbflow.Collector" in database.get_services()
        file = database.FindFileContainingSymbol("pbflow.Collector")
        assert [message.name for message in file.message_type][:2] == ["CollectorReply", "Records"]


def test_an_address_in_use_is_an_error_that_names_it() -> None:
    with running() as rig, pytest.raises(ReceiveError, match=f"127.0.0.1:{rig.server.port}"):
        GrpcServer(Grpc(port=rig.server.port), DEVICES)


class Files:
    """Certificate and key of a server on disk, signed by ``authority``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.tls = GrpcTls(cert_file=str(folder / "cert.pem"), key_file=str(folder / "key.pem"))
        self.authorities = folder / "clients.pem"
        self.clients.cert_pem.write_to_path(self.authorities)
        self.renew(self.authority)

    def renew(self, authority: trustme.CA) -> None:
        """Replace both, as certbot does: new files under the old names."""
        made = authority.issue_cert("collector.example")
        for name, blob in (
            ("key.pem", made.private_key_pem), ("cert.pem", made.cert_chain_pems[0])
        ):  # fmt: skip
            blob.write_to_path(self.folder / f"{name}.new")
            (self.folder / f"{name}.new").replace(self.folder / name)

    def trusting(self, authority: trustme.CA, client: trustme.CA | None = None) -> Any:
        own = client.issue_cert("agent.example") if client else None
        return grpc.ssl_channel_credentials(
            authority.cert_pem.bytes(),
            own and own.private_key_pem.bytes(),
            own and own.cert_chain_pems[0].bytes(),
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_tls(files: Files) -> None:
    with running(files.trusting(files.authority), tls=files.tls) as rig:
        rig.send(record())
        assert len(rig.taken.rows) == 1
        plain = rig.connect()
        assert refused(rig, record(), channel=plain) is grpc.StatusCode.UNAVAILABLE
        plain.close()


def test_agents_show_a_certificate_where_an_authority_is_configured(files: Files) -> None:
    tls = files.tls.model_copy(update={"client_ca_file": str(files.authorities)})
    with running(files.trusting(files.authority, files.clients), tls=tls) as rig:
        rig.send(record())
        for stranger in (None, trustme.CA()):
            channel = rig.connect(files.trusting(files.authority, stranger))
            assert refused(rig, record(), channel=channel) is grpc.StatusCode.UNAVAILABLE
            channel.close()
        assert len(rig.taken.rows) == 1


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(files: Files) -> None:
    with running(files.trusting(files.authority), tls=files.tls) as rig:
        rig.send(record())
        later = trustme.CA()
        files.renew(later)
        renewed = rig.connect(files.trusting(later))
        rig.send(record(), channel=renewed)
        renewed.close()
        valid = rig.server.stats.certificates
        assert valid == {files.tls.cert_file: True}
        (files.folder / "cert.pem").write_text("nonsense")
        still = rig.connect(files.trusting(later))
        rig.send(record(), channel=still)
        still.close()
        assert len(rig.taken.rows) == 3
        assert valid == {files.tls.cert_file: False}


def test_a_certificate_that_cannot_be_used_is_an_error_with_its_name(files: Files) -> None:
    (files.folder / "key.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"key\.pem"):
        GrpcServer(Grpc(port=0, tls=files.tls), DEVICES)
