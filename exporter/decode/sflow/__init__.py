"""sFlow version 5 (sflow.org, July 2004)."""

from exporter.decode.sflow.accounting import SflowCollector
from exporter.decode.sflow.decoder import SflowDecoder
from exporter.decode.sflow.interfaces import InterfaceCollector

__all__ = ["InterfaceCollector", "SflowCollector", "SflowDecoder"]
