"""Interface names: those learned by SNMP, else what the device told, else the configuration's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.address import pack_address
from exporter.batch import Array, DictColumn, FlowBatch
from exporter.config import Device
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.enrich.texts import Texts
from exporter.key_index import KeyIndex

_SIDES: Final = (("in_if", "in_if_name"), ("out_if", "out_if_name"))
#: Interfaces and names that are kept from batch to batch; of more, all are looked up anew.
_MAX_KEPT: Final = 100_000
_INDEX_BITS: Final = np.uint64(32)


class InterfaceNames:
    """Fills empty ``in_if_name`` and ``out_if_name``, and puts learned names over others."""

    def __init__(self, devices: Sequence[Device], learned: LearnedInterfaces) -> None:
        self._learned = learned
        self._configured = {
            pack_address(device.address): {
                index: interface.name
                for index, interface in device.interfaces.items()
                if interface.name
            }
            for device in devices
            if device.interfaces
        }
        self._forget()

    def apply(self, batch: FlowBatch, devices: Array, addresses: Sequence[bytes]) -> None:
        """``addresses[devices]`` are the batch's devices."""
        kept = max(len(self._over), len(self._texts), len(self._devices))
        if self._changes != self._learned.changes or kept > _MAX_KEPT:
            self._forget()
        numbers = np.array([self._device(address) for address in addresses], np.uint64)
        if not numbers.any():
            return
        of_device = (numbers << _INDEX_BITS).take(devices)
        for index_column, name_column in _SIDES:
            if index_column in batch.columns:
                keys = of_device | batch.array(index_column)
                if not numbers.all():
                    keys[of_device == 0] = 0
                known = self._find(keys)
                told = batch.dictionary(name_column)
                batch.columns[name_column] = self._named(known, told)

    def _forget(self) -> None:
        self._changes = self._learned.changes
        #: The number of a device, 0 of one about whose interfaces nothing is known.
        self._devices: dict[bytes, int] = {}
        self._names: list[tuple[Mapping[int, str], Mapping[int, str]]] = [({}, {})]
        self._texts = Texts()
        #: Device and ifIndex to the place of its names in the arrays; place 0 has none.
        self._index = KeyIndex(np.uint64)
        self._over = self._under = np.zeros(1, np.uint32)

    def _device(self, address: bytes) -> int:
        number = self._devices.get(address)
        if number is None:
            interfaces = self._learned.of(address).items()
            learned = {index: found.name for index, found in interfaces if found.name}
            configured = self._configured.get(address, {})
            number = len(self._names) if learned or configured else 0
            if number:
                self._names.append((learned, configured))
            self._devices[address] = number
        return number

    def _find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The place of each interface, a device's number and its ifIndex; key 0 has no names."""
        places, new = self._index.find_or_add(keys)
        if len(new):
            over, under = [], []
            for key in new.tolist():
                learned, configured = self._names[key >> 32]
                index = key & 0xFFFFFFFF
                over.append(self._texts.number(learned.get(index, "")))
                under.append(self._texts.number(configured.get(index, "")))
            self._over = np.append(self._over, np.array(over, np.uint32))
            self._under = np.append(self._under, np.array(under, np.uint32))
        return places

    def _named(self, places: NDArray[np.uint32], told: DictColumn) -> DictColumn:
        """What the device told, with learned names over it and configured ones under it."""
        if told.values == [""]:
            known = np.where(self._over, self._over, self._under)
            return self._texts.column(known.take(places, mode="clip"))
        names = np.array([self._texts.number(text) for text in told.values])[told.codes]
        names = np.where(names, names, self._under[places])
        over = self._over[places]
        return self._texts.column(np.where(over, over, names))
