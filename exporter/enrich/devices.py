"""Name, site, role and owner of the device, by the address that it sends from; its interfaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.batch import Array, DictColumn, FlowBatch, format_address
from exporter.config import Device
from exporter.distinct import distinct_addresses, pack_address
from exporter.enrich.interfaces import InterfaceNames
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.schema import Source

#: Role of agents on hosts; see docs/explanation/deduplication.md.
AGENT_ROLE: Final = "host"

_COLUMNS: Final = ("device", "site", "role", "owner")
#: Unknown devices that are listed; of more, only the number is told.
_MAX_LISTED: Final = 1000


class DeviceNames(Collector):
    """Fills ``device``, ``site``, ``role``, ``owner``, ``in_if_name`` and ``out_if_name``.

    A device that is not configured is named by its address, and listed by a metric. Whoever sends
    flows of eBPF is an agent on a host: its role is ``host`` where none is configured, which
    deduplication goes by.
    """

    def __init__(self, devices: Sequence[Device], learned: LearnedInterfaces) -> None:
        self._known = {
            pack_address(d.address): (d.name or d.address, d.site, d.role, d.owner) for d in devices
        }
        self._interfaces = InterfaceNames(devices, learned)
        self._unknown: dict[bytes, str] = {}

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""
        codes, uniques = _distinct(batch.array("device_addr"))
        addresses = [row.tobytes() for row in uniques]
        facts = [self._known.get(a) or (self._stranger(a), "", "", "") for a in addresses]
        for code in _agents(batch, codes, len(facts)):
            name, site, role, owner = facts[code]
            facts[code] = (name, site, role or AGENT_ROLE, owner)
        for name, values in zip(_COLUMNS, zip(*facts, strict=True), strict=True):
            # Two devices may have one name, which the column then holds once.
            texts = DictColumn.encode(values)
            batch.columns[name] = DictColumn(texts.codes.take(codes), texts.values)
        self._interfaces.apply(batch, codes, addresses)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_unknown_device*``."""
        yield GaugeMetricFamily(
            "flow_exporter_unknown_devices",
            "Devices that have sent flows and are not configured.",
            len(self._unknown),
        )
        listed = GaugeMetricFamily(
            "flow_exporter_unknown_device",
            f"A device that has sent flows and is not configured, the first {_MAX_LISTED}; 1.",
            labels=["device"],
        )
        for name in list(self._unknown.values())[:_MAX_LISTED]:
            listed.add_metric([name], 1)
        yield listed

    def _stranger(self, address: bytes) -> str:
        name = self._unknown.get(address)
        if name is None:
            name = format_address(address)
            if len(self._unknown) < 10 * _MAX_LISTED:  # whoever forges senders fills no memory
                self._unknown[address] = name
        return name


def _distinct(addresses: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """As :func:`distinct_addresses`; quicker for flows that come many of one device together."""
    words = np.ascontiguousarray(addresses).view(np.uint64)
    high, low = words[:, 0], words[:, 1]
    begins = np.flatnonzero((low[1:] != low[:-1]) | (high[1:] != high[:-1])) + 1
    if len(begins) > len(addresses) // 4:
        codes, uniques = distinct_addresses(addresses)
        return codes.astype(np.intp), uniques
    begins = np.concatenate([[0], begins])
    codes, uniques = distinct_addresses(addresses.take(begins, axis=0))
    return np.repeat(codes.astype(np.intp), np.diff(begins, append=len(addresses))), uniques


def _agents(batch: FlowBatch, devices: Array, count: int) -> list[int]:
    """Which of ``count`` devices sent flows of eBPF."""
    if "source" not in batch.columns:
        return []
    rows = batch.array("source") == Source.EBPF
    if not rows.any():
        return []
    found = np.zeros(count, np.bool_)
    found[devices[rows]] = True
    return [int(code) for code in np.flatnonzero(found)]
