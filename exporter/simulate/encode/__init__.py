"""Flows in columns to the datagrams that a device would send: what every test sends with.

Each encoder is one exporting process of one device: it keeps sequence numbers, boot time and the
templates' age between calls. ``encode(batch, now)`` takes flows with the columns and units of
:mod:`exporter.schema` and the time of export in milliseconds since the epoch, and returns UDP
payloads of at most ``mtu`` bytes (of eBPF agents: gRPC messages). What a protocol cannot carry is
refused with ``ValueError`` rather than bent, so that whoever sends knows exactly what was sent.
``bytes`` and ``packets`` are estimates as everywhere: the encoders divide them by the device's
sampling rate.
"""

from __future__ import annotations

from typing import Protocol

from exporter.batch import FlowBatch
from exporter.simulate.encode.ebpf import EbpfEncoder
from exporter.simulate.encode.ipfix import IpfixEncoder
from exporter.simulate.encode.netflow5 import NetFlow5Encoder
from exporter.simulate.encode.netflow9 import NetFlow9Encoder
from exporter.simulate.encode.sflow5 import InterfaceCounters, SFlow5Encoder


class Encoder(Protocol):
    """What all encoders have in common."""

    def encode(self, batch: FlowBatch, now: int) -> list[bytes]:
        """The datagrams that carry ``batch``, exported at ``now`` (ms since the epoch, UTC)."""


__all__ = [
    "EbpfEncoder",
    "Encoder",
    "InterfaceCounters",
    "IpfixEncoder",
    "NetFlow5Encoder",
    "NetFlow9Encoder",
    "SFlow5Encoder",
]
