"""The largest keys of a question: exactly, or of very many flows estimated.

Exactly: one pass over all flows sums the candidates and Other. Candidates
(:mod:`exporter.explore.candidates`) go by the hash of their keys, the rest of the flows by 0. What
is left to do is done with a few rows for each candidate. Estimates:
:mod:`exporter.explore.drawn`.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.candidates import HASH, candidates, is_pinned, probed
from exporter.explore.drawn import drawn_keys
from exporter.explore.estimates import only_if
from exporter.explore.question import Question


def ranked(question: Question, *, others: str = "1", bucketed: bool = True) -> str:
    """``candidates`` and ``ranked``, for WITH.

    ``ranked`` has a row per candidate with flows: ``hash``, ``key_1``, ``key_2``, ``name``,
    ``total`` of the range and ``earlier_total`` of the earlier one (of different values: of no
    meaning), ``is_top``, its ``place`` among these, and ``parts``: (is_earlier, bucket, total).
    The one whose hash is 0 is Other, there where the constant ``others`` holds. Top are the pinned
    keys and the largest others, as many more as are pinned. Not ``bucketed``: the range is one
    bucket.
    """
    pins = question.pins
    bucket = question.bucket if bucketed else "range_start"
    limit = f"toUInt16OrZero({question.top})" + (f" + length({pins})" if pins else "")
    order = f"hash = 0 OR NOT is_present, {is_pinned(question, 'key_1')}"
    columns = "hash, parts, is_present, total, earlier_total, drafted, key_1, key_2, name"
    drawn, estimates = "", ""
    if question.estimate_if:
        drawn = drawn_keys(question, others=others, bucket=bucket, limit=limit) + ",\n"
        estimates = f"\n      UNION ALL\n      SELECT {columns} FROM drawn"
    return f"""\
{probed(question)},
{candidates(question)},
{drawn}  ranked AS (
    SELECT *, row_number() OVER (ORDER BY {order}if({question.counts}, 0, total) DESC,
        if({question.counts}, drafted, 0), key_1, key_2) AS place,
      hash != 0 AND is_present AND place <= {limit} AS is_top
    FROM (
      SELECT {columns}
      FROM (
        SELECT hash, groupArray((is_earlier, bucket, part)) AS parts,
          countIf(NOT is_earlier) > 0 AS is_present,
          sumIf(part, NOT is_earlier) AS total, sumIf(part, is_earlier) AS earlier_total
        FROM (
          SELECT hash, is_earlier, bucket, {question.total} AS part
          FROM (
            SELECT *, toUInt8({question.is_earlier}) AS is_earlier, {bucket} AS bucket,
              if({HASH} IN (SELECT arrayJoin(candidates.1)), {HASH}, 0) AS hash
            FROM flow
          )
          WHERE ({others}) OR hash != 0
          GROUP BY hash, is_earlier, bucket
        )
        GROUP BY hash
      ) AS summed
      LEFT JOIN (
        SELECT drafted, listed.1 AS hash, listed.2 AS key_1, listed.3 AS key_2, listed.4 AS name
        FROM (SELECT candidates AS list) ARRAY JOIN list AS listed, arrayEnumerate(list) AS drafted
      ) AS known USING (hash){estimates}
    )
  )"""


def all_flows(question: Question) -> str:
    """``flow``, for WITH, before ``ranked``: empty where answers are estimates."""
    return replace(question, only_if=only_if(question, "NOT estimated")).keyed_flows()
