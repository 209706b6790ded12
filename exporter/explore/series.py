"""The keys of a question over time."""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.hours import in_hours
from exporter.explore.keys import display, key_name, ranked_flows, second_display
from exporter.explore.question import Question


def series_query(question: Question) -> str:
    """``time``, ``series``, ``Value``: the top keys and ``Other``, every bucket of each.

    Where an earlier range is asked for, the same keys in it too, at the present times: ``series``
    of these ends with ``, earlier``.
    """
    question = in_hours(question)
    value = f"{question.total} / {question.divisor(question.bucket_seconds)}"
    kept = (
        "is_top" if question.keys else "NOT from_states OR is_top" if question.asked_step else "1"
    )
    return f"""\
WITH
{question.constants_list()},
{question.keyed_flows()}
SELECT time, concat(series, if(is_earlier, ', earlier', '')) AS series, Value FROM (
  SELECT time, is_earlier, {question.shared("total", "is_earlier, time")} AS Value,
    max(any_name) OVER (PARTITION BY is_top, top_1, top_2) AS name,
    if(is_top, arrayStringConcat(arrayFilter(part -> part != '', [
      {display("top_1", question.dimension)},
      {second_display("top_2", question.dimension_2)},
      {key_name("name", "top_1", question.dimension)}]), ' '), 'Other') AS series
  FROM (
    SELECT bucket AS time, is_earlier, is_top, top_1, top_2, max(name) AS any_name,
      {value} AS total
    FROM (
{ranked_flows(question)}
    )
    GROUP BY bucket, is_earlier, is_top, top_1, top_2
    ORDER BY is_earlier, is_top, top_1, top_2, time
      WITH FILL FROM range_start TO range_end STEP {question.step}
  )
  WHERE {kept}
)
ORDER BY time, series
{question.settings}"""


def absent_series_query(question: Question) -> str:
    """The same of pinned keys without any flow in the range: lines of zeros."""
    question = in_hours(replace(question, compare=""))
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
