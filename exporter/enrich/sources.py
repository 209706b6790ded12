"""Whatever learns names while flows come in: started with the collector, outlives reloads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.config import Config
from exporter.distinct import pack_address
from exporter.enrich.enricher import Enricher
from exporter.enrich.host_names import HostFacts, HostNames


class NameSources(Collector):
    """Owns the sources of names, and makes the enricher that reads them.

    :attr:`enricher` is another one after each change that is more than a name of a host.
    """

    def __init__(self, config: Config) -> None:
        self.hosts = HostNames()
        self._static = self.hosts.layer("static")
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over a configuration."""
        self._static.replace({pack_address(h.address): HostFacts(h.name) for h in config.hosts})
        self.enricher = Enricher(config, self.hosts)

    def start(self) -> None:
        """Begin to learn."""

    def stop(self) -> None:
        """Learn no more."""

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_host_names`` and ``flow_exporter_enrich_*``."""
        yield from self.hosts.collect()
        yield from self.enricher.collect()
