"""When the flows that are drawn answer a question themselves.

Even to read a few columns of all flows of a day once takes seconds. So where a range has very many
and no rollup answers, what is shown is an estimate from about ``DRAWN`` flows, unless exact answers
are asked for: each counts for as many as it was drawn for, and one that is larger than the
threshold for itself (see :mod:`exporter.explore.candidates`). What has a share ``s`` of the
total is off by about ``1 / sqrt(s * DRAWN)`` of itself: 0.5 % for a key with one hundredth of a
range, 8 % for it in one of 288 buckets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exporter.explore.question import Question

#: Ranges with more flows have estimates; the hours that begin in them tell.
ESTIMATED_FROM: Final = 25_000_000
#: Flows that are drawn for an estimate, about.
DRAWN: Final = 1 << 22


def estimated(question: Question) -> str:
    """``estimated``, for WITH, where rollups that may answer are known: a constant."""
    held = [f"({question.estimate_if})"]
    held += ["NOT by_hour"] * bool(question.asked_step)
    held += ["NOT from_rollup"] * bool(question.rollup_if)
    return f"""\
toUInt8(ifNull((
    SELECT sum(flows) > {ESTIMATED_FROM} FROM flows_1h
    WHERE {" AND ".join(held)} AND {question.in_ranges("time")}
  ), 0)) AS estimated"""


def only_if(question: Question, condition: str) -> str:
    """``only_if`` of a question whose flows are read where the constant ``condition`` holds."""
    if not question.estimate_if:
        return question.only_if
    return f"({question.only_if or 1}) AND {condition}"
