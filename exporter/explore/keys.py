"""Keys as people read them, and which of them are the largest."""

from __future__ import annotations

from dataclasses import replace

from exporter.explore.choices import Dimension, by
from exporter.explore.columns import NO_DIMENSION
from exporter.explore.expressions import protocol, text, url_filter
from exporter.explore.hours import in_hours
from exporter.explore.question import Question


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
    pins = question.pins
    pinned = limit = only = ""
    if pins:
        shown = display("key_1", question.dimension)
        pinned = f"if(empty({pins}), 0, has({pins}, {shown})) DESC, "
        limit = f" + length({pins})"
        if question.keys:
            only = f"\n      HAVING has({pins}, '*') OR has({pins}, {shown})"
    where = f"\n      WHERE NOT ({question.is_earlier})" if question.compare else ""
    return f"""\
      SELECT key_1, key_2 FROM flow{where}
      GROUP BY key_1, key_2{only}
      ORDER BY {pinned}{question.total} DESC, key_1, key_2
      LIMIT toUInt16OrZero({question.top}){limit}"""


def keys_query(question: Question) -> str:
    """``key``: the top keys of the first dimension as they are shown, largest first."""
    first = in_hours(replace(question, dimension_2=by(NO_DIMENSION), compare=""))
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
    ``top_1`` and ``top_2`` are empty."""
    return f"""\
      SELECT *, if(is_top, key_1, defaultValueOfArgumentType(key_1)) AS top_1,
        if(is_top, key_2, defaultValueOfArgumentType(key_2)) AS top_2
      FROM (
        SELECT *, {question.is_earlier} AS is_earlier, {question.bucket} AS bucket,
          (key_1, key_2) IN (
{top_keys(question)}
          ) AS is_top
        FROM flow
      )"""
