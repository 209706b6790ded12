"""When drawn flows stand for all, where all that match are too many to look at.

The store draws flows by size when it takes them (``weight`` and ``drawn`` of table ``flows``) and
keeps them together, so a twelfth or so of a range is read. A sum of their values times their
weights is an estimate without bias; different values cannot be counted of them.

Whether enough are drawn is asked by a query of its own, before the others: a scalar subquery would
be analysed anew wherever they use what it says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from exporter.explore.hours import in_hours
from exporter.explore.rollups import is_long

if TYPE_CHECKING:
    from exporter.explore.question import Question

#: So many drawn flows that match are enough to stand for all: of over a million, usually.
ENOUGH: Final = 100_000
#: What :func:`looked_at_query` answers.
DRAWN_FLOWS: Final = "drawn flows"
ALL_FLOWS: Final = "all flows"

#: The constant of a query that says whether drawn flows stand for all.
ESTIMATED: Final = "estimated"
#: What a flow's amounts count for.
WEIGHT: Final = f"if({ESTIMATED}, weight, 1)"
#: Whether a flow is looked at.
LOOKED_AT: Final = f"(NOT {ESTIMATED} OR drawn)"


def looked_at_query(question: Question, only_if: str = "1") -> str:
    """``looked_at``: which flows to answer the question by.

    Drawn ones where ``only_if``, a constant condition, holds, the range is long, no rollup answers,
    and enough of them match.
    """
    # Grafana tells queries of variables no length of buckets; rollups want whole minutes.
    question = in_hours(replace(question, estimated="", step="60"))
    held = [only_if, is_long(question), f"NOT {question.counts}"]
    if question.rollup_if:
        held.append("NOT from_rollup")
    if question.asked_step:
        held.append("NOT by_hour")
    return f"""\
WITH
{question.constants_list()}
SELECT if(count() = {ENOUGH}, '{DRAWN_FLOWS}', '{ALL_FLOWS}') AS looked_at
FROM (
  SELECT 1
  {question.filtered_flows("1", [f"({' AND '.join(held)})", "drawn"])}
  LIMIT {ENOUGH}
)
{question.settings}"""
