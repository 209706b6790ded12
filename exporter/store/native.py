"""Flow batches as ClickHouse's Native format, straight from the columns' memory.

One block: counts of columns and rows as LEB128, then per column its name, its type and its values
as ClickHouse keeps them in memory (https://clickhouse.com/docs/interfaces/formats/Native). This is
revision 0 of the format, what the HTTP interface reads. Fixed-width values are copied as they are;
texts travel as ``LowCardinality(String)``, a dictionary and codes, which the engine turns into
``String`` where the column is one; a column of nothing but IPv4 addresses as ``IPv4``, which it
turns into ``IPv6``: a quarter of the bytes of an insert less.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from exporter.batch import DTYPES, Array, Batch, DictColumn
from exporter.schema import Column, Kind

assert sys.byteorder == "little", "Native is little-endian; big-endian machines are not supported"

#: Version of LowCardinality's serialization that carries its dictionary with it.
_DICTIONARY_VERSION: Final = np.uint64(1).tobytes()
#: "Additional keys follow" and "the dictionary is new", beside the width of the codes (0 to 2).
_DICTIONARY_FLAGS: Final = (1 << 9) | (1 << 10)
_CODE_TYPES: Final = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32))

_TEXT_TYPE: Final = "LowCardinality(String)"
#: Of any type that numpy moves at once.
_SIXTEEN_BYTES: Final = np.dtype(np.complex128)
#: ``::ffff:`` before an IPv4 address in one of IPv6, as the number that memory holds.
_IPV4_MARK: Final = 0xFFFF0000
#: Up to so many values, sending those that no row uses is cheaper than finding them.
_FEW_VALUES: Final = 256

#: Of most texts.
_LENGTHS: Final = [bytes([length]) for length in range(0x80)]

Buffer = bytes | memoryview


def present_columns(batches: Sequence[Batch]) -> list[Column]:
    """The columns that any of the batches holds, in table order: those that get encoded."""
    names = {name for batch in batches for name in batch.columns}
    return [column for column in batches[0].table.columns if column.name in names]


def native_parts(
    batches: Sequence[Batch],
    columns: Sequence[Column],
    placing: Sequence[tuple[Column, Array]] = (),
    order: Array | None = None,
) -> Iterator[Buffer]:
    """All rows of the batches as one Native block: pieces of it, of which each ends with the next.

    They show the batches' own memory where it is in shape already. Where a batch lacks one of the
    columns, its default stands. ``order`` gives the rows, counted through all batches, as they are
    to follow each other. ``placing`` are further columns, of numbers, with their values as they are
    to follow each other.
    """
    rows = sum(map(len, batches))
    yield _varint(len(columns) + len(placing)) + _varint(rows)
    for column, told in placing:
        yield _string(column.name) + _string(column.clickhouse_type)
        yield _bytes(np.ascontiguousarray(told, DTYPES[column.kind]))
    for column in columns:
        text = column.kind in (Kind.TEXT, Kind.NAME)
        sent_as, parts = _TEXT_TYPE if text else column.clickhouse_type, list[Array]()
        if rows and not text and column.kind not in _ITEMS:
            parts = [_fixed(column, batch) for batch in batches if len(batch)]
            sent_as, parts = _narrowed(column, parts)
        yield _string(column.name) + _string(sent_as)
        if not rows:
            continue
        if not parts:
            codes, values = _merge(column, batches)
            codes = codes if order is None else codes[order]
            yield from (
                _texts(codes, values) if text else _arrays(codes, values, *_ITEMS[column.kind])
            )
        elif order is None:
            yield from map(_bytes, parts)
        else:
            yield _bytes((parts[0] if len(parts) == 1 else np.concatenate(parts))[order])


def _fixed(column: Column, batch: Batch) -> Array:
    """The values of one column, of shape ``(n,)``: addresses as one number of 16 bytes."""
    values = np.ascontiguousarray(batch.array(column.name), DTYPES[column.kind])
    if column.kind is Kind.ADDRESS:
        values = values.reshape(-1).view(_SIXTEEN_BYTES)
    if values.shape != (len(batch),):
        raise ValueError(f"column {column.name}: {values.shape} does not hold {len(batch)} rows")
    return values


def _narrowed(column: Column, parts: list[Array]) -> tuple[str, list[Array]]:
    """The type and values to send: addresses that are all of IPv4 by their last four bytes."""
    if column.kind is Kind.ADDRESS and all(map(_are_ipv4, parts)):
        return "IPv4", [part.view(np.uint32)[3::4].byteswap() for part in parts]
    return column.clickhouse_type, parts


def _are_ipv4(addresses: Array) -> bool:
    high = addresses.view(np.uint64)[::2]
    return bool((addresses.view(np.uint32)[2::4] == _IPV4_MARK).all() and not high.any())


def _bytes(values: Array) -> Buffer:
    return values.view(np.uint8).data


def _merge(column: Column, batches: Sequence[Batch]) -> tuple[Array, list[Any]]:
    """Codes of all rows, as narrow as may be, and the values that they stand for."""
    held = [batch.dictionary(column.name) for batch in batches]
    for own, batch in zip(held, batches, strict=True):
        if len(own) != len(batch):
            raise ValueError(f"column {column.name}: {len(own)} codes for {len(batch)} rows")
    shared: dict[int, list[DictColumn]] = {}
    for own in held:
        shared.setdefault(id(own.values), []).append(own)
    used = {key: _used_values(columns) for key, columns in shared.items()}
    values: list[Any]
    if len(used) == 1:
        (places,) = used.values()
        values = list(map(held[0].values.__getitem__, places.tolist()))
        numbers = [np.arange(len(values))]
    else:
        index: dict[object, int] = {}
        numbers = []
        for key, places in used.items():
            own = shared[key][0]
            new = [index.setdefault(own.values[i], len(index)) for i in places.tolist()]
            numbers.append(np.array(new))
        values = list(index)
    width = 0 if len(values) <= 1 << 8 else 1 if len(values) <= 1 << 16 else 2
    codes = np.empty(sum(map(len, held)), _CODE_TYPES[width])
    mappings = {}
    for (key, places), found in zip(used.items(), numbers, strict=True):
        mappings[key] = np.zeros(int(places.max(initial=0)) + 1, codes.dtype)
        mappings[key][places] = found
    begin = 0
    for own in held:
        end = begin + len(own)
        codes[begin:end] = mappings[id(own.values)][own.codes]
        begin = end
    return codes, values


def _used_values(columns: Sequence[DictColumn]) -> Array:
    """The places of the values that columns use; these share one list of values."""
    count = len(columns[0].values)
    if count <= _FEW_VALUES:
        return np.arange(count)
    used = np.zeros(count, np.bool_)
    for column in columns:
        used[column.codes] = True
    return np.flatnonzero(used)


def _texts(codes: Array, values: list[Any]) -> list[Buffer]:
    # What came from the network as text may hold lone surrogates: "?" rather than a lost batch.
    keys = b"".join(map(_string, values))
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
    length = len(data)
    return (_LENGTHS[length] if length < len(_LENGTHS) else _varint(length)) + data


def _varint(number: int) -> bytes:
    """LEB128, seven bits a byte, least significant first."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
