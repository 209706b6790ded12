"""Name, site and role of the device, by the address that it sends from, and its interfaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.batch import FlowBatch, format_address
from exporter.config import Device
from exporter.distinct import distinct_addresses, pack_address
from exporter.enrich.interfaces import InterfaceNames
from exporter.enrich.texts import Texts


class DeviceNames:
    """Fills ``device``, ``site``, ``role``, ``in_if_name`` and ``out_if_name``.

    A device that is not configured is named by its address.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        self._known = {
            pack_address(device.address): (
                device.name or device.address,
                device.site,
                device.role,
            )
            for device in devices
        }
        self._interfaces = InterfaceNames(devices)

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""
        codes, uniques = distinct_addresses(batch.array("device_addr"))
        addresses = [row.tobytes() for row in uniques]
        facts = [self._known.get(a) or (format_address(a), "", "") for a in addresses]
        for name, values in zip(("device", "site", "role"), zip(*facts, strict=True), strict=True):
            # Two devices may have one name, which the column then holds once.
            texts = Texts()
            batch.columns[name] = texts.column(np.array([texts.number(v) for v in values])[codes])
        self._interfaces.apply(batch, codes, addresses)
