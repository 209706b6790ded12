"""Errors as ClickHouse tells them: a number, a name and a text, and an HTTP status for each."""

from __future__ import annotations

import re
from typing import Final

_SHAPE: Final = re.compile(r"Code: (\d+)\. DB::Exception: ")
_NAME: Final = re.compile(r"\(([A-Z][A-Z0-9_]+)\)$")
# The engine's client layer wraps an error's text in the same again, and tells its version.
_WRAPPED_HEAD: Final = re.compile(r"(Code: \d+\. DB::Exception: )\1")
_WRAPPED_TAIL: Final = re.compile(r"(\([A-Z][A-Z0-9_]+\)) \(version [^)]*\)(?:\. \1)?\s*$")

#: HTTP status by error code, as ClickHouse's HTTP handler maps them; everything else is 500.
_STATUS: Final = {
    **dict.fromkeys(
        (6, 7, 9, 25, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 69, 70, 72, 73, 89, 117, 131, 135,
         271, 456, 457),
        400,
    ),
    194: 401,
    **dict.fromkeys((164, 192, 193, 497, 516), 403),
    **dict.fromkeys((8, 16, 46, 47, 50, 56, 60, 81, 115), 404),
    **dict.fromkeys((159, 160), 408),
    381: 411,
    229: 413,
    48: 501,
    **dict.fromkeys((202, 209, 210), 503),
}  # fmt: skip


class QueryError(Exception):
    """A statement that failed. ``str()`` is the text that goes to the client."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message} ({name})")
        self.code = code
        self.name = name

    @property
    def status(self) -> int:
        """The HTTP status to answer with."""
        return _STATUS.get(self.code, 500)


class EngineError(QueryError):
    """What the engine said, with its number and text."""

    def __init__(self, text: str) -> None:
        text = _WRAPPED_TAIL.sub(r"\1", _WRAPPED_HEAD.sub(r"\1", text, count=1)).rstrip()
        found = _SHAPE.match(text)
        name = _NAME.search(text)
        code = int(found.group(1)) if found else 1002
        Exception.__init__(self, text if found else f"Code: 1002. DB::Exception: {text}")
        self.code = code
        self.name = name.group(1) if name else "UNKNOWN_EXCEPTION"
