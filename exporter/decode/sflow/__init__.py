"""sFlow version 5 (sflow.org, July 2004)."""

from exporter.decode.sflow.decoder import SflowDecoder

__all__ = ["SflowDecoder"]
