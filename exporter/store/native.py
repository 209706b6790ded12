"""Flow batches as ClickHouse's Native format, straight from the columns' memory.

One block: counts of columns and rows as LEB128, then per column its name, its type and its values
as ClickHouse keeps them in memory (https://clickhouse.com/docs/interfaces/formats/Native). This is
revision 0 of the format, what the HTTP interface reads. Fixed-width values are copied as they are;
texts travel as ``LowCardinality(String)``, a dictionary and codes, which the engine turns into
``String`` where the column is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from exporter.batch import DTYPES, Array, Batch
from exporter.schema import Column, Kind

assert sys.byteorder == "little", "Native is little-endian; big-endian machines are not supported"

#: Version of LowCardinality's serialization that carries its dictionary with it.
_DICTIONARY_VERSION: Final = np.uint64(1).tobytes()
#: "Additional keys follow" and "the dictionary is new", beside the width of the codes (0 to 2).
_DICTIONARY_FLAGS: Final = (1 << 9) | (1 << 10)
_CODE_TYPES: Final = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))

_TEXT_TYPE: Final = "LowCardinality(String)"
_DEFAULTS: Final[dict[Kind, object]] = {
    Kind.TEXT: "",
    Kind.NAME: "",
    Kind.LABELS: (),
    Kind.ADDRESSES: (),
}
#: Of any type that numpy moves at once.
_SIXTEEN_BYTES: Final = np.dtype(np.complex128)
#: Up to so many values, sending those that no row uses is cheaper than finding them.
_FEW_VALUES: Final = 256

Buffer = bytes | memoryview


def present_columns(batches: Sequence[Batch]) -> list[Column]:
    """The columns that any of the batches holds, in table order: those that get encoded."""
    names = {name for batch in batches for name in batch.columns}
    return [column for column in batches[0].table.columns if column.name in names]


def encode_native(batches: Sequence[Batch], columns: Sequence[Column] | None = None) -> bytes:
    """All rows of the batches, in order, as one Native block.

    ``columns`` are those to encode, by default the ones present; where a batch lacks one, its
    default stands.
    """
    return b"".join(native_parts(batches, columns or present_columns(batches)))


def native_parts(
    batches: Sequence[Batch],
    columns: Sequence[Column],
    constants: Sequence[tuple[Column, int]] = (),
    order: Array | None = None,
) -> Iterator[Buffer]:
    """The same as pieces that, one after the other, make up the block; each ends with the next.

    They show the batches' own memory where it is in shape already. ``constants`` are further
    columns, of numbers, that hold one value in all rows. ``order`` gives the rows, counted through
    all batches, as they are to follow each other.
    """
    rows = sum(map(len, batches))
    yield _varint(len(columns) + len(constants)) + _varint(rows)
    for column, value in constants:
        yield _string(column.name) + _string(column.clickhouse_type)
        yield np.full(rows, value, DTYPES[column.kind]).data.cast("B")
    for column in columns:
        text = column.kind in (Kind.TEXT, Kind.NAME)
        yield _string(column.name) + _string(_TEXT_TYPE if text else column.clickhouse_type)
        if not rows:
            continue
        if text or column.kind in _ITEMS:
            codes, values = _merge(column, batches)
            codes = codes if order is None else codes[order]
            yield from (
                _texts(codes, values) if text else _arrays(codes, values, *_ITEMS[column.kind])
            )
        elif order is None:
            yield from (_bytes(_fixed(column, batch)) for batch in batches if len(batch))
        else:
            parts = [_fixed(column, batch) for batch in batches if len(batch)]
            yield _bytes((parts[0] if len(parts) == 1 else np.concatenate(parts))[order])


def _fixed(column: Column, batch: Batch) -> Array:
    """The values of one column, of shape ``(n,)``: addresses as one number of 16 bytes."""
    values = np.ascontiguousarray(batch.array(column.name), DTYPES[column.kind])
    if column.kind is Kind.ADDRESS:
        values = values.reshape(-1).view(_SIXTEEN_BYTES)
    if values.shape != (len(batch),):
        raise ValueError(f"column {column.name}: {values.shape} does not hold {len(batch)} rows")
    return values


def _bytes(values: Array) -> Buffer:
    return values.view(np.uint8).data


def _merge(column: Column, batches: Sequence[Batch]) -> tuple[Array, list[object]]:
    """Codes of all rows, as narrow as may be, and the values that they stand for."""
    index: dict[object, int] = {}
    mappings = []
    for batch in batches:
        if column.name not in batch.columns:
            mappings.append([index.setdefault(_DEFAULTS[column.kind], len(index))])
            continue
        held = batch.dictionary(column.name)
        if len(held) != len(batch):
            raise ValueError(f"column {column.name}: {len(held)} codes for {len(batch)} rows")
        if len(held.values) <= _FEW_VALUES:
            mappings.append([index.setdefault(value, len(index)) for value in held.values])
            continue
        # A part of a larger batch shares its values, and may use few of them.
        used = np.zeros(len(held.values), np.bool_)
        used[held.codes] = True
        mapping = [0] * len(held.values)
        for i in np.flatnonzero(used).tolist():
            mapping[i] = index.setdefault(held.values[i], len(index))
        mappings.append(mapping)
    width = 0 if len(index) <= 1 << 8 else 1 if len(index) <= 1 << 16 else 2
    codes = np.empty(sum(map(len, batches)), _CODE_TYPES[width])
    begin = 0
    for batch, mapping in zip(batches, mappings, strict=True):
        end = begin + len(batch)
        if column.name in batch.columns:
            rows = batch.dictionary(column.name).codes
            codes[begin:end] = np.array(mapping, codes.dtype)[rows]
        else:
            codes[begin:end] = mapping[0]
        begin = end
    return codes, list(index)


def _texts(codes: Array, values: list[object]) -> list[Buffer]:
    # What came from the network as text may hold lone surrogates: "?" rather than a lost batch.
    keys = b"".join(_string(str(value)) for value in values)
    flags = _DICTIONARY_FLAGS | _CODE_TYPES.index(codes.dtype)
    return [
        _DICTIONARY_VERSION,
        np.array([flags, len(values)], np.uint64).tobytes(),
        keys,
        np.uint64(len(codes)).tobytes(),
        codes.data.cast("B"),
    ]


def _arrays(
    codes: Array, values: list[Any], pack: Callable[[Any], bytes], width: int
) -> list[Buffer]:
    packed = [pack(value) for value in values]
    lengths = np.array([len(items) // width for items in packed], np.uint64)[codes]
    flat = b"".join([packed[code] for code in codes.tolist()]) if lengths.any() else b""
    return [np.cumsum(lengths, dtype=np.uint64).tobytes(), flat]


#: How the items of a list are packed, and the width of one.
_ITEMS: Final[dict[Kind, tuple[Callable[[Any], bytes], int]]] = {
    Kind.LABELS: (lambda labels: np.array(labels, np.uint32).tobytes(), 4),
    Kind.ADDRESSES: (b"".join, 16),
}


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
