"""When a rollup can answer a question, and how its rows stand for flows.

Rollups spread a long flow over the minutes that it covered, flows count where they were received:
over a few hours that would show, over half a day it does not. Flows are kept for days and rollups
for months, so what is older is read from these, however short the range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.explore.columns import MEASURES, NO_DIMENSION, ROLLUP_COLUMNS
from exporter.explore.expressions import TIME

if TYPE_CHECKING:
    from exporter.explore.question import Question

STATE: Final = "uniqCombinedState(12)"
#: What stands for a state of different addresses where nothing is counted.
NO_STATE: Final = f"initializeAggregation('{STATE}', toUInt64(0))"

#: Length of a range from which rollups are read.
ROLLUP_SECONDS: Final = 12 * 3600


def rollup_table(question: Question) -> str:
    """The rollup that serves the question's buckets, as ``FROM`` takes it: of two one is read.

    Without its states, whose names are those of measures.
    """
    hours = f"{question.step} % 3600 = 0"
    columns = "* EXCEPT (unique_src_addr, unique_dst_addr)"
    return f"""(
          SELECT {columns} FROM flows_1m WHERE NOT {hours}
          UNION ALL
          SELECT {columns} FROM flows_1h WHERE {hours}
        )"""


def is_long(question: Question) -> str:
    """Whether the range is one from which rollups are read: a constant expression."""
    return f"dateDiff('second', {question.start}, {question.end}) >= {ROLLUP_SECONDS}"


def is_rolled_up(question: Question) -> str:
    """Whether rollups are read where they can answer, or flows of the range are gone: constant."""
    return f"({is_long(question)} OR {question.beyond})" if question.beyond else is_long(question)


def long_enough(question: Question) -> list[str]:
    """Conditions of the range and its buckets: constant expressions."""
    return [is_rolled_up(question), f"{question.asked_step or question.step} % 60 = 0"]


def answerable(question: Question, *, grouped: bool = True) -> str:
    """Whether the question may be, and can be, answered by a rollup: a constant expression.

    Not ``grouped``: without dimensions and measure.
    """
    told = [question.rollup_if, *long_enough(question)]
    if question.address:
        told.append(f"trim({question.address}) = ''")
    if grouped:
        columns = (*ROLLUP_COLUMNS, NO_DIMENSION)
        told += [each.is_one_of(columns) for each in (question.dimension, question.dimension_2)]
        told.append(question.measure.is_one_of([m.name for m in MEASURES if m.rollup_amount]))
    return f"({' AND '.join(told)})"


def rollup_rows(question: Question, condition: str) -> str:
    """What a question needs of flows, of a rollup's rows."""
    state = f", {NO_STATE} AS state" if question.asked_step else ""
    amounts = (f"{m.rollup_amount} AS {m.name}" for m in MEASURES if m.rollup_amount)
    return f"""\
SELECT time AS {TIME}, bytes, {question.measure.rollup_column} AS amount,
        {question.dimension.rollup_column} AS key_1, {question.dimension_2.rollup_column} AS key_2,
        toString({question.dimension.rollup_name}) AS name{state}
      FROM (
        SELECT *, {", ".join(amounts)}
        FROM {rollup_table(question)}
        WHERE {condition}
      )"""
