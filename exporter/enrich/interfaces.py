"""Interface names: those learned by SNMP, else what the device told, else the configuration's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from exporter.batch import Array, DictColumn, FlowBatch
from exporter.config import Device
from exporter.distinct import distinct, pack_address
from exporter.enrich.learned_interfaces import LearnedInterfaces

_SIDES: Final = (("in_if", "in_if_name"), ("out_if", "out_if_name"))


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

    def apply(self, batch: FlowBatch, devices: Array, addresses: Sequence[bytes]) -> None:
        """``addresses[devices]`` are the batch's devices."""
        learned = [
            {index: found.name for index, found in self._learned.of(a).items() if found.name}
            for a in addresses
        ]
        self._put(batch, devices, [self._configured.get(a, {}) for a in addresses], fill=True)
        self._put(batch, devices, learned, fill=False)

    def _put(
        self,
        batch: FlowBatch,
        devices: Array,
        of_device: Sequence[Mapping[int, str]],
        *,
        fill: bool,
    ) -> None:
        tables = [table for table in of_device if table]
        if not tables:
            return
        number = iter(range(1, len(tables) + 1))
        rows = np.array([next(number) if table else 0 for table in of_device])[devices]
        for index_column, name_column in _SIDES:
            told = batch.dictionary(name_column)
            if index_column in batch.columns and ("" in told.values or not fill):
                batch.columns[name_column] = _named(
                    told, batch.array(index_column), rows, tables, fill=fill
                )


def _named(
    told: DictColumn,
    indexes: Array,
    rows: Array,
    tables: Sequence[Mapping[int, str]],
    *,
    fill: bool,
) -> DictColumn:
    """``told`` with names from ``tables[rows - 1]``: to ``fill`` it where it is empty, or over it.

    A row whose interface has no name there keeps what it was told.
    """
    codes, uniques = distinct(indexes)
    code_of = {index: code for code, index in enumerate(uniques.tolist())}
    named = sorted({code_of[index] for table in tables for index in table if index in code_of})
    columns = np.zeros(len(uniques), np.intp)
    columns[named] = range(1, len(named) + 1)
    numbers = {text: code for code, text in enumerate(told.values)}
    names = np.full((len(tables) + 1, len(named) + 1), -1, np.int64)
    for row, table in enumerate(tables, 1):
        for index, text in table.items():
            if index in code_of:
                names[row, columns[code_of[index]]] = numbers.setdefault(text, len(numbers))
    found = names[rows, columns[codes]]
    replaced = found >= 0
    if fill:
        replaced &= np.array([text == "" for text in told.values])[told.codes]
    return DictColumn(np.where(replaced, found, told.codes).astype(np.uint32), list(numbers))
