"""Interface names from the configuration, where a device does not tell them itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.batch import Array, DictColumn, FlowBatch
from exporter.config import Device
from exporter.distinct import distinct, pack_address

_SIDES = (("in_if", "in_if_name"), ("out_if", "out_if_name"))


class InterfaceNames:
    """Fills empty ``in_if_name`` and ``out_if_name`` of devices with configured interfaces."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._known = {
            pack_address(device.address): device.interfaces
            for device in devices
            if device.interfaces
        }

    def apply(self, batch: FlowBatch, devices: Array, addresses: Sequence[bytes]) -> None:
        """``addresses[devices]`` are the batch's devices."""
        tables = [self._known.get(address) for address in addresses]
        configured = [table for table in tables if table is not None]
        if not configured:
            return
        number = iter(range(1, len(configured) + 1))
        rows = np.array([0 if table is None else next(number) for table in tables])[devices]
        for index_column, name_column in _SIDES:
            told = batch.dictionary(name_column)
            if index_column in batch.columns and "" in told.values:
                batch.columns[name_column] = _filled(
                    told, batch.array(index_column), rows, configured
                )


def _filled(
    told: DictColumn, indexes: Array, rows: Array, tables: Sequence[dict[int, str]]
) -> DictColumn:
    """``told`` with empty texts replaced; ``tables[rows - 1]`` has a row's interfaces."""
    codes, uniques = distinct(indexes)
    code_of = {index: code for code, index in enumerate(uniques.tolist())}
    named = sorted({code_of[index] for table in tables for index in table if index in code_of})
    columns = np.zeros(len(uniques), np.intp)
    columns[named] = range(1, len(named) + 1)
    numbers = {text: code for code, text in enumerate(told.values)}
    names = np.full((len(tables) + 1, len(named) + 1), numbers[""], np.uint32)
    for row, table in enumerate(tables, 1):
        for index, text in table.items():
            if index in code_of:
                found = numbers.setdefault(text, len(numbers))
                names[row, columns[code_of[index]]] = found
    configured = names[rows, columns[codes]]
    empty = np.array([text == "" for text in told.values])
    return DictColumn(np.where(empty[told.codes], configured, told.codes), list(numbers))
