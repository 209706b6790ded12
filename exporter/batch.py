"""``FlowBatch``: many flows as columns, the one form in which flows move between the parts.

``DnsBatch`` is the same for DNS queries.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.schema import COLUMNS, DNS_QUERIES, FLOWS, Column, Kind, Table

Array = NDArray[Any]

#: numpy type of one value (``ADDRESS`` adds a second axis of 16).
DTYPES: Final[dict[Kind, np.dtype[Any]]] = {
    Kind.TIME: np.dtype(np.int64),
    Kind.ADDRESS: np.dtype(np.uint8),
    Kind.MAC: np.dtype(np.uint64),
    Kind.UINT8: np.dtype(np.uint8),
    Kind.UINT16: np.dtype(np.uint16),
    Kind.UINT32: np.dtype(np.uint32),
    Kind.UINT64: np.dtype(np.uint64),
    Kind.FLOAT32: np.dtype(np.float32),
    Kind.ENUM: np.dtype(np.int8),
}

_ARROW: Final[dict[Kind, pa.DataType]] = {
    Kind.TIME: pa.timestamp("ms", tz="UTC"),
    Kind.ADDRESS: pa.binary(16),
    Kind.MAC: pa.uint64(),
    Kind.UINT8: pa.uint8(),
    Kind.UINT16: pa.uint16(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.FLOAT32: pa.float32(),
    Kind.ENUM: pa.int8(),
    Kind.TEXT: pa.dictionary(pa.uint32(), pa.string()),
    Kind.NAME: pa.dictionary(pa.uint32(), pa.string()),
    Kind.LABELS: pa.list_(pa.uint32()),
    Kind.ADDRESSES: pa.list_(pa.binary(16)),
}

#: The Arrow schema of a whole batch, all columns in table order.
ARROW_SCHEMA: Final = pa.schema([(c.name, _ARROW[c.kind]) for c in COLUMNS])

_LIST_KINDS: Final = frozenset({Kind.LABELS, Kind.ADDRESSES})
_DICT_KINDS: Final = frozenset({Kind.TEXT, Kind.NAME}) | _LIST_KINDS


@dataclass(slots=True)
class DictColumn:
    """Repeated values held once: row ``i`` is ``values[codes[i]]``.

    ``codes`` is ``uint32`` of shape ``(n,)``; ``values`` are unique, and ``str`` or, for
    ``Kind.LABELS`` and ``Kind.ADDRESSES``, tuples of ``int`` and ``bytes``. Many columns may share
    one list of values, of which each uses some: it may grow at its end, and never changes else.
    """

    codes: NDArray[np.uint32]
    values: list[Any]

    @classmethod
    def constant(cls, value: Any, length: int) -> DictColumn:
        """The same value in every row."""
        return cls(np.zeros(length, np.uint32), [value])

    @classmethod
    def encode(cls, rows: Sequence[Any]) -> DictColumn:
        """From one value per row; for use off the hot path."""
        index: dict[Any, int] = {}
        codes = np.fromiter((index.setdefault(v, len(index)) for v in rows), np.uint32, len(rows))
        return cls(codes, list(index))

    def take(self, rows: Array) -> DictColumn:
        """The rows that an index or a boolean mask selects (``values`` are shared)."""
        return DictColumn(self.codes[rows], self.values)

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(slots=True)
class Batch:
    """``length`` rows of ``table``; ``columns`` holds only those that someone filled.

    A missing column stands for its default in every row: 0, ``::``, the empty string or list.
    Array shapes and types are those of :mod:`exporter.schema`. Arrays may be read-only: one value
    in every row is one place in memory, with strides of 0.
    """

    table: ClassVar[Table]
    length: int
    columns: dict[str, Array | DictColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.length

    def array(self, name: str) -> Array:
        """A column that is held as an array, its default filled in when missing."""
        found = self.columns.get(name)
        if found is None:
            found = _default(self.table.column(name), self.length)
        assert not isinstance(found, DictColumn), name
        return found

    def dictionary(self, name: str) -> DictColumn:
        """A text or labels column, its default filled in when missing."""
        found = self.columns.get(name)
        if found is None:
            found = _default(self.table.column(name), self.length)
        assert isinstance(found, DictColumn), name
        return found

    def take(self, rows: Array) -> Self:
        """The rows that an index or a boolean mask selects, as a new batch."""
        columns = {
            name: column.take(rows) if isinstance(column, DictColumn) else column[rows]
            for name, column in self.columns.items()
        }
        length = int(np.count_nonzero(rows)) if rows.dtype == np.bool_ else len(rows)
        return type(self)(length, columns)

    def rows(self, *, all_columns: bool = False) -> Iterator[dict[str, Any]]:
        """One JSON-ready dict per row (times ISO 8601, addresses and MACs as text).

        Only columns that are present, unless ``all_columns``. For people and tests, not speed.
        """
        columns = [c for c in self.table.columns if all_columns or c.name in self.columns]
        cells = [_texts(column, self) for column in columns]
        names = [column.name for column in columns]
        for row in zip(*cells, strict=True) if cells else ():
            yield dict(zip(names, row, strict=True))


@dataclass(slots=True)
class DnsBatch(Batch):
    """DNS queries."""

    table = DNS_QUERIES


@dataclass(slots=True)
class FlowBatch(Batch):
    """Flows."""

    table = FLOWS

    def to_arrow(self) -> pa.RecordBatch:
        """All columns, missing ones filled, in the order of :data:`ARROW_SCHEMA`."""
        return pa.RecordBatch.from_arrays(
            [_to_arrow(c, self.columns.get(c.name), self.length) for c in COLUMNS],
            schema=ARROW_SCHEMA,
        )


def concat(batches: Sequence[FlowBatch]) -> FlowBatch:
    """One batch of all rows in order; a column that any of them has is in the result."""
    if len(batches) == 1:
        return batches[0]
    length = sum(map(len, batches))
    present = {name for batch in batches for name in batch.columns}
    columns: dict[str, Array | DictColumn] = {}
    for column in COLUMNS:
        if column.name not in present:
            continue
        if column.kind in _DICT_KINDS:
            columns[column.name] = _concat_dicts([b.dictionary(column.name) for b in batches])
        else:
            columns[column.name] = np.concatenate([b.array(column.name) for b in batches])
    return FlowBatch(length, columns)


def _concat_dicts(parts: Sequence[DictColumn]) -> DictColumn:
    index: dict[Any, int] = {}
    codes = []
    for part in parts:
        mapping = np.fromiter(
            (index.setdefault(v, len(index)) for v in part.values), np.uint32, len(part.values)
        )
        codes.append(mapping[part.codes])
    return DictColumn(np.concatenate(codes), list(index))


def _default(column: Column, length: int) -> Array | DictColumn:
    if column.kind in _DICT_KINDS:
        return DictColumn.constant(() if column.kind in _LIST_KINDS else "", length)
    shape = (length, 16) if column.kind is Kind.ADDRESS else (length,)
    return np.zeros(shape, DTYPES[column.kind])


def _to_arrow(column: Column, values: Array | DictColumn | None, length: int) -> pa.Array:
    if values is None:
        values = _default(column, length)
    target = _ARROW[column.kind]
    if isinstance(values, DictColumn):
        if column.kind is Kind.LABELS:
            return pa.array([values.values[code] for code in values.codes], type=target)
        indices = pa.array(values.codes, type=pa.uint32())
        return pa.DictionaryArray.from_arrays(indices, pa.array(values.values, type=pa.string()))
    if column.kind is Kind.ADDRESS:
        data = pa.py_buffer(np.ascontiguousarray(values))
        return pa.Array.from_buffers(target, length, [None, data])
    return pa.array(values).cast(target)


def format_address(packed: bytes) -> str:
    """16 bytes as text; a mapped IPv4 address in dotted form."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def format_time(milliseconds: int) -> str:
    """Milliseconds since the epoch as ``2026-01-31T23:59:59.999Z``."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def format_mac(value: int) -> str:
    """The low 48 bits as ``aa:bb:cc:dd:ee:ff``."""
    return value.to_bytes(8, "big")[2:].hex(":")


def _texts(column: Column, batch: Batch) -> list[Any]:
    if column.kind in _DICT_KINDS:
        dictionary = batch.dictionary(column.name)
        values = dictionary.values
        if column.kind is Kind.ADDRESSES:
            values = [[format_address(packed) for packed in items] for items in values]
        elif column.kind is Kind.LABELS:
            values = [list(items) for items in values]
        return [values[code] for code in dictionary.codes]
    array = batch.array(column.name)
    if column.kind is Kind.ADDRESS:
        return [format_address(row.tobytes()) for row in array]
    if column.kind is Kind.MAC:
        return [format_mac(value) for value in array.tolist()]
    if column.kind is Kind.TIME:
        return [format_time(value) for value in array.tolist()]
    if column.enum is not None:
        names = {member.value: member.name.lower() for member in column.enum}
        return [names[value] for value in array.tolist()]
    texts: list[Any] = array.tolist()
    return texts
