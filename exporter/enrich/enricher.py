"""All steps of enrichment, one after the other."""

from __future__ import annotations

from typing import Protocol

from exporter.batch import FlowBatch
from exporter.config import Config
from exporter.enrich.addresses import AddressNames
from exporter.enrich.devices import DeviceNames
from exporter.enrich.services import ServiceNames


class Step(Protocol):
    """Adds columns to a batch; those it needs may be missing and then mean their defaults."""

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""


class Enricher:
    """The steps that the configuration asks for. Holds no state: a reload makes a new one."""

    def __init__(self, config: Config) -> None:
        steps: list[Step] = [
            DeviceNames(config.devices),
            AddressNames(config.hosts, config.networks),
            ServiceNames(config.services),
        ]
        self._steps = steps

    def enrich(self, batch: FlowBatch) -> FlowBatch:
        """The same batch with the names in it."""
        if len(batch):
            for step in self._steps:
                step.apply(batch)
        return batch
