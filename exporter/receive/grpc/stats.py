"""What came over gRPC, and what was wrong with it, as Prometheus metrics."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX: Final = "flow_exporter_grpc_"
#: Agents counted by name; those beyond share ``other``, unless they are configured. An agent's
#: address is what it claims to be: whoever makes up many takes no configured one's place.
_MAX_DEVICES: Final = 10_000


class GrpcStats:
    """Counters of the server; its threads add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.messages = 0
        self.bytes = 0
        self.refused_flows = 0
        self.waiting = 0
        self.waited_seconds = 0.0
        self.flows: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        #: By file of the certificate in use, whether its version on disk could be used, too.
        self.certificates: dict[str, bool] = {}

    def came(self, octets: int) -> None:
        """A message began to be worked on."""
        with self._lock:
            self.messages += 1
            self.bytes += octets

    def took(self, device: str, flows: int, *, configured: bool) -> None:
        """The pipeline took flows of an agent, which may be one of the configured devices."""
        with self._lock:
            known = configured or device in self.flows or len(self.flows) < _MAX_DEVICES
            self.flows[device if known else "other"] += flows

    def refused(self, flows: int) -> None:
        """There was no room for flows, and their agent was told so."""
        with self._lock:
            self.refused_flows += flows

    def waits(self, change: int, seconds: float = 0.0) -> None:
        """``change`` more messages wait for room; one that did so waited for ``seconds``."""
        with self._lock:
            self.waiting += change
            self.waited_seconds += seconds

    def fault(self, reason: str, number: int = 1) -> None:
        """Something in a message was wrong."""
        with self._lock:
            self.faults[reason] += number


class GrpcCollector(Collector):
    """``flow_exporter_grpc_*``."""

    def __init__(self, stats: GrpcStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The metrics of the server."""
        stats = self._stats
        yield CounterMetricFamily(
            _PREFIX + "messages", "Messages of eBPF agents received.", stats.messages
        )
        yield CounterMetricFamily(
            _PREFIX + "bytes", "Octets of these messages, uncompressed.", stats.bytes
        )
        flows = CounterMetricFamily(
            _PREFIX + "flows", "Flows of eBPF agents taken in.", labels=["device"]
        )
        for device, number in list(stats.flows.items()):
            flows.add_metric([device], number)
        yield flows
        yield CounterMetricFamily(
            _PREFIX + "refused_flows",
            "Flows answered with RESOURCE_EXHAUSTED for want of room; the agent drops them.",
            stats.refused_flows,
        )
        yield GaugeMetricFamily(
            _PREFIX + "waiting_messages", "Messages that wait for room.", stats.waiting
        )
        yield CounterMetricFamily(
            _PREFIX + "waited_seconds", "Time that messages waited for room.", stats.waited_seconds
        )
        faults = CounterMetricFamily(
            _PREFIX + "faults", "Faults in what agents sent, by reason.", labels=["reason"]
        )
        for reason, number in list(stats.faults.items()):
            faults.add_metric([reason], number)
        yield faults
        certificates = GaugeMetricFamily(
            _PREFIX + "certificate_valid",
            "Whether certificate, key and CA on disk could be used when an agent connected last; "
            "those before stay in use otherwise.",
            labels=["file"],
        )
        for file, valid in list(stats.certificates.items()):
            certificates.add_metric([file], valid)
        yield certificates
