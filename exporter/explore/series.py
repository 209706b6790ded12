"""The keys of a question over time."""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.candidates import is_of_pinned
from exporter.explore.choices import by
from exporter.explore.columns import NO_DIMENSION
from exporter.explore.hours import in_hours
from exporter.explore.keys import display, key_name, second_display
from exporter.explore.question import Question
from exporter.explore.ranking import all_flows, ranked
from exporter.explore.rollups import ROLLUP_SECONDS


def series_query(question: Question) -> str:
    """``time``, ``series``, ``Value``: the top keys and ``Other``, every bucket of each.

    Where an earlier range is asked for, the same keys in it too, at the present times: ``series``
    of these ends with ``, earlier``.
    """
    question = in_hours(question)
    per_bucket = question.divisor(question.bucket_seconds)
    kept = "1"
    if question.keys:
        kept = "is_top"
    elif question.asked_step:
        kept = "NOT from_states OR is_top"
    # Alone a key needs the others only to be a share of all.
    others = question.is_share if question.keys else "1"
    return f"""\
WITH
{question.constants_list()},
{all_flows(question)},
{ranked(question, others=others)}
SELECT time, concat(series, if(is_earlier, ', earlier', '')) AS series, Value FROM (
  SELECT time, is_earlier, series, {question.shared("rate", "is_earlier, time")} AS Value,
    is_top OR max(rate) OVER (PARTITION BY is_top, top) > 0 AS is_shown
  FROM (
    SELECT is_earlier, is_top, top, series, bucket AS time, found / {per_bucket} AS rate
    FROM (
      SELECT is_top, if(is_top, hash, 0) AS top, part.1 AS is_earlier, part.2 AS bucket,
        sum(part.3) AS found, series
      FROM (
        SELECT *, if(is_top, arrayStringConcat(arrayFilter(part -> part != '', [
          {display("key_1", question.dimension)},
          {second_display("key_2", question.dimension_2)},
          {key_name("name", "key_1", question.dimension)}]), ' '), 'Other') AS series
        FROM ranked
      )
      ARRAY JOIN parts AS part
      GROUP BY is_earlier, is_top, top, series, bucket
    )
    ORDER BY is_earlier, is_top, top, series, time
      WITH FILL FROM range_start TO range_end STEP {question.step}
  )
  WHERE {kept}
)
WHERE is_shown
ORDER BY time, series
{question.settings}"""


def keys_query(question: Question) -> str:
    """``key``: the top keys of the first dimension as they are shown, largest first."""
    # Grafana tells queries of variables no length of buckets.
    long = f"dateDiff('second', {question.start}, {question.end}) >= {ROLLUP_SECONDS}"
    step = f"if({long}, greatest(60, intDiv({question.step}, 60) * 60), {question.step})"
    first = in_hours(replace(question, step=step, dimension_2=by(NO_DIMENSION), compare=""))
    return f"""\
WITH
{first.constants_list()},
{all_flows(first)},
{ranked(first, others="0", bucketed=False)}
SELECT {display("key_1", question.dimension)} AS key
FROM ranked
WHERE is_top
ORDER BY place
{question.settings}"""


def absent_series_query(question: Question) -> str:
    """The same of pinned keys without any flow in the range: lines of zeros."""
    question = in_hours(replace(question, compare="", estimate_if=""))
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
WHERE pin NOT IN (
  SELECT {display("key_1", question.dimension)} FROM flow
  WHERE {is_of_pinned(question, otherwise="1")} GROUP BY key_1)
ORDER BY time, series
{question.settings}"""
