"""Pieces of SQL that do not depend on what is asked."""

from __future__ import annotations

#: What every query filters and buckets time by; the policies use the same column.
TIME = "time_received"


def quote(text: str) -> str:
    """A constant of ours as an SQL string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def text(expression: str) -> str:
    """A value of any column type as people read it: IPv4 addresses without their mapping."""
    # With the $ behind the group, ClickHouse 25.8 to 25.12 make it extract(), which is empty for
    # all else: github.com/ClickHouse/ClickHouse/pull/97546.
    return f"replaceRegexpOne(toString({expression}), '^::ffff:([0-9.]+$)', '\\\\1')"


def protocol(key: str) -> str:
    """An IP protocol number of any type as its name, where it has one."""
    name = f"joinGet('protocol_names', 'name', toUInt8OrZero(toString({key})))"
    return f"if({name} = '', toString({key}), {name})"


def url_filter(key: str) -> str:
    """The key as the value of an ad-hoc filter in a URL takes it."""
    value = text(key)
    for character, escape in (("|", "__gfp__"), (",", "__gfc__"), ("#", "__gfh__")):
        value = f"replaceAll({value}, '{character}', '{escape}')"
    return value
