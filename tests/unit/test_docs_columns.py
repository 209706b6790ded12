"""The page of flow columns says what the schema says."""

from __future__ import annotations

from pathlib import Path

from exporter.schema import COLUMNS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "columns.md"


def expected_rows() -> list[str]:
    rows = []
    for column in COLUMNS:
        unit = f" In {column.unit}." if column.unit else ""
        values = ""
        if column.enum is not None:
            values = f" One of {', '.join(f'`{m.name.lower()}`' for m in column.enum)}."
        kind = "Enum8" if column.enum is not None else column.clickhouse_type
        rows.append(f"| `{column.name}` | {kind} | {column.description}{values}{unit} |")
    return rows


def test_the_page_lists_every_column_in_order() -> None:
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert listed[: len(COLUMNS)] == expected_rows()
