"""Names for what flows carry as numbers: devices, hosts, networks, services.

Each step is a module with one class, made from the configuration, whose ``apply`` adds columns
to a batch. A step does its work once per distinct value and spreads the result over the rows.
"""

from exporter.enrich.enricher import Enricher

__all__ = ["Enricher"]
