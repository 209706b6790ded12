"""Name, site, role and owner of the device, by the address that it sends from; its interfaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.address import pack_address
from exporter.batch import Array, FlowBatch, format_address
from exporter.config import Device
from exporter.distinct import distinct_addresses
from exporter.enrich.interfaces import InterfaceNames
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.enrich.texts import Texts
from exporter.schema import Source

#: Role of agents on hosts; see docs/explanation/deduplication.md.
AGENT_ROLE: Final = "host"

_COLUMNS: Final = ("device", "site", "role", "owner")
_ROLE: Final = _COLUMNS.index("role")
#: Devices that are kept from batch to batch; of more, all are looked up anew.
_MAX_KEPT: Final = 100_000
#: Unknown devices that are listed; of more, only the number is told.
_MAX_LISTED: Final = 1000


class DeviceNames(Collector):
    """Fills ``device``, ``site``, ``role``, ``owner``, ``in_if_name`` and ``out_if_name``.

    A device that is not configured is named by its address, and listed by a metric. Whoever sends
    flows of eBPF is an agent on a host: its role is ``host`` where none is configured, which
    deduplication goes by.
    """

    def __init__(self, devices: Sequence[Device], learned: LearnedInterfaces) -> None:
        self._configured = {
            pack_address(d.address): (d.name or d.address, d.site, d.role, d.owner) for d in devices
        }
        self._interfaces = InterfaceNames(devices, learned)
        self._unknown: dict[bytes, str] = {}
        self._forget()

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""
        codes, uniques = _distinct(batch.array("device_addr"))
        addresses = [row.tobytes() for row in uniques]
        numbers = self._find(addresses)
        of_rows = numbers.take(codes)
        for name, texts, known in zip(_COLUMNS, self._texts, self._facts, strict=True):
            batch.columns[name] = texts.column(known.take(of_rows, mode="clip"))
        agents = _agents(batch, codes, len(addresses))
        if agents.any():
            self._name_agents(batch, self._facts[_ROLE].take(numbers), agents, codes)
        self._interfaces.apply(batch, codes, addresses)

    def _forget(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._texts = [Texts() for _ in _COLUMNS]
        #: Of each of the columns, by the number of the device, the number of its text.
        self._facts = np.zeros((len(_COLUMNS), 0), np.uint32)

    def _find(self, addresses: Sequence[bytes]) -> NDArray[np.intp]:
        """The number of each of some distinct devices."""
        if len(self._numbers) > _MAX_KEPT:
            self._forget()
        new = [a for a in addresses if a not in self._numbers]
        if new:
            self._numbers |= {a: number for number, a in enumerate(new, len(self._numbers))}
            facts = [self._configured.get(a) or (self._stranger(a), "", "", "") for a in new]
            found = [
                [texts.number(text) for text in column]
                for texts, column in zip(self._texts, zip(*facts, strict=True), strict=True)
            ]
            self._facts = np.concatenate([self._facts, np.array(found, np.uint32)], axis=1)
        return np.array([self._numbers[a] for a in addresses], np.intp)

    def _name_agents(
        self,
        batch: FlowBatch,
        roles: NDArray[np.uint32],
        agents: NDArray[np.bool_],
        codes: NDArray[np.intp],
    ) -> None:
        """Give agents on hosts their role, where ``roles`` of the batch's devices lacks it."""
        texts = self._texts[_ROLE]
        roles = np.where(agents & (roles == 0), np.uint32(texts.number(AGENT_ROLE)), roles)
        batch.columns[_COLUMNS[_ROLE]] = texts.column(roles.take(codes))

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


def _agents(batch: FlowBatch, devices: Array, count: int) -> NDArray[np.bool_]:
    """Which of ``count`` devices sent flows of eBPF."""
    found = np.zeros(count, np.bool_)
    if "source" in batch.columns:
        # The number, not the member: compared with that, a column is widened to 64 bits first.
        found[devices[batch.array("source") == Source.EBPF.value]] = True
    return found
