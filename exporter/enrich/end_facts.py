"""Everything that is filled in for both ends of a flow by their addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.batch import FlowBatch
from exporter.enrich.address_cache import AddressCache, AddressFact

#: Addresses that are kept with all that is known of them: about 40 MB.
MAX_ADDRESSES: Final = 500_000

_SIDES: Final = ("src", "dst")


class EndFacts(Collector):
    """Lets each fact fill its columns of both ends."""

    def __init__(self, facts: Sequence[AddressFact], *, max_addresses: int = MAX_ADDRESSES) -> None:
        self._facts = facts
        self._cache = AddressCache(facts, max_addresses)

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns; an end whose addresses are missing is one of which nothing is known."""
        present = [side for side in _SIDES if f"{side}_addr" in batch.columns]
        self._cache.refresh()
        numbers = self._cache.numbers([batch.array(f"{side}_addr") for side in present])
        of_side = dict(zip(present, numbers, strict=True))
        for row, fact in enumerate(self._facts):
            known = self._cache.fact(row)
            for side in _SIDES:
                codes = of_side.get(side)
                if codes is None:
                    found = np.zeros(len(batch), np.uint32)
                else:
                    found = known.take(codes, mode="clip")  # twice as fast as with a check
                fact.fill(batch, side, found)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_enrich_*``."""
        prefix = "flow_exporter_enrich_"
        yield GaugeMetricFamily(
            prefix + "cached_addresses",
            "Addresses whose names and other facts are kept.",
            len(self._cache),
        )
        yield GaugeMetricFamily(
            prefix + "cache_bytes", "Memory of the table of these addresses.", self._cache.bytes
        )
        yield CounterMetricFamily(
            prefix + "looked_up_addresses",
            "Addresses that were not in the table, and for which all facts were found.",
            self._cache.misses,
        )
        yield CounterMetricFamily(
            prefix + "cache_restarts",
            "How often the table was full and began anew.",
            self._cache.restarts,
        )
