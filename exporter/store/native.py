"""Flow batches as ClickHouse's Native format, straight from the columns' memory.

One block: counts of columns and rows as LEB128, then per column its name, its type and its values
as ClickHouse keeps them in memory (https://clickhouse.com/docs/interfaces/formats/Native). This is
revision 0 of the format, what the HTTP interface reads. Fixed-width values are copied as they are;
texts travel as ``LowCardinality(String)``, a dictionary and codes, which the engine turns into
``String`` where the column is one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import DTYPES, Array, DictColumn, FlowBatch
from exporter.schema import COLUMNS, Column, Kind

assert sys.byteorder == "little", "Native is little-endian; big-endian machines are not supported"

#: Version of LowCardinality's serialization that carries its dictionary with it.
_DICTIONARY_VERSION: Final = np.uint64(1).tobytes()
#: "Additional keys follow" and "the dictionary is new", beside the width of the codes (0 to 2).
_DICTIONARY_FLAGS: Final = (1 << 9) | (1 << 10)
_CODE_TYPES: Final = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))

_TEXT_TYPE: Final = "LowCardinality(String)"
_EMPTY: Final[dict[Kind, DictColumn]] = {
    Kind.TEXT: DictColumn.constant("", 0),
    Kind.NAME: DictColumn.constant("", 0),
    Kind.LABELS: DictColumn.constant((), 0),
}

Buffer = bytes | memoryview


def present_columns(batches: Iterable[FlowBatch]) -> list[Column]:
    """The columns that any of the batches holds, in table order: those that get encoded."""
    names = {name for batch in batches for name in batch.columns}
    return [column for column in COLUMNS if column.name in names]


def encode_native(
    batches: Sequence[FlowBatch], columns: Sequence[Column] | None = None, prefix: bytes = b""
) -> bytes:
    """All rows of the batches, in order, as one Native block after ``prefix``.

    ``columns`` are those to encode, by default the ones present; where a batch lacks one, its
    default stands. The batches need not be joined before: each array is copied once.
    """
    if columns is None:
        columns = present_columns(batches)
    rows = sum(map(len, batches))
    parts: list[Buffer] = [prefix, _varint(len(columns)), _varint(rows)]
    for column in columns:
        text = column.kind in (Kind.TEXT, Kind.NAME)
        parts += [_string(column.name), _string(_TEXT_TYPE if text else column.clickhouse_type)]
        if not rows:
            continue
        if text:
            parts += _texts(*_merge(column, batches))
        elif column.kind is Kind.LABELS:
            parts += _labels(*_merge(column, batches))
        else:
            parts += [_fixed(column, batch) for batch in batches]
    return b"".join(parts)


def _fixed(column: Column, batch: FlowBatch) -> Buffer:
    width = DTYPES[column.kind].itemsize * (16 if column.kind is Kind.ADDRESS else 1)
    if column.name not in batch.columns:
        return bytes(width * len(batch))
    values = np.ascontiguousarray(batch.array(column.name), DTYPES[column.kind])
    if values.nbytes != width * len(batch):
        raise ValueError(f"column {column.name}: {values.shape} does not hold {len(batch)} rows")
    return values.data.cast("B")


def _merge(column: Column, batches: Sequence[FlowBatch]) -> tuple[NDArray[np.uint32], list[object]]:
    """Codes of all rows, and the values that they use."""
    index: dict[object, int] = {}
    codes = []
    default = _EMPTY[column.kind].values[0]
    for batch in batches:
        if column.name not in batch.columns:
            code = index.setdefault(default, len(index))
            codes.append(np.full(len(batch), code, np.uint32))
            continue
        held = batch.dictionary(column.name)
        if len(held) != len(batch):
            raise ValueError(f"column {column.name}: {len(held)} codes for {len(batch)} rows")
        used = np.zeros(len(held.values), np.bool_)
        used[held.codes] = True
        mapping = np.zeros(len(held.values), np.uint32)
        mapping[used] = [
            index.setdefault(held.values[i], len(index)) for i in np.flatnonzero(used).tolist()
        ]
        codes.append(mapping[held.codes])
    return np.concatenate(codes), list(index)


def _texts(codes: NDArray[np.uint32], values: list[object]) -> list[Buffer]:
    width = 0 if len(values) <= 1 << 8 else 1 if len(values) <= 1 << 16 else 2
    # What came from the network as text may hold lone surrogates: "?" rather than a lost batch.
    keys = b"".join(_string(str(value)) for value in values)
    return [
        _DICTIONARY_VERSION,
        np.array([_DICTIONARY_FLAGS | width, len(values)], np.uint64).tobytes(),
        keys,
        np.uint64(len(codes)).tobytes(),
        codes.astype(_CODE_TYPES[width], copy=False).tobytes(),
    ]


def _labels(codes: NDArray[np.uint32], values: list[object]) -> list[Buffer]:
    stacks = [np.array(value, np.uint32) for value in values]
    lengths = np.array([len(stack) for stack in stacks], np.uint64)[codes]
    flat: Array = np.zeros(0, np.uint32)
    if lengths.any():
        flat = np.concatenate([stacks[code] for code in codes.tolist()])
    return [np.cumsum(lengths, dtype=np.uint64).tobytes(), flat.tobytes()]


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """LEB128, seven bits a byte, least significant first."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
