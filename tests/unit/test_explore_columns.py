"""What flows can be grouped by fits the schema."""

from __future__ import annotations

import pytest

from exporter.explore.columns import (
    DIMENSIONS,
    EXPRESSIONS,
    NAMES,
    NARROW_COLUMNS,
    NETWORK_COLUMNS,
    ROLLUP_COLUMNS,
)
from exporter.schema import BY_NAME, Kind

GROUPED = [name for _, name in DIMENSIONS]
#: Types of so few values that a column of them is narrow whatever it is about.
NARROW = {Kind.ENUM, Kind.UINT8}
#: Types made for many values; of the addresses only those of devices are few.
WIDE = {Kind.ADDRESS, Kind.MAC, Kind.NAME, Kind.UINT64}


def test_every_dimension_is_there_once_with_a_column() -> None:
    assert len(set(GROUPED)) == len(GROUPED)
    assert set(GROUPED) <= BY_NAME.keys()


@pytest.mark.parametrize("columns", [NARROW_COLUMNS, ROLLUP_COLUMNS, NETWORK_COLUMNS])
def test_columns_of_a_kind_are_dimensions(columns: tuple[str, ...]) -> None:
    assert len(set(columns)) == len(columns)
    assert set(columns) <= {*GROUPED, *EXPRESSIONS}


def test_names_of_keys_are_columns() -> None:
    assert set(NAMES) <= {*GROUPED, *EXPRESSIONS}
    assert set(NAMES.values()) <= BY_NAME.keys()


def test_narrow_are_columns_whose_type_has_few_values_and_none_made_for_many() -> None:
    few = {name for name in GROUPED if BY_NAME[name].kind in NARROW}
    assert few <= set(NARROW_COLUMNS)
    many = {name for name in NARROW_COLUMNS if BY_NAME[name].kind in WIDE}
    assert many == {"device_addr"}
