"""The keys of a question over time."""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.drawn import FEW
from exporter.explore.hours import in_hours
from exporter.explore.keys import display, key_name, ranked_flows, second_display
from exporter.explore.question import Question


def series_query(question: Question) -> str:
    """``time``, ``series``, ``Value``: the top keys and ``Other``, every bucket of each.

    Where an earlier range is asked for, the same keys in it too, at the present times: ``series``
    of these ends with ``, earlier``.

    Where nothing filters, names and keys over time are read of the top keys' flows only: Other is
    what they leave of all.
    """
    question = in_hours(question)
    per_bucket = question.divisor(question.bucket_seconds)
    kept = "is_top" if question.keys else "1"
    together = _together(question)
    # Of states Other is none: they are those of some hosts only.
    summed = f"is_top OR {'NOT from_states AND ' if question.asked_step else ''}{together}"
    # Alone a key needs the others only to be a share of all.
    with_others = question.is_share if question.keys else "1"
    return f"""\
WITH
{question.constants_list(ranked=True)},
{question.keyed_flows()}
SELECT time, concat(series, if(is_earlier, ', earlier', '')) AS series, Value FROM (
  SELECT time, is_earlier, {question.shared("total", "is_earlier, time")} AS Value,
    max(any_name) OVER (PARTITION BY is_top, top_1, top_2) AS name,
    is_top OR max(total) OVER (PARTITION BY is_top, top_1, top_2) > 0 AS is_shown,
    if(is_top, arrayStringConcat(arrayFilter(part -> part != '', [
      {display("top_1", question.dimension)},
      {second_display("top_2", question.dimension_2)},
      {key_name("name", "top_1", question.dimension)}]), ' '), 'Other') AS series
  FROM (
    SELECT bucket AS time, is_earlier, is_top, top_1, top_2, any_name,
      if(is_top OR {together}, found, greatest(0, found
        - sumIf(found, is_top) OVER (PARTITION BY is_earlier, bucket))) / {per_bucket} AS total
    FROM (
      SELECT bucket, is_earlier, is_top, top_1, top_2, max(name) AS any_name,
        {question.total} AS found
      FROM (
{ranked_flows(question)}
      )
      WHERE {summed}
      GROUP BY bucket, is_earlier, is_top, top_1, top_2
      UNION ALL
      SELECT bucket, is_earlier, toUInt8(0), defaultValueOfArgumentType(any(key_1)),
        defaultValueOfArgumentType(any(key_2)), '', {question.total} AS found
      FROM (SELECT *, {question.is_earlier} AS is_earlier, {question.bucket} AS bucket FROM flow)
      WHERE {with_others} AND NOT {together}
      GROUP BY bucket, is_earlier
    )
    ORDER BY is_earlier, is_top, top_1, top_2, time
      WITH FILL FROM range_start TO range_end STEP {question.step}
  )
  WHERE {kept}
)
WHERE is_shown
ORDER BY time, series
{question.settings}"""


def _together(question: Question) -> str:
    """Whether Other is summed beside the top keys rather than subtracted: constant.

    Different values do not subtract, and to look twice for what matches a filter costs more.
    """
    unfiltered = question.rollup_if or "0"
    if question.address:
        unfiltered += f" AND trim({question.address}) = ''"
    few = f" OR {FEW}" if question.few else ""
    return f"({question.counts}{few} OR NOT ({unfiltered}))"


def absent_series_query(question: Question) -> str:
    """The same of pinned keys without any flow in the range, drawn or not: lines of zeros."""
    question = in_hours(replace(question, compare="", estimated=""))
    pins = question.pins
    guard = f"notEmpty({pins})"
    guarded = replace(
        question, only_if=f"{question.only_if} AND {guard}" if question.only_if else guard
    )
    return f"""\
WITH
{guarded.constants_list()},
{guarded.keyed_flows()}
SELECT range_start + {question.step} * number AS time, pin AS series, toFloat64(0) AS Value
FROM (SELECT arrayJoin({pins}) AS pin)
ARRAY JOIN range(toUInt64({question.buckets})) AS number
WHERE pin NOT IN (SELECT {display("key_1", question.dimension)} FROM flow GROUP BY key_1)
ORDER BY time, series
{question.settings}"""
