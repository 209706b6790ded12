"""Which keys may be among the largest: found in a sample of the flows, so that few are summed.

All keys of a day, such as pairs of addresses and ports, or the addresses of a flood with made-up
sources, are too many to sum each of them. So flows are drawn, a flow with as much chance as it is
large against a threshold of which all traffic is ``SAMPLED`` times as much ("threshold sampling":
N. Duffield, C. Lund, M. Thorup, "Learn more, sample less", IEEE Transactions on Information Theory
51(5), 2005). Any flow as large as the threshold is drawn, and a key's drawn flows, none of them
counted for less than the threshold, tell its total without bias. Of different values pairs of key
and value are drawn, each with the same chance, however many flows have them. Where there are no
more than ``SAMPLED`` flows, all are drawn.

The keys with the largest estimates, many more than will be shown, are the candidates. What is
shown of them comes from all flows (:mod:`exporter.explore.ranking`), so it is exact, and so is
their order; the sample only decides which keys are looked at. Of very many flows the sample is
all that is looked at (:mod:`exporter.explore.estimates`). Of different values, which do
not add up, only the keys that are shown are candidates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from exporter.explore import estimates
from exporter.explore.choices import Dimension
from exporter.explore.expressions import TIME
from exporter.explore.keys import display

if TYPE_CHECKING:
    from exporter.explore.question import Question

#: Flows that are drawn, about.
SAMPLED: Final = 1 << 20
#: Candidates: so many, or so many times the keys that are asked for, but no more than the last.
LEAST_CANDIDATES: Final = 500
CANDIDATES_PER_KEY: Final = 10
MOST_CANDIDATES: Final = 60_000
#: Slots of five minutes, evenly over the range, that tell about how much traffic there is.
PROBED: Final = 12

#: A number is found quicker than a pair.
HASH: Final = "cityHash64(key_1, key_2)"


def candidates(question: Question) -> str:
    """``candidates``, for WITH: an array of (hash, ``key_1``, ``key_2``, name), largest first.

    Pinned keys are the first. A key's name is the greatest of its drawn flows. To refer to it costs
    as much analysis as all of its text: do so seldom.
    """
    glanced = replace(
        question, compare="", loosely=True, only_if=estimates.only_if(question, "NOT estimated")
    )
    pins = question.pins
    amount = AMOUNT.format(question.counts)
    only = shown_only(question)
    only = f"\n      HAVING {only}" if only else ""
    number = f"greatest({LEAST_CANDIDATES}, {CANDIDATES_PER_KEY} * toUInt16OrZero({question.top}))"
    number = f"if({question.counts}, toUInt16OrZero({question.top}), {number})"
    if pins:
        number += f" + length({pins})"
    estimate = f"if({question.counts}, {question.different()}, sum(greatest({amount}, least)))"
    return f"""\
{glanced.keyed_flows("glanced")},
  (
    SELECT groupArray(({HASH}, key_1, key_2, any_name)) FROM (
      SELECT key_1, key_2, max(name) AS any_name
      FROM {with_least(question, "glanced")}
      WHERE {is_drawn(question)}
      GROUP BY key_1, key_2{only}
      ORDER BY {is_pinned(question, "key_1")}toFloat64({estimate}) DESC, key_1, key_2
      LIMIT least({MOST_CANDIDATES}, {number})
    )
  ) AS candidates"""


def is_pinned(question: Question, key_1: str) -> str:
    """What puts pinned keys first, for ORDER BY."""
    pins = question.pins
    shown = display(key_1, question.dimension)
    return f"if(empty({pins}), 0, has({pins}, {shown})) DESC, " if pins else ""


#: What a flow has to be drawn by.
AMOUNT: Final = "toFloat64(if({}, 1, amount))"


def shown_only(question: Question) -> str:
    """Whether a key is one of those that are looked at alone; empty: there are none."""
    if not question.keys:
        return ""
    shown = display("key_1", question.dimension)
    return f"has({question.pins}, '*') OR has({question.pins}, {shown})"


def with_least(question: Question, name: str) -> str:
    """The flows of ``name`` with ``least``: as large a flow is drawn for certain.

    It comes after :func:`probed`, to which it refers once: each time costs as much analysis as all
    of its text.
    """
    # Flows of pinned keys are drawn as if there were no others.
    least = f"if({is_of_pinned(question)}, limits.2, limits.1)" if question.pins else "limits.1"
    return f"(SELECT *, {least} AS least FROM (SELECT *, thresholds AS limits FROM {name}))"


def is_drawn(question: Question) -> str:
    """Whether a flow with its ``least`` is drawn: by itself, or its key with a different value."""
    number = f"if({question.counts}, toUInt32(cityHash64(key_1, key_2, amount)), draw)"
    return f"{AMOUNT.format(question.counts)} >= (least / {1 << 32}) * ({number} + 0.5)"


def probed(question: Question) -> str:
    """``thresholds``, for WITH: that of all flows and that of those of pinned keys, a tuple.

    They come from ``probed``: flows of every so many slots of the range; of rollups all rows, as
    they are short, and may have but few slots. ``probed_nth`` tells how many flows one is for.
    """
    rolled = ["by_hour"] * bool(question.asked_step) + ["from_rollup"] * bool(question.rollup_if)
    whole = " OR ".join(rolled) or "0"
    among = f"{whole} OR toStartOfFiveMinutes({TIME}) IN (SELECT arrayJoin(probed_slots))"
    read = replace(question, compare="", loosely=True, among=among)
    return f"""\
  greatest(1, intDiv({question.seconds}, {300 * PROBED})) AS probed_step,
  if({whole}, 1, probed_step) AS probed_nth,
  arrayMap(slot -> toStartOfFiveMinutes({question.first}) + 300 * probed_step * slot,
    range(intDiv(toUInt32({question.seconds}), 300 * probed_step) + 1)) AS probed_slots,
{read.keyed_flows("probed")},
  assumeNotNull((SELECT tuple({_thresholds(question)}) FROM probed)) AS thresholds"""


def _thresholds(question: Question) -> str:
    amount = AMOUNT.format(question.counts)
    held = ["1", is_of_pinned(question)] if question.pins else ["1"]
    number = str(SAMPLED)
    if question.estimate_if:
        number = f"if(estimated, {estimates.DRAWN}, {SAMPLED})"
    return ", ".join(
        f"if(countIf({of}) * probed_nth <= {number}, toFloat64({question.counts}),"
        f" sumIf({amount}, {of}) * probed_nth / {number})"
        for of in held
    )


def is_of_pinned(question: Question, otherwise: str = "0") -> str:
    """Whether a flow's key is pinned, without showing it first.

    ``otherwise``: what is said of keys that are shown by names of their values, which are few.
    """
    text = f"if(pin = '(empty)', '', {_parsed('pin', question.dimension)})"
    kind = "replaceRegexpOne(toTypeName(key_1), '^(LowCardinality|Enum).*', 'String')"
    values = f"arrayMap(pin -> accurateCastOrDefault({text}, {kind}), {question.pins})"
    named = "match(toTypeName(key_1), '^(Enum|UInt8$)')"
    matched = f"toUInt8(if({named}, {otherwise}, key_1 IN ({values})))"
    return f"if(empty({question.pins}), 0, {matched})"


def _parsed(pin: str, dimension: Dimension) -> str:
    number = f"toString(MACStringToNum({pin}))"
    return f"if({dimension.ends_with('_mac')}, {number}, {pin})"
