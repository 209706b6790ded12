"""All steps of enrichment, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.batch import FlowBatch
from exporter.config import Config
from exporter.enrich.address_cache import AddressFact
from exporter.enrich.devices import DeviceNames
from exporter.enrich.end_facts import EndFacts
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.enrich.network_fact import NetworkFact, Networks
from exporter.enrich.services import ServiceNames


class Step(Protocol):
    """Adds columns to a batch; those it needs may be missing and then mean their defaults."""

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""


class Enricher(Collector):
    """The steps that the configuration asks for; a reload makes a new one.

    What changes without a reload comes from sources that outlive it, as ``interfaces``.
    What was found in them is kept until it changes. For one thread. ``facts`` are those that do
    not come from the configuration.
    """

    def __init__(
        self,
        config: Config,
        interfaces: LearnedInterfaces,
        facts: Sequence[AddressFact],
    ) -> None:
        networks = Networks(config.networks)
        services = ServiceNames(config.services, networks)
        #: All names of services that a flow can get.
        self.service_names = services.names
        self._devices = DeviceNames(config.devices, interfaces)
        scope = [services.scope] if services.scope is not None else []
        self._ends = EndFacts([*facts, NetworkFact(networks), *scope])
        self._steps: list[Step] = [self._devices, self._ends, services]

    def enrich(self, batch: FlowBatch) -> FlowBatch:
        """The same batch with the names in it."""
        if len(batch):
            for step in self._steps:
                step.apply(batch)
        return batch

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_enrich_*`` and ``flow_exporter_unknown_device*``."""
        yield from self._devices.collect()
        yield from self._ends.collect()
