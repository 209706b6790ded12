"""Which flows are looked at: all, few, drawn ones that stand for all, or, of long ago, rollups.

The store draws flows by size when it takes them (``weight`` and ``drawn`` of table ``flows``) and
keeps them together, so a twelfth or so of a range is read. A sum of their values times their
weights is an estimate without bias; different values cannot be counted of them.

Flows are kept for days, rollups for months: of a range whose flows are gone these tell, as far as
they can.

What is looked at is asked by a query of its own, before the others: a scalar subquery would
be analysed anew wherever they use what it says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from exporter.explore.expressions import TIME
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
#: The same where flows of the range are gone, and where what is left has hours only.
ROLLUPS: Final = "rollups"
HOURLY_ROLLUPS: Final = "rollups by hour"
#: Follows any of them, and is followed by a time (UTC), where flows of the range are gone.
NO_FLOWS_BEFORE: Final = ", no flows before "

#: Rollups tell of so many hours before the first reception: a flow is told after it ended, by up to
#: six hours, and lasted for one (migration 0002).
_TOLD_LATE: Final = 8

#: The constant of a query that says whether drawn flows stand for all.
ESTIMATED: Final = "estimated"
#: That so few flows match that they fit into memory.
FEW: Final = "are_few"
#: What a flow's amounts count for.
WEIGHT: Final = f"if({ESTIMATED}, weight, 1)"
#: Whether a flow is looked at.
LOOKED_AT: Final = f"(NOT {ESTIMATED} OR drawn)"


def looked_at_query(question: Question, only_if: str = "1") -> str:
    """``looked_at``: which flows to answer the question by.

    Where the range is long: few ones, all of them, where not enough drawn ones match; else drawn
    ones where ``only_if``, a constant condition, holds and sums are asked for. Where a rollup
    answers none are counted.

    Flows of the range are gone where a rollup has hours of it that the flows do not reach, unless
    flows are only just coming in. The oldest time of a table is known without reading it: it is
    partitioned by it. That of no flows is the present.
    """
    # Grafana tells queries of variables no length of buckets; rollups want whole minutes.
    question = in_hours(replace(question, estimated="", step="60", beyond="1", hourly=""))
    hours = ["oldest_hour < toStartOfHour(oldest_minute)"]
    begins = "range_start - shift" if question.compare else "range_start"
    answers = []
    if question.rollup_if:
        answers.append("from_rollup")
    if question.asked_step:
        answers.append("by_hour")
        hours.append("by_hour")
    is_answered = f"({' OR '.join(answers) or '0'})"
    return f"""\
WITH
{question.constants_list()},
  (SELECT if(count() = 0, now(), toDateTime(min({TIME}))) FROM flows) AS oldest,
  (SELECT if(count() = 0, now(), min(time)) FROM flows_1m) AS oldest_minute,
  (SELECT min(time) < subtractHours(oldest, {_TOLD_LATE}) FROM flows_1h) AS are_gone,
  (
    SELECT toNullable(time) FROM flows_1h
    WHERE are_gone
      AND time >= toStartOfHour({begins}) AND time < least(range_end, toStartOfHour(oldest))
    ORDER BY time LIMIT 1
  ) AS oldest_hour,
  (isNotNull(oldest_hour) AND {is_answered}) AS are_rolled_up,
  ({is_long(question)} AND NOT {is_answered}) AS are_counted
SELECT concat(
  multiIf(are_rolled_up AND ({" OR ".join(hours)}), '{HOURLY_ROLLUPS}',
    are_rolled_up, '{ROLLUPS}', NOT are_counted, '{ALL_FLOWS}', count() < {ENOUGH}, '{FEW_FLOWS}',
    {only_if} AND NOT {question.counts}, '{DRAWN_FLOWS}', '{ALL_FLOWS}'),
  if(isNotNull(oldest_hour) OR range_end <= oldest AND oldest < subtractMinutes(now(), 1),
    concat('{NO_FLOWS_BEFORE}', formatDateTime(oldest, '%F %H:%i', 'UTC')), '')) AS looked_at
FROM (
  SELECT 1
  {question.filtered_flows("1", ["are_counted", "drawn"])}
  LIMIT {ENOUGH}
)
{question.settings}"""
