"""The closing SETTINGS clause of a query, which the store reads itself for a read-only user."""

from __future__ import annotations

import pytest

from exporter.store.server.clauses import split_settings, strings


@pytest.mark.parametrize(
    ("query", "rest", "settings"),
    [
        ("SELECT 1", "SELECT 1", {}),
        ("SELECT settings FROM t", "SELECT settings FROM t", {}),
        ("SELECT 'x SETTINGS a=1'", "SELECT 'x SETTINGS a=1'", {}),
        ("SELECT 1 SETTINGS a = 1, b='x\\'y' FORMAT JSON", "SELECT 1  FORMAT JSON",
         {"a": "1", "b": "x'y"}),
        ("SELECT 1 settings f={'t': 'a = \\'1\\''}", "SELECT 1 ",
         {"f": "{'t': 'a = \\'1\\''}"}),
        ("SELECT 1 SETTINGS f={}", "SELECT 1 ", {"f": "{}"}),
        ("SELECT * FROM (SELECT 1 SETTINGS x=1) SETTINGS y = [1, 2];",
         "SELECT * FROM (SELECT 1 SETTINGS x=1) ;", {"y": "[1, 2]"}),
    ],
)  # fmt: skip
def test_the_last_clause_is_taken_off(query: str, rest: str, settings: dict[str, str]) -> None:
    assert split_settings(query) == (rest, settings)


def test_strings_are_read_as_the_engine_reads_them() -> None:
    assert strings(r"{'t': '\x66ile(\'a\')', 'u': 'it''s'}") == ["t", "file('a')", "u", "it's"]
