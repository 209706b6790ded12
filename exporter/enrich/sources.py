"""Whatever learns names while flows come in: started with the collector, outlives reloads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.address import pack_address
from exporter.config import Config
from exporter.enrich.address_cache import AddressFact
from exporter.enrich.dns_names import DnsNames
from exporter.enrich.docker import DockerNames
from exporter.enrich.end_facts import EndFacts
from exporter.enrich.enricher import Enricher
from exporter.enrich.geo import CountryFact, GeoFiles, GeoSearch, SystemFact
from exporter.enrich.host_fact import HostFact
from exporter.enrich.host_names import HostFacts, HostNames
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.enrich.name_files import NameFiles
from exporter.enrich.network_fact import NetworkFact, Networks
from exporter.enrich.snmp import SnmpPoller, require_package
from exporter.enrich.targets import TargetNames

log = logging.getLogger(__name__)

#: Time between two looks at the files.
POLL_SECONDS: Final = 5.0


class NameSources(Collector):
    """Owns the sources of names, and makes the enricher that reads them.

    What changes more than a name of a host, such as another file of devices, makes another
    :attr:`enricher` and another :attr:`config`, which has what the files add. Whoever uses them
    hears of it by ``on_change``, which may come from any thread.
    """

    def __init__(self, config: Config) -> None:
        self.hosts = HostNames()
        self.interfaces = LearnedInterfaces()
        self.on_change: Callable[[], None] = lambda: None
        self.dns = DnsNames(self.hosts, config.dns)
        self._docker = (
            DockerNames(config.docker, self.hosts.layer("docker")) if config.docker else None
        )
        self.geo = GeoFiles(config.geo)
        self._static = self.hosts.layer("static")
        self._targets = TargetNames(self.hosts.layer("targets"))
        self._snmp = SnmpPoller(self.interfaces)
        self._files = NameFiles()
        self._changing = threading.Lock()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="name files", daemon=True)
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over a configuration, and the files that it names.

        Raises:
            ConfigError: something that it asks for is not installed, or a file cannot be used; the
                configuration before stays in force.
        """
        with self._changing:
            self._files.read(config)
            require_package(self._files.merged(config).devices)
            self.geo.configure(config.geo)
            self._given = config
            self._use()
            self._targets.configure(config.host_targets)

    def start(self) -> None:
        """Begin to learn."""
        self._poller.start()
        self._targets.start()
        self._snmp.start()
        if self._docker is not None:
            self._docker.start()
        self.dns.start()

    def stop(self) -> None:
        """Learn no more."""
        if self._docker is not None:
            self._docker.stop()
        self.dns.stop()
        self._targets.stop()
        self._snmp.stop()
        self._stop.set()
        if self._poller.is_alive():
            self._poller.join()

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_host_names``, ``flow_exporter_enrich_*``, ``flow_exporter_names_*``."""
        yield from self.hosts.collect()
        yield from self.enricher.collect()
        yield from self._files.collect()
        yield from self._targets.collect()
        yield from self._snmp.collect()
        yield from self.geo.collect()
        if self._docker is not None:
            yield from self._docker.collect()
        yield from self.dns.collect()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.geo.look()
                with self._changing:
                    changed = self._files.read(self._given)
                    if changed:
                        self._use()
                if changed:
                    self.on_change()
                    log.info("took over other %s from files", " and ".join(sorted(changed)))
            except Exception:
                log.exception("names were not taken over from files")

    def _use(self) -> None:
        merged = self._files.merged(self._given)
        self._snmp.configure(merged.snmp, merged.devices)
        self.config = merged
        self._static.replace(
            {
                pack_address(host.address): HostFacts(host.name, host.role, host.owner)
                for host in self.config.hosts
            }
        )
        facts = [*self.dns.facts(), *self._geo_facts()]
        self.enricher = Enricher(self.config, self.interfaces, facts)
        #: Names and networks of hosts alone, for those who tell of no flows.
        self.ends = EndFacts([HostFact(self.hosts), NetworkFact(Networks(self.config.networks))])

    def _geo_facts(self) -> list[AddressFact]:
        settings = self.config.geo
        if not settings.files:
            return []
        search = GeoSearch(self.geo)
        systems = SystemFact(search, prefer_device_as=settings.prefer_device_as)
        return [systems, CountryFact(search)]
