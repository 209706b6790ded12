"""The largest keys of a question from the flows that are drawn, in one pass: estimates.

A group keeps the buckets and weights of its drawn flows side by side: only those of the few that
are shown are summed by bucket. Other is what all have less what the shown ones have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.explore.candidates import AMOUNT, HASH, is_drawn, is_pinned, shown_only, with_least
from exporter.explore.estimates import only_if

if TYPE_CHECKING:
    from exporter.explore.question import Question


def drawn_keys(question: Question, *, others: str, bucket: str, limit: str) -> str:
    """``drawn``, for WITH: a row for each of the ``limit`` largest keys, and one for Other.

    It has ``hash`` (0: Other, where the constant ``others`` holds), ``parts``, ``is_present``,
    ``total``, ``earlier_total``, ``drafted``, ``key_1``, ``key_2`` and ``name``, as ``ranked`` of
    :mod:`exporter.explore.ranking`. Of different values there is no Other. There are no rows where
    ``estimated`` does not hold.
    """
    read = replace(question, rollup_if="", asked_step="", only_if=only_if(question, "estimated"))
    counts = question.counts
    amount = AMOUNT.format(counts)
    # Few of the groups are looked at: of different values hashes are kept, of all else weights.
    hashed = "toFloat64(bitShiftRight(cityHash64(amount), 12))"
    sets = "(key_1, key_2)" if others == "0" else "GROUPING SETS ((key_1, key_2), ())"
    is_all = "toUInt8(0)" if others == "0" else "toUInt8(grouping(key_1))"
    # Of aggregates none is left out, whatever is asked for: there are but two, and the names.
    if question.compare:
        values = [
            f"if(shift = 0, {whole}, arrayFilter((value, slot) -> slot % 2 = {n}, values, slots))"
            for n, whole in enumerate(("values", "emptyArrayFloat64()"))
        ]
        totals = [_total(question, each) for each in values]
    else:
        totals = [_total(question, "values"), "toFloat64(0)"]
    present = "arrayExists(slot -> slot % 2 = 0, slots)" if question.compare else "1"
    having = shown_only(question)
    having = f"\n      HAVING is_all OR {having}" if having else ""
    return f"""\
{read.keyed_flows("drawn_from")},
  drawn AS (
    SELECT hash, groupArray((toUInt8(slot % 2), toDateTime(intDiv(slot, 2)), part)) AS parts,
      max(present) AS is_present,
      if(hash = 0, sumIf(part, slot % 2 = 0), max(of_key)) AS total,
      if(hash = 0, sumIf(part, slot % 2 = 1), max(earlier_of_key)) AS earlier_total,
      -total AS drafted, any(first_key) AS key_1, any(second_key) AS key_2, max(any_name) AS name
    FROM (
      SELECT each.1 AS hash, slot, greatest(0, sum(each.2)) AS part, any(key_1) AS first_key,
        any(key_2) AS second_key, max(if(each.1 = 0, '', any_name)) AS any_name,
        max(if(each.1 = 0, 0, present)) AS present, max(if(each.1 = 0, 0, total)) AS of_key,
        max(if(each.1 = 0, 0, earlier_total)) AS earlier_of_key
      FROM (
        SELECT key_hash, slot, any(key_1) AS key_1, any(key_2) AS key_2, any(any_name) AS any_name,
          any(present) AS present, any(total) AS total, any(earlier_total) AS earlier_total,
          if({counts}, uniq(value) * any(times), sum(value) * {question.factor}) AS found
        FROM (
          SELECT key_1, key_2, {is_all} AS is_all, if(is_all, 0, {HASH}) AS key_hash,
            max(name) AS any_name, any(least) AS times,
            groupArray(slot) AS slots, groupArray(if({counts}, {hashed}, weight)) AS values,
            toUInt8({present}) AS present,
            {totals[0]} AS total, {totals[1]} AS earlier_total
          FROM (
            SELECT *, greatest({amount}, least) AS weight,
              toUInt8({question.is_earlier}) AS is_earlier,
              toUInt64(toUInt32({bucket})) * 2 + is_earlier AS slot
            FROM {with_least(question, "drawn_from")}
            WHERE {is_drawn(question)}
          )
          GROUP BY {sets}{having}
          ORDER BY is_all DESC, NOT present, {is_pinned(question, "key_1")}total DESC, key_1, key_2
          LIMIT {limit} + 1
        )
        ARRAY JOIN slots AS slot, values AS value
        GROUP BY key_hash, slot
      )
      ARRAY JOIN if(key_hash = 0, [(key_hash, found)], [(key_hash, found), (0, -found)]) AS each
      WHERE each.1 != 0 OR ({others}) AND NOT ({counts})
      GROUP BY hash, slot
    )
    GROUP BY hash
  )"""


def _total(question: Question, values: str) -> str:
    """The measure of what a group has as ``values``."""
    summed = f"arraySum({values}) * {question.factor}"
    return f"toFloat64(if({question.counts}, arrayUniq({values}) * times, {summed}))"
