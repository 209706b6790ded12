"""What changed when something began: the keys of a question before and during it."""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.expressions import TIME, url_filter
from exporter.explore.keys import display, key_name, second_display, second_filter
from exporter.explore.question import Question

#: Bounds must be crossed for some minutes before an alert fires.
LEAD_SECONDS = 300
#: Of so many keys, those with most flows, different values are counted: of all, those of a day are
#: more than fit into memory.
COUNTED_KEYS = 500


def moment_constants(question: Question, since_ms: str) -> str:
    """``split``, the start of the first bucket during, as a list for WITH.

    ``since_ms`` is an expression of String: milliseconds since the epoch at which an alert began.
    Where it is empty, the middle of the range stands for it.
    """
    return f"""\
  toUInt64OrZero({since_ms}) AS since,
  if(since = 0, range_start + intDiv({question.seconds}, 2),
    toDateTime(intDiv(since, 1000)) - {LEAD_SECONDS}) AS began,
  greatest(range_start, least(range_end - {question.step},
    toStartOfInterval(began, INTERVAL {question.step} second))) AS split"""


def changes_query(question: Question, since_ms: str, limit: int = 10) -> str:
    """One row per key: ``Before``, ``During``, ``Change``; what changed most comes first.

    Values are averages over each time. Counts of different values are those of a bucket, on
    average, so that they compare however long both times are; they are those of ``COUNTED_KEYS``
    keys.
    """
    per_bucket = question.divisor(question.step)
    before = f"greatest(intDiv(dateDiff('second', range_start, split), {question.step}), 1)"
    during = f"greatest(intDiv(dateDiff('second', split, range_end), {question.step}), 1)"
    # Different values are counted in each bucket; of all else both times as wholes will do.
    period = f"if({question.counts}, {question.bucket}, if({TIME} < split, range_start, split))"
    before, during = (f"if({question.is_share}, 1, {each})" for each in (before, during))
    return f"""\
WITH
{question.constants_list()},
{moment_constants(question, since_ms)},
{question.keyed_flows()}
SELECT
  {display("key_1", question.dimension)} AS "Key",
  {second_display("key_2", question.dimension_2)} AS "Second key",
  {key_name("any_name", "key_1", question.dimension)} AS "Name",
  value_before AS "Before", value_during AS "During",
  value_during - value_before AS "Change",
  {url_filter("key_1")} AS filter_1, {second_filter("key_2", question.dimension_2)} AS filter_2
FROM (
  SELECT key_1, key_2, max(name) AS any_name,
    sumIf(value, bucket < split) / {per_bucket} / {before} AS value_before,
    sumIf(value, bucket >= split) / {per_bucket} / {during} AS value_during,
    sum(octets) AS all_octets
  FROM (
    SELECT *, {question.shared("sum_of_key", "bucket")} AS value
    FROM (
      SELECT key_1, key_2, {period} AS bucket, max(name) AS name,
        {question.total} AS sum_of_key, sum(bytes) AS octets
      FROM flow
      WHERE NOT {question.counts} OR (key_1, key_2) IN (
        SELECT key_1, key_2 FROM flow GROUP BY key_1, key_2
        ORDER BY count() DESC, key_1, key_2 LIMIT {COUNTED_KEYS})
      GROUP BY key_1, key_2, bucket
    )
  )
  GROUP BY key_1, key_2
)
ORDER BY abs("Change") DESC, all_octets DESC, key_1, key_2
LIMIT {limit}
{question.settings}"""


def distinct_query(question: Question) -> str:
    """``time``, ``series``, ``Value``: different sources and destinations in every bucket."""
    question = replace(question, estimated="")
    return f"""\
WITH
{question.constants_list()}
SELECT time, series, Value FROM (
  SELECT time, pair.1 AS series, pair.2 AS Value FROM (
    SELECT {question.bucket} AS time,
      toFloat64(uniq(src_addr)) AS sources, toFloat64(uniq(dst_addr)) AS destinations
        {question.selected_flows()}
    GROUP BY time
    ORDER BY time
      WITH FILL FROM range_start TO range_end STEP {question.step}
  )
  ARRAY JOIN [('Sources', sources), ('Destinations', destinations)] AS pair
)
ORDER BY time, series
{question.settings}"""
