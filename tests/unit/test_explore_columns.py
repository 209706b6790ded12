"""What flows can be grouped by fits the schema."""

from __future__ import annotations

import pytest

from exporter.explore.columns import (
    DIMENSIONS,
    EXPRESSIONS,
    NAMES,
    NETWORK_COLUMNS,
    ROLLUP_COLUMNS,
)
from exporter.schema import BY_NAME

GROUPED = [name for _, name in DIMENSIONS]


def test_every_dimension_is_there_once_with_a_column() -> None:
    assert len(set(GROUPED)) == len(GROUPED)
    assert set(GROUPED) <= BY_NAME.keys()


@pytest.mark.parametrize("columns", [ROLLUP_COLUMNS, NETWORK_COLUMNS])
def test_columns_of_a_kind_are_dimensions(columns: tuple[str, ...]) -> None:
    assert len(set(columns)) == len(columns)
    assert set(columns) <= {*GROUPED, *EXPRESSIONS}


def test_names_of_keys_are_columns() -> None:
    assert set(NAMES) <= {*GROUPED, *EXPRESSIONS}
    assert set(NAMES.values()) <= BY_NAME.keys()
