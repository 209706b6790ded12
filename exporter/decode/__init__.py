"""Decode: datagrams to flow batches, a module per protocol."""

from exporter.decode.decoder import Decoder

__all__ = ["Decoder"]
