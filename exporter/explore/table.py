"""The keys of a question in numbers."""

from __future__ import annotations

from exporter.explore.candidates import HASH
from exporter.explore.expressions import url_filter
from exporter.explore.hours import in_hours
from exporter.explore.keys import (
    display,
    key_name,
    second_display,
    second_filter,
)
from exporter.explore.owners import OWNED, owners
from exporter.explore.question import Question
from exporter.explore.ranking import all_flows, ranked


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
    counts = question.counts
    if question.estimate_if:
        counts = f"({counts} AND NOT estimated)"
    whole, earlier = (
        question.shared(f"if({counts}, counted.{each}, ranked.{each})", "1")
        for each in ("total", "earlier_total")
    )
    totals = [
        f"toFloat64({question.different(condition)})"
        for condition in (f"NOT ({question.is_earlier})", question.is_earlier)
    ]
    return f"""\
WITH
{question.constants_list()},
{all_flows(question)},
{ranked(question, others=question.is_share)},
  counted AS (
    SELECT {HASH} AS hash, {totals[0]} AS total, {totals[1]} AS earlier_total
    FROM flow WHERE ({question.counts}) AND {HASH} IN (SELECT arrayJoin(candidates.1))
    GROUP BY hash
  ),
  present AS (
  SELECT hash, any(top_1) AS key_1, any(top_2) AS key_2, any(top_name) AS any_name,
    any(whole) AS total, any(earlier_whole) AS earlier_total,
    groupArrayIf(value / {per_bucket}, NOT is_earlier) AS found,
    arrayResize(found, greatest({buckets}, length(found))) AS values,
    sumIf(value / {per_bucket}, NOT is_earlier AND bucket = {last}) AS last_value
  FROM (
    SELECT *, {question.shared("found", "is_earlier, bucket")} AS value
    FROM (
      SELECT hash, is_top, top_1, top_2, top_name, whole, earlier_whole, part.1 AS is_earlier,
        part.2 AS bucket, part.3 AS found
      FROM (
        SELECT ranked.hash AS hash, is_top, key_1 AS top_1, key_2 AS top_2, name AS top_name,
          parts, {whole} AS whole, {earlier} AS earlier_whole
        FROM ranked LEFT JOIN counted ON ranked.hash = counted.hash
      )
      ARRAY JOIN parts AS part
    )
  )
  WHERE is_top
  GROUP BY hash
  ),
  owners AS (
{owners(question.dimension.is_one_of(OWNED))}
  )
SELECT
  {display("key_1", question.dimension)} AS "Key",
  {second_display("key_2", question.dimension_2)} AS "Second key",
  {key_name("any_name", "key_1", question.dimension)} AS "Name",
  owned_by.1 AS "Role", owned_by.2 AS "Owner",
  arrayAvg(values) AS "Average",
  arrayReduce('quantileExactInclusive(0.95)', values) AS "95th percentile",
  arrayMax(values) AS "Maximum",
  last_value AS "Last",
  total AS "Total",
  if({shift} = 0, NULL, earlier_total) AS "Earlier",
  if({shift} = 0 OR earlier_total = 0, NULL, total / earlier_total - 1) AS "Change",
  {url_filter("key_1")} AS filter_1,
  {second_filter("key_2", question.dimension_2)} AS filter_2
FROM present
LEFT JOIN owners ON toString(key_1) = owners.subject
ORDER BY "Total" DESC, "Key", "Second key"
{question.settings}"""
