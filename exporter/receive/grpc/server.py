"""The gRPC server that eBPF agents send to."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from exporter import config
from exporter.batch import FlowBatch
from exporter.config import ConfigError
from exporter.config.load import read_bytes, version_at
from exporter.receive.grpc.service import SERVICE, CollectorService
from exporter.receive.grpc.stats import GrpcStats
from exporter.receive.sources import Offer
from exporter.receive.udp import ReceiveError
from exporter.web_config import TlsServerConfig, tls_context

log = logging.getLogger(__name__)

#: Calls under way get this long at the end.
_GRACE_SECONDS: Final = 1.0
_KEEPALIVE_TIMEOUT_SECONDS: Final = 20
#: Whoever has connected and does not speak HTTP/2 (and TLS) by then is sent away.
_HANDSHAKE_SECONDS: Final = 10
#: A connection is to be made anew after so long, give or take a tenth: nobody holds one of all
#: connections, or of all calls, for ever. Calls under way then get the grace.
_AGE_SECONDS: Final = 600
_AGE_GRACE_SECONDS: Final = 60
#: An agent makes one call after the other; more of a connection wait.
_CALLS_OF_A_CONNECTION: Final = 4
_SERVICES: Final = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)


class GrpcServer:
    """Listens from when it is made, serves between :meth:`start` and :meth:`stop`.

    Raises:
        ReceiveError: the address cannot be listened on.
        ConfigError: certificate or key cannot be used.
    """

    def __init__(
        self, settings: config.Grpc, devices: Sequence[config.Device], *, reuse_port: bool = False
    ) -> None:
        self.stats = GrpcStats()
        self._offer: Offer = _not_yet
        self._service = CollectorService(
            devices, self.stats, lambda flows, seconds: self._offer(flows, seconds)
        )
        self._workers = ThreadPoolExecutor(settings.max_concurrent_calls, "grpc")
        self._server = grpc.server(
            self._workers,
            handlers=[self._service.handler()],
            options=_options(settings, reuse_port=reuse_port),
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
        )
        self._watchers = ThreadPoolExecutor(1, "grpc-health")
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=self._watchers
        )
        self._health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(_SERVICES, self._server)
        self.port = self._listen(settings)

    def _listen(self, settings: config.Grpc) -> int:
        address = ipaddress.ip_address(settings.address)
        host = f"[{address}]" if address.version == 6 else str(address)
        name = f"{host}:{settings.port}"
        try:
            if settings.tls is not None:
                return self._server.add_secure_port(name, _credentials(settings.tls, self.stats))
            if not address.is_loopback:
                log.warning("gRPC on %s is not encrypted: set receive.grpc.tls", name)
            return self._server.add_insecure_port(name)
        except RuntimeError as error:
            raise ReceiveError(f"gRPC {name}: {error}") from error

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from now on."""
        self._service.configure(devices)

    def start(self, offer: Offer) -> None:
        """Answer calls; ``offer`` takes the flows."""
        self._offer = offer
        self._server.start()
        self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        log.info("listening for eBPF agents on port %d", self.port)

    def stop(self) -> None:
        """Take no more calls and end those under way."""
        self._health.enter_graceful_shutdown()
        self._server.stop(_GRACE_SECONDS).wait()
        self._workers.shutdown(wait=False)
        self._watchers.shutdown(wait=False)


def _not_yet(flows: FlowBatch, seconds: float) -> bool:
    """Before the start there is no room."""
    return False


def _options(settings: config.Grpc, *, reuse_port: bool) -> list[tuple[str, int]]:
    keepalive = round(settings.keepalive_seconds * 1000)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", min(_CALLS_OF_A_CONNECTION, settings.max_concurrent_calls)),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", _AGE_SECONDS * 1000),
        ("grpc.max_connection_age_grace_ms", _AGE_GRACE_SECONDS * 1000),
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive // 2),
        ("grpc.so_reuseport", int(reuse_port)),
    ]


def _credentials(tls: config.GrpcTls, stats: GrpcStats) -> grpc.ServerCredentials:
    """Certificates that are read again when their files change."""
    files = _TlsFiles(tls, stats)
    return grpc.dynamic_ssl_server_credentials(
        files.current(), files.current, bool(tls.client_ca_file)
    )


def check_tls(tls: config.GrpcTls) -> None:
    """Whether certificate, key and CA can be used.

    Raises:
        ConfigError: one cannot.
    """
    _TlsFiles(tls, GrpcStats()).read()


class _TlsFiles:
    """Certificate, key and the clients' CA on disk."""

    def __init__(self, tls: config.GrpcTls, stats: GrpcStats) -> None:
        self._tls = tls
        self._stats = stats
        self._state: object = None
        self._current: grpc.ServerCertificateConfiguration | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What they are now.

        Raises:
            ConfigError: one cannot be read or used.
        """
        tls = self._tls
        self._state = self._look()
        # gRPC says nothing of what is wrong with a file; Python does.
        tls_context(
            TlsServerConfig(
                cert_file=tls.cert_file,
                key_file=tls.key_file,
                client_ca_file=tls.client_ca_file,
                client_auth_type=(
                    "RequireAndVerifyClientCert" if tls.client_ca_file else "NoClientCert"
                ),
            )
        )
        try:
            return grpc.ssl_server_certificate_configuration(
                [(read_bytes(Path(tls.key_file)), read_bytes(Path(tls.cert_file)))],
                read_bytes(Path(tls.client_ca_file)) if tls.client_ca_file else None,
            )
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}") from error

    def current(self) -> grpc.ServerCertificateConfiguration:
        """The same, but what could be used last where they cannot be; asked at each handshake."""
        before = self._current
        if before is None or self._look() != self._state:
            try:
                self._current = self.read()
                self._stats.certificates[self._tls.cert_file] = True
                log.info("gRPC reads its certificate")
            except ConfigError as error:
                if before is None:
                    raise
                self._stats.certificates[self._tls.cert_file] = False
                log.error("gRPC keeps its certificate: %s", error)
        assert self._current is not None
        return self._current

    def _look(self) -> object:
        files = (self._tls.cert_file, self._tls.key_file, self._tls.client_ca_file)
        return [version_at(name) for name in files if name]
