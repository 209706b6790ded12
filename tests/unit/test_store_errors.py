"""The engine's errors keep their number and name, however they are wrapped."""

from __future__ import annotations

import pytest

from exporter.store.server.errors import EngineError


@pytest.mark.parametrize(
    ("text", "code", "name", "told"),
    [
        ("Code: 60. DB::Exception: No table t. (UNKNOWN_TABLE)", 60, "UNKNOWN_TABLE",
         "Code: 60. DB::Exception: No table t. (UNKNOWN_TABLE)"),
        ("Code: 27. DB::Exception: Bad. (CANNOT_PARSE) (version 26.9.2.1)", 27, "CANNOT_PARSE",
         "Code: 27. DB::Exception: Bad. (CANNOT_PARSE)"),
        ("Code: 164. DB::Exception: Code: 164. DB::Exception: No. (READONLY) (version 26.9.2.1)."
         " (READONLY)", 164, "READONLY", "Code: 164. DB::Exception: No. (READONLY)"),
        ("Code: 60. DB::Exception: No table `Code: 1. DB::Exception: (X)`. (UNKNOWN_TABLE)", 60,
         "UNKNOWN_TABLE",
         "Code: 60. DB::Exception: No table `Code: 1. DB::Exception: (X)`. (UNKNOWN_TABLE)"),
        ("out of luck", 1002, "UNKNOWN_EXCEPTION", "Code: 1002. DB::Exception: out of luck"),
    ],
)  # fmt: skip
def test_an_error_is_taken_apart(text: str, code: int, name: str, told: str) -> None:
    error = EngineError(text)
    assert (error.code, error.name, str(error)) == (code, name, told)


def test_statuses_are_clickhouse_s() -> None:
    assert EngineError("Code: 60. DB::Exception: x (UNKNOWN_TABLE)").status == 404
    assert EngineError("Code: 9999. DB::Exception: x (ODD)").status == 500
