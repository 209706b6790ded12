"""One insert: its bytes, its token, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from clickhouse_connect.driver.client import Client

from exporter.batch import DTYPES, Array, Batch, FlowBatch
from exporter.config import ClickHouse
from exporter.schema import Column, Kind
from exporter.store.client import StoreError, explain
from exporter.store.draw import drawn_weights
from exporter.store.native import Buffer, native_parts, present_columns
from exporter.store.order import storage_order
from exporter.store.render import LOCAL, local_name

#: ClickHouse's errors (ErrorCodes.cpp) that blame the rows: no retry can help.
REFUSALS: Final = {
    6: "cannot_parse_text",
    8: "there_is_no_column",
    10: "not_found_column_in_block",
    16: "no_such_column_in_table",
    20: "number_of_columns_doesnt_match",
    27: "cannot_parse_input_assertion_failed",
    33: "cannot_read_all_data",
    43: "illegal_type_of_argument",
    44: "illegal_column",
    47: "unknown_identifier",
    50: "unknown_type",
    53: "type_mismatch",
    62: "syntax_error",
    69: "argument_out_of_bound",
    70: "cannot_convert_type",
    117: "incorrect_data",
    128: "too_large_array_size",
    131: "too_large_string_size",
    469: "violated_constraint",
    691: "unknown_element_of_enum",
}

_SETTINGS: Final = {
    # A batch is as large as it should be already, and only a synchronous insert is acknowledged
    # when it is stored and honours the token.
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # The views group what they insert: looking for equal keys again costs a third of them.
    "optimize_on_insert": 0,
    # Errors come with their own status rather than after an early "200 OK".
    "wait_end_of_query": 1,
    "send_progress_in_http_headers": 0,
    # Replayed captures may span many days.
    "throw_on_max_partitions_per_insert_block": 0,
}


#: Bytes in which a statement has named its table.
_LONGEST_HEAD: Final = 100

#: An insert of so many flows is a slot of its own: merging it with others then moves whole blocks
#: of rows, where rows of one slot are merged one by one (docs/explanation/storage.md, "Order").
OWN_SLOT_ROWS: Final = 100_000
#: Unless its flows came within longer than this, the length of usual slots: a replay's do.
_SLOT_MILLISECONDS: Final = 300_000
_SLOT: Final = Column("slot", Kind.TIME, "Slot within which flows lie in order.")
_DRAW: Final = Column("draw", Kind.UINT8, "Weight of a drawn flow.")


@dataclass(frozen=True, slots=True)
class Insert:
    """A statement and its block in the Native format, as they are sent.

    ClickHouse takes inserts of one ``token`` once, each table on its own.
    """

    token: str
    rows: int
    body: Buffer

    @property
    def table(self) -> str:
        """The table that its statement names; on a cluster by its public name."""
        words = bytes(self.body[:_LONGEST_HEAD]).split(maxsplit=3)
        return words[2].decode("utf-8", "replace").removesuffix(LOCAL) if len(words) > 2 else ""

    def send(self, client: Client) -> None:
        """Insert it; raises what the driver raises."""
        client.raw_insert(
            "",
            # The HTTP library sends any buffer as it is, which the driver's types do not say.
            insert_block=cast("bytes", self.body),
            settings={**_SETTINGS, "insert_deduplication_token": self.token},
        )


class Encoding:
    """Makes inserts, one after the other in the same memory: making one ends the one before.

    Tens of megabytes of fresh memory for each would cost as much as filling them.
    """

    def __init__(self, table: str = "flows") -> None:
        self._table = table
        self._buffer = bytearray()
        self._random = np.random.default_rng()

    def encode(self, batches: Sequence[Batch], token: str) -> Insert:
        """All rows of the batches as one insert into the table."""
        columns = present_columns(batches)
        flows = [batch for batch in batches if isinstance(batch, FlowBatch) and len(batch)]
        rows = sum(map(len, batches))
        order = None
        placing: list[tuple[Column, Array]] = []
        if flows:
            weights = drawn_weights(flows, self._random)
            order = storage_order(flows, weights > 0)
            placing.append((_DRAW, weights[order]))
            slot = _own_slot(flows)
            if slot is not None:
                placing.append((_SLOT, np.full(rows, slot)))
        names = ", ".join(column.name for column in (*(c for c, _ in placing), *columns))
        statement = f"INSERT INTO {self._table} ({names}) FORMAT Native\n".encode()
        self._reserve(rows * sum(map(_width, columns)))
        end = self._put(statement, 0)
        for part in native_parts(batches, columns, placing, order):
            end = self._put(part, end)
        return Insert(token, rows, memoryview(self._buffer)[:end])

    def _reserve(self, size: int) -> None:
        if size > len(self._buffer):
            self._buffer = bytearray(size)

    def _put(self, part: Buffer, begin: int) -> int:
        """Copies into the buffer, which may become a larger one; returns where the copy ends."""
        end = begin + len(part)
        if end > len(self._buffer):
            grown = bytearray(end + end // 4)
            grown[:begin] = memoryview(self._buffer)[:begin]
            self._buffer = grown
        memoryview(self._buffer)[begin:end] = part
        return end

    def free(self) -> None:
        """Let go of the memory until it is needed again."""
        self._buffer = bytearray()


class Encodings:
    """One thread's encoding of each table."""

    def __init__(self) -> None:
        self._by_table: dict[str, Encoding] = {}

    def of(self, table: str) -> Encoding:
        """That of a table; its insert before ends."""
        return self._by_table.setdefault(table, Encoding(table))

    def free(self) -> None:
        """Let go of the memory until it is needed again."""
        self._by_table.clear()


def _width(column: Column) -> int:
    """Bytes that a value takes, more or less: codes of texts take one to four, texts any."""
    if column.kind is Kind.ADDRESS:
        return 16
    return DTYPES[column.kind].itemsize if column.kind in DTYPES else 4


def _own_slot(batches: Sequence[FlowBatch]) -> int | None:
    """The slot of an insert of flows that is to lie together; ``None``: the usual one."""
    if sum(map(len, batches)) < OWN_SLOT_ROWS:
        return None
    times = [batch.array("time_received") for batch in batches]
    first, last = (int(f(g(part) for part in times)) for f, g in ((min, np.min), (max, np.max)))
    return first if last - first < _SLOT_MILLISECONDS else None


def refused_insert(client: Client, settings: ClickHouse) -> StoreError | None:
    """Why flows cannot be inserted, found by an insert of none."""
    table = local_name("flows", settings.cluster)
    try:
        client.command(f"INSERT INTO {table} (time_received) SELECT now() WHERE 0")
    except Exception as error:  # the driver raises what its HTTP library does, too
        return explain(error, settings)
    return None


def failure_reason(failure: StoreError) -> str:
    """A word for metrics: ClickHouse's name of the error, or what comes nearest."""
    if failure.code in REFUSALS:
        return REFUSALS[failure.code]
    if failure.name:
        return failure.name.lower()
    return "unreachable" if failure.code is None else f"code_{failure.code}"
