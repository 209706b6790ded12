"""Where flows come from that are no datagrams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from exporter.batch import FlowBatch

#: Hands flows to the pipeline, waiting for room for so many seconds; whether it took them.
Offer = Callable[[FlowBatch, float], bool]


class FlowSource(Protocol):
    """Brings flows by itself, from threads of its own, between ``start`` and ``stop``."""

    def start(self, offer: Offer) -> None:
        """Begin to take in flows and hand them to ``offer``."""

    def stop(self) -> None:
        """Offer no more flows when this has returned."""
