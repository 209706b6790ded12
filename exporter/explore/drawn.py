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
FEW_FLOWS: Final = "few flows"

#: The constant of a query that says whether drawn flows stand for all.
ESTIMATED: Final = "estimated"
#: That so few flows match that they fit into memory.
FEW: Final = "are_few"
#: What a flow's amounts count for.
WEIGHT: Final = f"if({ESTIMATED}, weight, 1)"
#: Whether a flow is looked at.
LOOKED_AT: Final = f"(NOT {ESTIMATED} OR drawn)"


def looked_at_query(question: Question, only_if: str = "1") -> str:
    """``looked_at``: which flows to answer the question by, where the range is long.

    Few ones, all of them, where not enough drawn ones match; else drawn ones where ``only_if``, a
    constant condition, holds and sums are asked for. Where a rollup answers none are counted.
    """
    # Grafana tells queries of variables no length of buckets; rollups want whole minutes.
    question = in_hours(replace(question, estimated="", step="60"))
    held = [is_long(question)]
    if question.rollup_if:
        held.append("NOT from_rollup")
    if question.asked_step:
        held.append("NOT by_hour")
    return f"""\
WITH
{question.constants_list()},
  ({" AND ".join(held)}) AS are_counted
SELECT multiIf(NOT are_counted, '{ALL_FLOWS}', count() < {ENOUGH}, '{FEW_FLOWS}',
  {only_if} AND NOT {question.counts}, '{DRAWN_FLOWS}', '{ALL_FLOWS}') AS looked_at
FROM (
  SELECT 1
  {question.filtered_flows("1", ["are_counted", "drawn"])}
  LIMIT {ENOUGH}
)
{question.settings}"""
