"""When a rollup can answer a question, and how its rows stand for flows.

Rollups spread a long flow over the minutes that it covered, flows count where they were received:
over a few hours that would show, over half a day it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.explore.columns import (
    COUNTED,
    DIMENSIONS,
    MEASURES,
    NAMES,
    NO_DIMENSION,
    ROLLUP_COLUMNS,
)
from exporter.explore.expressions import TIME, quote
from exporter.schema import BY_NAME

if TYPE_CHECKING:
    from exporter.explore.question import Question

#: Length of a range from which rollups are read.
ROLLUP_SECONDS: Final = 12 * 3600


@dataclass(frozen=True)
class Rollup:
    """A table, and the lengths of buckets that it serves: multiples of ``seconds`` but not of
    ``coarser``, which another one serves."""

    table: str
    seconds: int
    coarser: int = 0

    def condition(self, question: Question) -> str:
        """Whether it is the one for the question's buckets; constant."""
        condition = f"{question.step} % {self.seconds} = 0"
        return condition + (f" AND {question.step} % {self.coarser} != 0" if self.coarser else "")


ROLLUPS: Final = (Rollup("flows_1m", 60, coarser=3600), Rollup("flows_1h", 3600))


def answerable(question: Question, *, grouped: bool = True) -> str:
    """Whether some rollup tells the same: a constant expression.

    Not ``grouped``: without dimensions and measure.
    """
    dimensions = ", ".join(map(quote, (*ROLLUP_COLUMNS, NO_DIMENSION)))
    rates = ", ".join(quote(measure.name) for measure in MEASURES if measure.per_second)
    told = (
        f"dateDiff('second', {question.start}, {question.end}) >= {ROLLUP_SECONDS}"
        f" AND {question.step} % 60 = 0 AND address_kind = 'any'"
    )
    if not grouped:
        return told
    return (
        f"{told} AND {question.dimension} IN ({dimensions})"
        f" AND {question.dimension_2} IN ({dimensions})"
        f" AND {question.measure} IN ({rates})"
    )


def rows_as_flows(table: str) -> str:
    """``SELECT … FROM`` a rollup with the columns that questions use of flows.

    Those that it has not are empty; a question that uses them is not answered by it.
    """
    wanted = dict.fromkeys([name for _, name in DIMENSIONS] + [*COUNTED, *NAMES.values()])
    columns = [
        name
        if name in ROLLUP_COLUMNS
        else f"defaultValueOfTypeName({quote(BY_NAME[name].clickhouse_type)}) AS {name}"
        for name in wanted
    ]
    return f"""\
        SELECT time AS {TIME}, bytes, packets, flows, '' AS {NO_DIMENSION},
          {", ".join(columns)}
        FROM {table}"""
