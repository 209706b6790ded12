"""Names of hosts from DNS: what clients resolved, and reverse zones."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.config.dns import Dns
from exporter.enrich.address_cache import AddressFact
from exporter.enrich.host_fact import HostFact
from exporter.enrich.host_names import HostNames
from exporter.enrich.learned import LearnedFact, LearnedNames
from exporter.enrich.reverse import ReverseFact, ReverseNames


class DnsNames(Collector):
    """Owns both; :meth:`start` and :meth:`stop`.

    Raises:
        ConfigError: there are no resolvers to ask.
    """

    def __init__(self, hosts: HostNames, settings: Dns) -> None:
        self._hosts = hosts
        #: Is told of what clients resolve; ``None`` where that is off.
        self.learned = LearnedNames(hosts, settings.learned) if settings.learned.enabled else None
        self._reverse = ReverseNames(hosts, settings.reverse) if settings.reverse.enabled else None

    def start(self) -> None:
        """Begin to ask reverse zones."""
        if self._reverse is not None:
            self._reverse.start()

    def stop(self) -> None:
        """Ask no more."""
        if self._reverse is not None:
            self._reverse.stop()

    def facts(self) -> list[AddressFact]:
        """What fills in the names of all hosts, and asks reverse zones for more."""
        facts: list[AddressFact] = []
        learned = LearnedFact(self.learned, self._hosts) if self.learned is not None else None
        if learned is not None:
            facts.append(learned)
        facts.append(HostFact(self._hosts, learned))
        if self._reverse is not None:
            facts.append(ReverseFact(self._reverse, self._hosts))
        return facts

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_dns_*`` and ``flow_exporter_reverse_dns_*``."""
        if self.learned is not None:
            yield from self.learned.collect()
        if self._reverse is not None:
            yield from self._reverse.collect()
