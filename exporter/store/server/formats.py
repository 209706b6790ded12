"""Joins the engine's answer, which comes as one complete document per block, into one document.

The engine formats each block of a streamed result by itself. For formats without head or tail
the blocks simply follow each other; for formats with a head it is taken off all blocks but the
first. Formats that cannot be joined (JSON, Parquet, Pretty, …) are asked for in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

#: Blocks of these simply follow each other.
_PLAIN: Final = frozenset(
    {
        "native", "tabseparated", "tsv", "tabseparatedraw", "tsvraw", "raw", "csv", "tskv",
        "rowbinary", "jsoneachrow", "ndjson", "jsonlines", "jsonstringseachrow",
        "jsoncompacteachrow", "jsoncompactstringseachrow", "lineasstring", "rawblob", "null",
        "msgpack",
    }
)  # fmt: skip

#: Lines of head in formats that repeat them in every block.
_HEAD_LINES: Final = {
    "tabseparatedwithnames": 1, "tsvwithnames": 1, "tabseparatedwithnamesandtypes": 2,
    "tsvwithnamesandtypes": 2, "tabseparatedrawwithnames": 1, "tsvrawwithnames": 1,
    "tabseparatedrawwithnamesandtypes": 2, "tsvrawwithnamesandtypes": 2,
    "jsoncompacteachrowwithnames": 1, "jsoncompacteachrowwithnamesandtypes": 2,
    "jsoncompactstringseachrowwithnames": 1, "jsoncompactstringseachrowwithnamesandtypes": 2,
}  # fmt: skip

_CSV_LINE: Final = re.compile(rb'(?:[^"\n]|"(?:[^"]|"")*")*\n')

_CONTENT_TYPES: Final = (
    (re.compile(r"json.*eachrow|ndjson|jsonlines"), "application/x-ndjson; charset=UTF-8"),
    (re.compile(r"json"), "application/json; charset=UTF-8"),
    (re.compile(r"csv"), "text/csv; charset=UTF-8"),
    (re.compile(r"tab|tsv"), "text/tab-separated-values; charset=UTF-8"),
    (re.compile(r"xml"), "application/xml; charset=UTF-8"),
    (re.compile(r"native|binary|parquet|orc|avro|msgpack|arrow"), "application/octet-stream"),
)

_ARROW_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def content_type(name: str) -> str:
    """The media type that ClickHouse sends with a format."""
    low = name.lower()
    for pattern, media_type in _CONTENT_TYPES:
        if pattern.search(low):
            return media_type
    return "text/plain; charset=UTF-8"


class Joiner:
    """Makes one document of the blocks of a format: ``add`` each, then ``end``."""

    def __init__(self, name: str) -> None:
        low = name.lower()
        self._first = True
        self._arrow = low == "arrowstream"
        self._head = _head(low)

    def add(self, block: bytes) -> bytes:
        if self._arrow:
            block = block.removesuffix(_ARROW_END)
        if not self._first and block and self._head is not None:
            block = block[self._head(block) :]
        self._first = self._first and not block
        return block

    def end(self) -> bytes:
        return _ARROW_END if self._arrow and not self._first else b""


def joinable(name: str) -> bool:
    """Whether results of this format can be streamed."""
    low = name.lower()
    return low in _PLAIN or _head(low) is not None


def _head(low: str) -> Callable[[bytes], int] | None:
    """How to find where the head of a block ends, in formats that have one."""
    if low == "arrowstream":
        return _arrow_head
    if low == "rowbinarywithnames":
        return lambda block: _binary_head(block, 1)
    if low == "rowbinarywithnamesandtypes":
        return lambda block: _binary_head(block, 2)
    if low == "csvwithnames":
        return lambda block: _csv_head(block, 1)
    if low == "csvwithnamesandtypes":
        return lambda block: _csv_head(block, 2)
    if lines := _HEAD_LINES.get(low):
        return lambda block: _line_head(block, lines)
    return None


def _line_head(block: bytes, lines: int) -> int:
    end = 0
    for _ in range(lines):
        end = block.index(b"\n", end) + 1
    return end


def _csv_head(block: bytes, lines: int) -> int:
    end = 0
    for _ in range(lines):
        found = _CSV_LINE.match(block, end)
        end = found.end() if found else len(block)
    return end


def _binary_head(block: bytes, strings_per_column: int) -> int:
    columns, at = _varint(block, 0)
    for _ in range(columns * strings_per_column):
        size, at = _varint(block, at)
        at += size
    return at


def _varint(block: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = block[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _arrow_head(block: bytes) -> int:
    """The schema message: continuation marker, its size, the message; a schema has no body."""
    return 8 + int.from_bytes(block[4:8], "little")
