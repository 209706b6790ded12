"""The collector: all parts of ``flow-exporter run`` put together, started, reloaded, stopped."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.config import Config, ConfigError, Device, load_config, read_secret
from exporter.decode import Decoder
from exporter.decode.sflow.accounting import SflowCollector
from exporter.decode.sflow.interfaces import UNKNOWN, InterfaceCollector
from exporter.enrich import NameSources
from exporter.enrich.geo_as_names import AsNames
from exporter.enrich.inventory import Inventory
from exporter.http import Guard, Health, HttpServer, create_app
from exporter.incidents.freezer import EvidenceFreezer
from exporter.incidents.http import routes
from exporter.incidents.recorder import AlertRecorder
from exporter.loaded import Loaded, waiting
from exporter.metrics.counters import TrafficCounters
from exporter.own_file import OwnFile
from exporter.pipeline import Pipeline
from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.gone import NETWORKS, SERVICES, Names
from exporter.policies.metrics import PolicyCollector
from exporter.policies.new_normal import NewNormalCollector
from exporter.policies.speeds import known_speeds
from exporter.receive.collector import ReceiveCollector
from exporter.receive.dnstap import DnstapReceiver
from exporter.receive.dnstap.stats import DnstapCollector
from exporter.receive.grpc import GrpcServer
from exporter.receive.grpc.stats import GrpcCollector
from exporter.receive.udp import open_receivers
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.readiness import StoreReadiness
from exporter.store.retention import SizeKeeper
from exporter.store.writer import Writer

log = logging.getLogger(__name__)

#: Flows are in the table this long after the writer's longest wait, or their insert is late.
_INSERT_SECONDS: Final = 5.0


class CollectorProcess(Collector):
    """A whole collector. Opens its sockets when made; a context manager, or start and stop.

    ``file`` is where the configuration came from and is read again at a reload. With ``migrate``
    the database is brought to the current schema as soon as it answers.

    Raises:
        ConfigError: a file that the configuration names cannot be used, or another collector has.
        exporter.receive.udp.ReceiveError, exporter.http.HttpServerError: an address is taken.
        exporter.store.migrate.MigrationError: the migrations that come with it are damaged.
    """

    def __init__(self, config: Config, file: Path | None, *, migrate: bool = False) -> None:
        self._config = config
        self._file = file
        self._reloading = threading.Lock()
        self._using_names = threading.Lock()
        self._reloaded_at = time.time()
        self._reload_succeeded = True
        loaded = Loaded.of(config)
        self._new_normals = NewNormalCollector([])
        self._use_new_normals(loaded)
        token = read_secret(config.http.webhook_token_file, "FLOW_WEBHOOK_TOKEN")
        self._readiness = StoreReadiness(
            config.clickhouse,
            resource("clickhouse/migrations"),
            migrate=migrate,
            on_ready=self._use_store,
        )
        self._writer = Writer(config.clickhouse)
        self._size_keeper = SizeKeeper(config.clickhouse, lambda: connect(config.clickhouse))
        delay = config.clickhouse.batch_seconds + _INSERT_SECONDS
        self._evaluator = PolicyEvaluator(
            lambda: connect(config.clickhouse),
            loaded.policies,
            delay_seconds=delay,
            query_timeout_seconds=config.policies.query_timeout_seconds,
            speeds=self._interface_speeds,
        )
        self._freezer = EvidenceFreezer(
            lambda: connect(config.clickhouse),
            self._evaluator.find_policy,
            lists=self._evaluator.lists,
            delay_seconds=delay,
        )
        self._recorder = AlertRecorder(
            lambda: connect(config.clickhouse), on_firing=self._freezer.show
        )
        self._names = NameSources(config)
        self._inventory = Inventory(lambda: connect(config.clickhouse), self._names)
        self._as_names = AsNames(
            lambda: connect(config.clickhouse), self._names.geo, config.geo.as_names_file
        )
        self._template_file = OwnFile("decode.template_file")
        if config.decode.template_file:
            self._template_file.hold(Path(config.decode.template_file))
        self._decoder = Decoder(config.decode, self._names.config.devices)
        counters = TrafficCounters(config.counters)
        self._guard = Guard(loaded.web, alerts_have_token=bool(token))
        self._registry = CollectorRegistry()
        app = create_app(
            self._registry,
            Health([self._dead], [self._readiness.reason, self._congestion]),
            routes(self._recorder, token),
            self.reload,
            self._guard,
        )
        with ExitStack() as undo:
            self._http = HttpServer(config.http, loaded.web, app)
            undo.callback(self._http.stop)
            receivers = open_receivers(config.receive)
            undo.callback(receivers.stop)
            self._dnstap = DnstapReceiver(
                config.receive.dnstap,
                self._writer.write,
                self._names.dns.learned,
                self._names.ends,
            )
            undo.callback(self._dnstap.stop)
            # Last: a server that was never started does not let go of its port.
            self._grpc = _grpc(config, self._names.config.devices)
            undo.pop_all()
        self._pipeline = Pipeline(
            receivers,
            self._decoder,
            self._names.enricher,
            counters,
            self._writer,
            [self._grpc] if self._grpc else [],
        )
        self._names.on_change = self._use_names
        self._evaluator.use_names(self._given_names())
        self._register(counters, ReceiveCollector(receivers))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def registry(self) -> CollectorRegistry:
        """All metrics of the process."""
        return self._registry

    @property
    def alive(self) -> bool:
        """Whether it does its work; when it does not any more, it is to be started anew."""
        return self._pipeline.alive and self._http.alive

    def start(self) -> None:
        """Take in flows and answer requests; ClickHouse may come later."""
        self._readiness.start()
        self._names.start()
        self._pipeline.start()
        self._dnstap.start()
        self._http.start()
        log.info("listening for HTTP on %s port %d", self._config.http.address, self._http.port)

    def stop(self) -> None:
        """Bring all flows that were received to ClickHouse, as far as it answers; then end."""
        log.info("stopping")
        self._readiness.stop()
        self._size_keeper.stop()
        self._as_names.stop()
        self._inventory.stop()
        with ThreadPoolExecutor(1) as meanwhile:
            # A query that runs can take as long as all flows that are left.
            meanwhile.submit(self._evaluator.stop)
            self._dnstap.stop()
            self._pipeline.stop()
            self._template_file.release()
            self._names.stop()
            self._http.stop()
            self._recorder.stop()
            self._freezer.stop()
        log.info("stopped")

    def reload(self) -> None:
        """Read the configuration again and take over names, policies, users and certificate.

        Raises:
            ConfigError: something is wrong with it; everything stays as it was.
        """
        with self._reloading:
            try:
                new = load_config(self._file)
                loaded = Loaded.of(new)
                if not self._readiness.reason():
                    running = [state.policy for state in self._evaluator.states()]
                    loaded.ask_about_policies(running)
                self._http.reload_certificate(loaded.web)
                self._names.configure(new)
            except ConfigError as error:
                self._reload_succeeded = False
                log.error("the configuration was not reloaded: %s", error)
                raise
            self._evaluator.reload(loaded.policies)
            self._use_names()
            self._use_new_normals(loaded)
            self._guard.replace(loaded.web)
            self._reloaded_at = time.time()
            self._reload_succeeded = True
            for name in waiting(self._config, new):
                log.warning("%s has changed, which takes effect at the next start", name)
            log.info("the configuration was reloaded")

    def collect(self) -> Iterator[Metric]:
        """About the process as such."""
        yield InfoMetricFamily(
            "flow_exporter_build",
            "Versions of the exporter and of Python; always 1.",
            {"version": __version__, "python_version": platform.python_version()},
        )
        yield GaugeMetricFamily(
            "flow_exporter_config_last_reload_successful",
            "Whether the configuration was taken over when it was read last.",
            self._reload_succeeded,
        )
        yield GaugeMetricFamily(
            "flow_exporter_config_last_reload_success_timestamp_seconds",
            "When a configuration was taken over last.",
            self._reloaded_at,
        )
        yield GaugeMetricFamily(
            "flow_exporter_ready",
            "Whether flows are taken in and stored, as /-/ready tells.",
            not self._dead() and not self._readiness.reason() and not self._congestion(),
        )

    def _interface_speeds(self) -> dict[tuple[str, int], int]:
        """By sFlow, SNMP and the configuration, the last of which counts."""
        sflow = self._decoder.sflow
        now = time.time_ns() // 1_000_000
        told = [
            (agent, index, 0 if values[2] in UNKNOWN else values[2])
            for agent, index, _, values in sflow.interfaces.recent(now)
        ]
        for address, interfaces in self._names.interfaces.snapshot().items():
            told += [(address, index, each.speed) for index, each in interfaces.items()]
        return known_speeds(self._names.config.devices, told, sflow.accounting.device_name)

    def _use_store(self) -> None:
        """What asks ClickHouse begins when it can answer; posts of alerts queue until then."""
        self._freezer.start()
        self._recorder.start()
        self._size_keeper.start()
        self._as_names.start()
        self._inventory.start()
        self._evaluator.start()

    def _use_new_normals(self, loaded: Loaded) -> None:
        idle = loaded.idle_new_normals()
        for text in idle:
            log.warning("%s", text)
        self._new_normals.replace(loaded.new_normals, len(idle))

    def _use_names(self) -> None:
        """Another configuration, or another file that it names."""
        # A reload and a look at the files may come at once: who is last must take the latest.
        with self._using_names:
            self._pipeline.enricher = self._names.enricher
            devices = self._names.config.devices
            self._decoder.configure(devices)
            if self._grpc is not None:
                self._grpc.configure(devices)
            self._dnstap.name_by(self._names.ends)
            self._evaluator.use_names(self._given_names())

    def _register(self, counters: TrafficCounters, received: ReceiveCollector) -> None:
        """Show the metrics of all parts."""
        sflow = self._decoder.sflow
        for part in (
            self,
            counters,
            self._names,
            self._pipeline,
            received,
            self._decoder.stats,
            SflowCollector(sflow.accounting),
            InterfaceCollector(sflow.interfaces, sflow.accounting.device_name),
            self._writer.stats,
            self._writer.spool_stats,
            PolicyCollector(self._evaluator),
            self._new_normals,
            self._recorder,
            self._freezer,
            self._size_keeper,
            self._as_names,
            self._inventory,
            self._http.connections,
        ):
            self._registry.register(part)
        if self._grpc is not None:
            self._registry.register(GrpcCollector(self._grpc.stats))
        if self._config.receive.dnstap:
            self._registry.register(DnstapCollector(self._dnstap.stats))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def _given_names(self) -> Names:
        services = self._names.enricher.service_names
        networks = {network.name for network in self._names.config.networks}
        return dict.fromkeys(SERVICES, services) | dict.fromkeys(NETWORKS, networks)

    def _dead(self) -> str | None:
        return None if self._pipeline.alive else "the pipeline has stopped"

    def _congestion(self) -> str | None:
        return self._pipeline.congestion()


def _grpc(config: Config, devices: Sequence[Device]) -> GrpcServer | None:
    settings = config.receive.grpc
    if settings is None:
        return None
    return GrpcServer(settings, devices, reuse_port=config.receive.reuse_port)
