"""All steps of enrichment, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.batch import FlowBatch
from exporter.config import Config
from exporter.enrich.addresses import EndFacts
from exporter.enrich.devices import DeviceNames
from exporter.enrich.host_fact import HostFact
from exporter.enrich.host_names import HostNames
from exporter.enrich.network_fact import NetworkFact
from exporter.enrich.services import ServiceNames


class Step(Protocol):
    """Adds columns to a batch; those it needs may be missing and then mean their defaults."""

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""


class Enricher(Collector):
    """The steps that the configuration asks for; a reload makes a new one.

    What changes without a reload comes from sources that outlive it, such as ``hosts``. Only what
    was found in them is kept here, until it changes. For one thread.
    """

    def __init__(self, config: Config, hosts: HostNames) -> None:
        self._ends = EndFacts([HostFact(hosts), NetworkFact(config.networks)])
        self._steps: list[Step] = [
            DeviceNames(config.devices),
            self._ends,
            ServiceNames(config.services),
        ]

    def enrich(self, batch: FlowBatch) -> FlowBatch:
        """The same batch with the names in it."""
        if len(batch):
            for step in self._steps:
                step.apply(batch)
        return batch

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_enrich_*``."""
        yield from self._ends.collect()
