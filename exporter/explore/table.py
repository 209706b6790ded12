"""The keys of a question in numbers."""

from __future__ import annotations

from exporter.explore.expressions import url_filter
from exporter.explore.hours import in_hours
from exporter.explore.keys import (
    display,
    key_name,
    ranked_flows,
    second_display,
    second_filter,
)
from exporter.explore.owners import OWNED, owners
from exporter.explore.question import Question


def table_query(question: Question) -> str:
    """One row per top key: average, 95th percentile, maximum, last bucket and total.

    Buckets without flows count as zero. ``Earlier`` is the total of the earlier range and
    ``Change`` the difference by it; both are null where none is asked for. ``Role`` and
    ``Owner`` are those of a host or device. ``filter_1`` and ``filter_2`` are for links.
    """
    question = in_hours(question)
    buckets = question.buckets
    per_bucket = question.divisor(question.bucket_seconds)
    last = f"toStartOfInterval(range_end - 1, INTERVAL {question.step} second)"
    shift = "shift" if question.compare else "0"
    # Of a share all must be known, whoever is shown.
    read = f"is_top OR {question.is_share}"
    return f"""\
WITH
{question.constants_list(ranked=True)},
{question.keyed_flows()},
  present AS (
  SELECT top_1, top_2, max(name) AS any_name,
    groupArrayIf(value / {per_bucket}, NOT whole AND NOT is_earlier) AS found,
    arrayResize(found, greatest({buckets}, length(found))) AS values,
    sumIf(value / {per_bucket}, NOT whole AND NOT is_earlier AND bucket = {last}) AS last_value,
    sumIf(value, whole AND NOT is_earlier) AS total,
    sumIf(value, whole AND is_earlier) AS earlier_total
  FROM (
    SELECT *, {question.shared("sum_of_key", "is_earlier, whole, bucket")} AS value
    FROM (
      SELECT is_top, top_1, top_2, is_earlier, bucket, grouping(bucket) = 1 AS whole,
        max(name) AS name, {question.total} AS sum_of_key
      FROM (
{ranked_flows(question)}
      )
      WHERE {read}
      GROUP BY GROUPING SETS (
        (is_top, top_1, top_2, is_earlier), (is_top, top_1, top_2, is_earlier, bucket))
    )
  )
  WHERE is_top
  GROUP BY top_1, top_2
  ),
  owners AS (
{owners(question.dimension.is_one_of(OWNED))}
  )
SELECT
  {display("top_1", question.dimension)} AS "Key",
  {second_display("top_2", question.dimension_2)} AS "Second key",
  {key_name("any_name", "top_1", question.dimension)} AS "Name",
  owned_by.1 AS "Role", owned_by.2 AS "Owner",
  {question.average("values", "total")} AS "Average",
  arrayReduce('quantileExactInclusive(0.95)', values) AS "95th percentile",
  arrayMax(values) AS "Maximum",
  last_value AS "Last",
  total AS "Total",
  if({shift} = 0, NULL, earlier_total) AS "Earlier",
  if({shift} = 0 OR earlier_total = 0, NULL, total / earlier_total - 1) AS "Change",
  {url_filter("top_1")} AS filter_1,
  {second_filter("top_2", question.dimension_2)} AS filter_2
FROM present
LEFT JOIN owners ON toString(top_1) = owners.subject
ORDER BY "Total" DESC, "Key", "Second key"
{question.settings}"""
