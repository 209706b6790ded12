"""Keys as people read them, and which of them are the largest.

Pairs of two columns that both have many values, such as addresses and ports, are too many to sum
each of a day's: they are sought in groups of pairs, by a hash. Only pairs of the groups with most
traffic are looked at. No other pair can carry more than the last of these groups does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from exporter.explore.choices import Dimension, by
from exporter.explore.columns import NARROW_COLUMNS, NO_DIMENSION
from exporter.explore.drawn import FEW
from exporter.explore.expressions import protocol, text, url_filter
from exporter.explore.hours import in_hours
from exporter.explore.question import Question
from exporter.explore.rollups import is_rolled_up

#: Groups of pairs, and how many of them are looked at.
PAIR_GROUPS: Final = 1 << 20
LARGEST_GROUPS: Final = 10_000
#: A number is found quicker than a pair.
_HASH: Final = "cityHash64(key_1, key_2)"


def display(key: str, dimension: Dimension) -> str:
    """A key's value as people read it.

    Of ``if`` on constants ClickHouse drops what is not chosen, unless it is directly the branch of
    another one: hence the casts between.
    """
    shown = text(key)
    if dimension.known:
        special = {
            "proto": protocol(key),
            "src_mac": _mac(key),
            "dst_mac": _mac(key),
            NO_DIMENSION: "''",
        }
        shown = special.get(dimension.known, shown)
    else:
        mac = f"toString(if({dimension.ends_with('_mac')}, {_mac(key)}, {shown}))"
        shown = f"if({dimension.text} = 'proto', {protocol(key)}, {mac})"
    return f"if(toString({key}) = '', '(empty)', {shown})"


def _mac(key: str) -> str:
    return f"MACNumToString(toUInt64OrZero(toString({key})))"


def second_display(key: str, dimension: Dimension) -> str:
    """The same of the second key, which there may not be."""
    if dimension.known == NO_DIMENSION:
        return "''"
    return f"if({dimension.is_one_of((NO_DIMENSION,))}, '', {display(key, dimension)})"


def second_filter(key: str, dimension: Dimension) -> str:
    """The second key as the value of an ad-hoc filter in a URL takes it."""
    if dimension.known == NO_DIMENSION:
        return "''"
    return f"if({dimension.is_one_of((NO_DIMENSION,))}, '', {url_filter(key)})"


def key_name(name: str, key: str, dimension: Dimension) -> str:
    """What is known about a key: ``name`` from the flows, else from the tables of names."""
    autonomous_system = f"joinGet('as_names', 'name', toUInt32OrZero(toString({key})))"
    tcp_port = f"joinGet('port_names', 'name', toUInt8(6), toUInt16OrZero(toString({key})))"
    port = f"if({name} != '', {name}, {tcp_port})"
    if dimension.known:
        parts = dimension.known.rpartition("_")
        return {"as": autonomous_system, "port": port}.get(parts[2], name)
    port = f"toString(if({dimension.ends_with('_port')}, {port}, {name}))"
    return f"if({dimension.ends_with('_as')}, {autonomous_system}, {port})"


def top_keys(question: Question) -> str:
    """The pinned keys and the largest others, as many more as are pinned, of ``flow``."""
    held = [f"NOT ({question.is_earlier})"] if question.compare else []
    possible = _possible_pairs(question, held)
    where = f"\n      WHERE {' AND '.join(held + possible)}" if held or possible else ""
    only = f"\n      HAVING {_asked_for(question)}" if question.keys else ""
    return f"""\
      SELECT key_1, key_2 FROM flow{where}
      GROUP BY key_1, key_2{only}
      ORDER BY {_pinned_first(question)}{question.total} DESC, key_1, key_2
      LIMIT {_limit(question)}"""


def _pinned_first(question: Question) -> str:
    """What keys are ordered by before their totals."""
    if not question.pins:
        return ""
    return f"if(empty({question.pins}), 0, {_is_pinned(question)}) DESC, "


def _is_pinned(question: Question) -> str:
    return f"has({question.pins}, {display('key_1', question.dimension)})"


def _asked_for(question: Question) -> str:
    """Whether a key is one of ``question.keys``."""
    return f"(has({question.pins}, '*') OR {_is_pinned(question)})"


def _limit(question: Question) -> str:
    """How many keys are shown."""
    pinned = f" + length({question.pins})" if question.pins else ""
    return f"toUInt16OrZero({question.top}){pinned}"


def _possible_pairs(question: Question, held: list[str]) -> list[str]:
    """Which pairs may be among the largest, as a condition; ``held``: others of the flows.

    Of different values there are no more than flows, so pairs with most flows are looked at there.
    """
    dimensions = (question.dimension, question.dimension_2)
    if any(each.known in (NO_DIMENSION, *NARROW_COLUMNS) for each in dimensions):
        return []
    many = [f"NOT {each.is_one_of((NO_DIMENSION, *NARROW_COLUMNS))}" for each in dimensions]
    if question.asked_step:
        many.append("NOT by_hour")
    if question.rollup_if:
        many.append("NOT from_rollup")
    are_many = f"({' AND '.join(many)})"
    group = f"{_HASH} % {PAIR_GROUPS}"
    weight = f"if({question.counts}, count(), sum(if({question.counts}, 0, amount)))"
    possible = f"""\
{group} IN (
        SELECT {group} AS pairs FROM flow WHERE {" AND ".join([*held, are_many])}
        GROUP BY pairs ORDER BY {weight} DESC, pairs
        LIMIT {LARGEST_GROUPS})"""
    if question.pins:
        possible += f""" OR key_1 IN (
        SELECT key_1 FROM flow WHERE {are_many} AND notEmpty({question.pins})
        GROUP BY key_1 HAVING {_is_pinned(question)})"""
    return [f"(NOT {are_many} OR {possible})"]


def keys_query(question: Question) -> str:
    """``key``: the top keys of the first dimension as they are shown, largest first."""
    # Grafana tells queries of variables no length of buckets, and rollups have whole minutes.
    step = (
        f"if({is_rolled_up(question)}, greatest(60, intDiv({question.step}, 60) * 60),"
        f" {question.step})"
    )
    first = in_hours(replace(question, step=step, dimension_2=by(NO_DIMENSION), compare=""))
    return f"""\
