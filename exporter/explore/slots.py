"""Which five minutes of a range are looked at where all of its flows are too many.

Flows lie in the order of five minutes, so those that are left out are not read. Of so many in a row
one is taken, by a hash: what happens every hour is neither always seen nor never.
"""

from __future__ import annotations

from typing import Final

from exporter.explore.expressions import TIME
from exporter.explore.question import Question

#: So many flows are looked at, about.
FLOWS: Final = 20_000_000
#: Seconds of a slot: the primary key of the flows has them.
SLOT: Final = 300
#: At least so many slots of a time stand for it.
_FEWEST: Final = 4

#: Whether a flow is looked at, where :func:`slot_constants` are known.
IN_SLOTS: Final = f"""\
(length(slots) = length(all_slots)
    OR toStartOfFiveMinutes({TIME}) IN (SELECT arrayJoin(slots)))"""


def slot_constants(question: Question, only_if: str, split: str = "") -> str:
    """``scale_before`` and ``scale_during``, what sums of the flows looked at are multiplied by.

    They are those of the times before and from ``split`` on, each with half of the flows that are
    looked at, a list for WITH; all is before if there is no split. ``only_if`` is a constant
    condition: where it does not hold, or the flows are not too many, all are looked at and both are
    1. Where different values are counted, whole buckets are.
    """
    flows = FLOWS // 2 if split else FLOWS
    split = split or "range_end"
    step = question.step
    number = "intDiv(toUnixTimestamp(slot), slot_unit)"
    of_time = f"if(slot < {split}, one_of_before, one_of_during)"
    return f"""\
  toUInt32(if({question.counts}, if({step} % {SLOT} = 0, {step}, {step} * 5), {SLOT})) AS slot_unit,
  arrayMap(n -> toStartOfFiveMinutes(range_start) + {SLOT} * n, range(toUInt32(intDiv(
    dateDiff('second', toStartOfFiveMinutes(range_start), range_end) + {SLOT - 1}, {SLOT}))))
    AS all_slots,
  arrayCount(slot -> slot < {split}, all_slots) AS slots_before,
  arrayCount(slot -> slot >= {split}, all_slots) AS slots_during,
  {_one_of("range_start", split, "slots_before", only_if, flows)} AS one_of_before,
  {_one_of(split, "range_end", "slots_during", only_if, flows)} AS one_of_during,
  arrayFilter(slot -> {number} % {of_time}
    = cityHash64(intDiv({number}, {of_time})) % {of_time}, all_slots) AS slots,
  slots_before / greatest(1, arrayCount(slot -> slot < {split}, slots)) AS scale_before,
  slots_during / greatest(1, arrayCount(slot -> slot >= {split}, slots)) AS scale_during"""


def _one_of(first: str, past: str, slots: str, only_if: str, flows: int) -> str:
    """Of how many units in a row one is looked at, to see so many flows."""
    return f"""\
toUInt32(greatest(1, least(intDiv({slots} * {SLOT}, slot_unit * {_FEWEST}), (
    SELECT intDiv(sum(flows) + {flows - 1}, {flows}) FROM flows_1h
    WHERE {only_if} AND time >= toStartOfHour({first}) AND time < {past}))))"""
