"""What a question leaves open, or what it knows of it.

A person chooses in Grafana when the text of a query is long written; on the command line all is
known. Either way ClickHouse sees constants: it folds conditions on them away, reads only the
columns that remain, and uses its indexes. What is known makes a shorter query, which counts: each
kilobyte takes some milliseconds to be parsed and analysed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exporter.explore.columns import (
    DIMENSIONS,
    EXPRESSIONS,
    HOST_COLUMNS,
    MEASURES,
    NAMES,
    NETWORK_COLUMNS,
    NO_DIMENSION,
    ROLLUP_COLUMNS,
)
from exporter.explore.expressions import quote
from exporter.schema import BY_NAME


@dataclass(frozen=True)
class Choice:
    """One of several names: ``text`` is it as a constant String, ``known`` the same if known.

    ``column`` is what it stands for in the flows, and ``rollup_column`` in the rollups: empty
    where they cannot tell.
    """

    text: str
    known: str = ""
    column: str = "''"
    rollup_column: str = ""

    def holds(self, condition: str, known: bool) -> str:
        """``condition`` over the name, ``{}``; just 0 or 1 where that is ``known``."""
        return str(int(known)) if self.known else condition.format(self.text)

    def is_one_of(self, names: Sequence[str]) -> str:
        """Whether it is one of ``names``: constant."""
        return self.holds(f"{{}} IN ({', '.join(map(quote, names))})", self.known in names)

    def ends_with(self, end: str) -> str:
        """Whether the name ends so: constant."""
        return self.holds(f"endsWith({{}}, {quote(end)})", self.known.endswith(end))


@dataclass(frozen=True)
class Dimension(Choice):
    """A column to group by; ``name`` is the column that tells more about it.

    ``hour_column`` is what it stands for in the rollups by host and by network.
    """

    name: str = "''"
    rollup_name: str = "''"
    hour_column: str = ""


#: The key where there is no dimension: a number, as one beside a text is dear to group by.
NO_KEY: Final = "toUInt8(0)"

_HOUR_COLUMNS: Final = (
    *NETWORK_COLUMNS,
    *(f"{side}_{name}" for side in ("src", "dst") for name in HOST_COLUMNS),
)


def by(name: str) -> Dimension:
    """The dimension that is known to be this column, or to be none."""
    if name == NO_DIMENSION:
        return Dimension(quote(name), name, NO_KEY, NO_KEY, hour_column=NO_KEY)
    told = NAMES.get(name, "''")
    if name not in ROLLUP_COLUMNS:
        hourly = name if name in _HOUR_COLUMNS else ""
        return Dimension(quote(name), name, name, name=told, hour_column=hourly)
    rolled = told if told in ROLLUP_COLUMNS else "''"
    return Dimension(quote(name), name, EXPRESSIONS.get(name, name), name, told, rolled)


def measuring(name: str) -> Choice:
    """The measure that is known to be this one."""
    measure = next(measure for measure in MEASURES if measure.name == name)
    rolled = measure.rollup_amount
    if measure.distinct:  # counted by states, in whose rows this is of no account
        rolled = f"defaultValueOfTypeName('{BY_NAME[measure.amount].clickhouse_type}')"
    return Choice(quote(name), name, measure.amount, rolled)


def open_dimension(text: str, pattern: str, *, optional: bool = False) -> Dimension:
    """A dimension that ``text`` will tell, and so will ``pattern``, inside a regular expression.

    One that is ``optional`` may be none; any other that is no column makes the query fail.
    """
    found = f"COLUMNS('^{pattern}$')"
    name = f"tuple(COLUMNS('^{pattern}_name$'), '').1"
    # What no column is called, none is: the key that stands for none.
    otherwise = "UInt8" if optional else _TEXT
    return Dimension(
        text,
        column=f"tuple({found}, {NO_KEY}).1" if optional else f"identity({found})",
        rollup_column=f"tuple({found}, {_value_of_type(text, _TYPES, otherwise)}).1",
        name=name,
        rollup_name=name,
        hour_column=f"tuple({found}, {_value_of_type(text, _OTHER_TYPES, otherwise)}).1",
    )


def open_measure(text: str, pattern: str) -> Choice:
    """The same of a measure; another name than those of measures stands for the first of them."""
    found = f"COLUMNS('^{pattern}$')"
    missing = _value_of_type(text, _AMOUNTS, "UInt64")
    return Choice(
        text, column=f"tuple({found}, bytes).1", rollup_column=f"tuple({found}, {missing}).1"
    )


_TEXT: Final = "LowCardinality(String)"


def _types(columns: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by the type that a column of the rollup needs, to stand for a column of the flows."""
    found: dict[str, list[str]] = {}
    for name, column in columns:
        kind = BY_NAME[column].clickhouse_type
        if kind.startswith("UInt"):
            kind = "UInt8"  # becomes a larger one beside it
        found.setdefault(kind, []).append(name)
    return found


def _types_without(columns: Sequence[str]) -> dict[str, list[str]]:
    return _types([(name, name) for _, name in DIMENSIONS if name not in columns])


_TYPES: Final = _types_without(ROLLUP_COLUMNS)
_OTHER_TYPES: Final = _types_without(_HOUR_COLUMNS)
_AMOUNTS: Final = _types([(m.name, m.amount) for m in MEASURES if m.distinct])


def _value_of_type(text: str, types: dict[str, list[str]], otherwise: str) -> str:
    cases = ", ".join(
        f"{text} IN ({', '.join(map(quote, names))}), {quote(kind)}"
        for kind, names in types.items()
        if kind != otherwise
    )
    return f"defaultValueOfTypeName(multiIf({cases}, {quote(otherwise)}))"
