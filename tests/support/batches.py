"""Flow batches with values of every kind, for tests of what stores and encodes them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from exporter.batch import DTYPES, Batch, DictColumn, FlowBatch
from exporter.schema import COLUMNS, Column, Kind
from exporter.store.native import native_parts, present_columns


def encode_native(batches: Sequence[Batch]) -> bytes:
    """All rows of the batches, in order, as one Native block of the columns that are present."""
    return b"".join(native_parts(batches, present_columns(batches)))


def random_batch(rows: int, seed: int = 0, distinct: int = 50) -> FlowBatch:
    """All columns filled with values from their whole range, times within the last hour."""
    random = np.random.default_rng(seed)
    columns = {column.name: _random_column(column, rows, random, distinct) for column in COLUMNS}
    return FlowBatch(rows, columns)


def _random_column(
    column: Column, rows: int, random: np.random.Generator, distinct: int
) -> np.ndarray | DictColumn:
    codes = random.integers(0, distinct, rows).astype(np.uint32)
    if column.kind in (Kind.TEXT, Kind.NAME):
        return DictColumn(codes, ["", *(f"{column.name} ü{i}" for i in range(1, distinct))])
    if column.kind is Kind.LABELS:
        return DictColumn(codes, [tuple(range(i, i + i % 4)) for i in range(distinct * 4)][::4])
    if column.kind is Kind.TIME:
        return int(time.time() * 1000) - random.integers(0, 3_600_000, rows)
    if column.kind is Kind.ADDRESS:
        return random.integers(0, 256, (rows, 16)).astype(np.uint8)
    if column.enum is not None:
        return random.choice([member.value for member in column.enum], rows).astype(np.int8)
    dtype = DTYPES[column.kind]
    if column.kind is Kind.FLOAT32:
        return random.random(rows).astype(dtype)
    if column.name in ("bytes", "packets"):  # leave room for sums
        return random.integers(0, 1 << 40, rows).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, rows, dtype, endpoint=True)
