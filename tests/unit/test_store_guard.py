"""Which statements the embedded store has parsed once more, to look at their trees."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from exporter.store.server import guard
from exporter.store.server.users import READER, User


class Parser:
    """Counts the trees that it is asked for."""

    def __init__(self) -> None:
        self.trees = 0

    def classify(self, _statement: str) -> tuple[str, int]:
        return "READ_ONLY", 1

    def run(
        self, _statement: str, format: str, parameters: Mapping[str, str] | None = None
    ) -> bytes:
        self.trees += 1
        return b""


def trees(statement: str) -> int:
    parser = Parser()
    guard.check(parser, statement, User(READER, ""), {})
    return parser.trees


@pytest.mark.parametrize(
    "statement",
    ["SELECT isNull(a), toIPv6OrNull(b)", "SELECT if(a, NULL, 1)", "SELECT a IN ('null', 'or')",
     "SELECT a WHERE b IS NOT NULL AND c", "SELECT NULL"],
)  # fmt: skip
def test_a_null_that_names_no_function_costs_nothing(statement: str) -> None:
    assert trees(statement) == 0


@pytest.mark.parametrize(
    "name", ["null", "NULL ", "null/**/", "null -- \n", "`null`", '"null" ', "null\0", "null\xa0"]
)
def test_a_null_that_may_name_one_is_looked_at(name: str) -> None:
    assert trees(f"SELECT * FROM {name}('a String')") == 1