WITH
{first.constants_list()},
{first.keyed_flows()}
SELECT {display("key_1", question.dimension)} AS key
FROM (
{top_keys(first)}
)
{question.settings}"""


def ranked_flows(question: Question) -> str:
    """``flow`` with ``bucket``, ``is_earlier`` and ``is_top``; of other keys than the top ones
    ``top_1`` and ``top_2`` are empty.

    To find the top keys flows are read a first time. Few ones are ranked in memory instead.
    """
    ranked = "flow"
    is_top = f"""{_HASH} IN (SELECT {_HASH} FROM (
{top_keys(question)}
          ))"""
    if question.few:
        only = f" AND {_asked_for(question)}" if question.keys else ""
        is_top = f"if({FEW}, rank <= {_limit(question)}{only}, {is_top})"
        # What is not chosen is left out of the plan, if both choices are of one type.
        order = f"{_pinned_first(question)}total_of_key DESC, key_1, key_2"
        ranked = f"""(
          SELECT *, if({FEW}, dense_rank() OVER (ORDER BY {order}), toUInt64(0)) AS rank
          FROM (
            SELECT *, if({FEW}, {question.total_of_key}, toFloat64(0)) AS total_of_key FROM flow
          )
        )"""
    return f"""\
      SELECT *, if(is_top, key_1, defaultValueOfArgumentType(key_1)) AS top_1,
        if(is_top, key_2, defaultValueOfArgumentType(key_2)) AS top_2
      FROM (
        SELECT *, {question.is_earlier} AS is_earlier, {question.bucket} AS bucket,
          {is_top} AS is_top
        FROM {ranked}
      )"""
