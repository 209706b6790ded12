"""Names for what flows carry as numbers: devices, hosts, networks, services.

Each step is a module with one class, made from the configuration, whose ``apply`` adds columns
to a batch. A step does its work once per distinct value and spreads the result over the rows.

What is known of addresses is found once per address and kept from batch to batch: each thing is an
:class:`~exporter.enrich.address_cache.AddressFact`, listed in
:class:`~exporter.enrich.enricher.Enricher`. Names of hosts come from several sources, which change
while flows come in: each has a layer of :class:`~exporter.enrich.host_names.HostNames`, and
:class:`~exporter.enrich.sources.NameSources` starts and stops them.
"""

from exporter.enrich.enricher import Enricher
from exporter.enrich.sources import NameSources

__all__ = ["Enricher", "NameSources"]
