"""The SQL that evaluates a policy: its top keys in one window, and the keys it already follows.

Flows count in the window in which they were received, with all their bytes: a device reports a
long flow only when it ends or its active timeout passes, so any other attribution would read too
low at the present end of time. A window at least as long as the devices' active timeout evens out
the lumps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from exporter.policies.filter import check_filter, expand_lists
from exporter.policies.lists import LoadedList, parameter_of
from exporter.policies.model import Policy
from exporter.policies.tables import FLOWS, ROLLUP, TABLES
from exporter.schema import Column, Kind

#: Length of the rollup's rows.
ROLLUP_SECONDS: Final = 60

#: Devices that are remembered of a key, whose silence explains its dip.
_DEVICES: Final = 8

Lists = Mapping[str, LoadedList]


@dataclass(frozen=True, slots=True)
class Query:
    """SQL with ClickHouse's ``{name:Type}`` places, and what to bind to them."""

    sql: str
    parameters: dict[str, Any]


def policy_query(
    policy: Policy, end_ms: int, followed: Collection[int] = (), lists: Lists | None = None
) -> Query:
    """The values of ``policy`` in the window before ``end_ms`` (milliseconds since the epoch).

    ``followed`` are hashes of keys whose values are wanted however small they are; so are those of
    pinned keys. The result has the columns ``key`` (UInt64), one String per dimension, ``value``
    (Float64) and ``devices``, those that reported the key (Array(String), empty unless the policy
    watches for dips); followed keys first, then by value, largest first.
    """
    parameters: dict[str, Any] = {
        "start_ms": end_ms - policy.window * 1000,
        "end_ms": end_ms,
        "minimum": policy.minimum,
    }
    limit = policy.top + len(followed)
    order = ["value DESC", "key"]
    wanted = ["value >= {minimum:Float64}"]
    quota = ""
    if policy.pin:
        pinned = _pinned(policy, parameters)
        limit += policy.key_limit
        order.insert(0, f"{pinned} DESC")
        wanted.append(pinned)
    if followed:
        known = _known(followed)
        order.insert(0, f"{known} DESC")
        wanted.append(known)
    if policy.per is not None:
        # A followed key takes nobody's place here, so that the largest of the others come too.
        own = f"if({' OR '.join(wanted[1:])}, key, 0)" if wanted[1:] else "toUInt64(0)"
        quota = f"\n    LIMIT {policy.per.top} BY {policy.per.dimension}, {own}"
        limit += len(followed)
    parameters["limit"] = limit
    sql = f"""SELECT
    key,
    {_shown(policy)},
    toFloat64(value) AS value,
    devices
FROM
(
    SELECT *
    FROM
    (
{_values(policy, parameters, lists or {})}
    )
    WHERE {" OR ".join(wanted)}
    ORDER BY {", ".join(order)}{quota}
    LIMIT {{limit:UInt32}}
)
"""  # noqa: S608 - identifiers come from the schema, the filter was checked token by token
    return Query(sql, parameters)


def history_query(
    policy: Policy,
    start_ms: int,
    end_ms: int,
    followed: Collection[int] = (),
    lists: Lists | None = None,
) -> Query:
    """What :func:`policy_query` would have given at the end of each window from ``start_ms`` to
    ``end_ms``, full windows both, one after the other.

    The first column is ``bucket``, the window's number since the epoch; there is no ``devices``.
    Whatever key is picked up in one of the windows, or is ``followed`` at the start, comes with all
    its values.
    """
    parameters: dict[str, Any] = {
        "start_ms": start_ms,
        "end_ms": end_ms,
        "minimum": policy.minimum,
        "limit": policy.top,
    }
    picked = ["position <= {limit:UInt32} AND value >= {minimum:Float64}"]
    place, eligible = "", ""
    if policy.per is not None:
        place = (
            f",\n            row_number() OVER (PARTITION BY bucket, {policy.per.dimension}"
            " ORDER BY value DESC, key) AS place"
        )
        eligible = f"place > {policy.per.top}, "
        picked[0] += f" AND place <= {policy.per.top}"
    if policy.pin:
        picked.append(_pinned(policy, parameters))
    known = f" OR {_known(followed)}" if followed else ""
    sql = f"""SELECT
    bucket,
    key,
    {_shown(policy)},
    toFloat64(value) AS value
FROM
(
    SELECT *, max({" OR ".join(f"({each})" for each in picked)}) OVER (PARTITION BY key) AS picked
    FROM
    (
        SELECT *, row_number() OVER (PARTITION BY bucket ORDER BY {eligible}value DESC, key) AS position
        FROM
        (
            SELECT *{place}
            FROM
            (
{_values(policy, parameters, lists or {}, by_window=True)}
            )
        )
    )
)
WHERE picked{known}
ORDER BY bucket, value DESC
"""  # noqa: S608, E501 - identifiers come from the schema, the filter was checked token by token
    return Query(sql, parameters)


def history_table(policy: Policy) -> str:
    """The table or view that tells the policy's past: the rollup where it can, which is quick and
    is kept for longer. It divides long flows among the minutes that they covered."""
    if not policy.measured.rollup_sql or policy.counts_once or policy.table != FLOWS.name:
        return policy.counted
    if policy.window % ROLLUP_SECONDS or not set(policy.dimensions) <= set(ROLLUP.columns):
        return policy.counted
    try:
        check_filter(policy.filter, ROLLUP.columns)
    except ValueError:
        return policy.counted
    return ROLLUP.name


def count_query(policy: Policy, start_ms: int, end_ms: int) -> Query:
    """How many rows :func:`history_query` would read at most."""
    table = history_table(policy)
    rollup = table == ROLLUP.name
    time, table = ("time", table) if rollup else ("time_received", policy.table)
    sql = f"""SELECT count()
FROM {table}
WHERE {time} >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')
  AND {time} < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC')"""  # noqa: S608 - our own names
    return Query(sql, {"start_ms": start_ms, "end_ms": end_ms})


def condition_of(policy: Policy, parameters: dict[str, Any], lists: Lists) -> str:
    """The policy's filter as SQL, empty where it has none; what it binds goes to ``parameters``.

    Raises:
        KeyError: a list of the filter is not in ``lists``.
    """
    uses = policy.list_uses
    for use in uses:
        parameters[parameter_of(use.name)] = lists[use.name].version
    return expand_lists(policy.filter, uses, lambda use: lists[use.name].condition(use))


def equals(column: Column, place: str) -> str:
    """The condition that a dimension has the value that a label shows, bound at ``place``."""
    if column.kind is Kind.ADDRESS:
        return f"{column.name} = toIPv6({place})"
    return f"{_text_of(column)} = {place}"


def dimension_text(name: str, table: str = "flows") -> str:
    """The expression that shows a dimension's value as people write it."""
    return _text_of(TABLES[table].columns[name])


def _values(
    policy: Policy, parameters: dict[str, Any], lists: Lists, *, by_window: bool = False
) -> str:
    """A subquery with ``key``, the dimensions, ``value`` and ``devices`` of every key that has
    traffic; ``by_window``: of each window, with its number ``bucket``."""
    measure = policy.measured
    dimensions = ", ".join(policy.dimensions)
    bucket = bucket_name = ""
    table, aggregate = policy.counted, measure.sql
    time = "time_received"
    if by_window:
        table = history_table(policy)
        milliseconds = "toUnixTimestamp64Milli(time_received)"
        if table == ROLLUP.name:
            aggregate, time, milliseconds = (
                measure.rollup_sql,
                "time",
                "toUnixTimestamp(time) * 1000",
            )
        bucket = f"intDiv({milliseconds}, {{window_ms:Int64}}) AS bucket,\n"
        bucket_name = "bucket, "
        parameters["window_ms"] = policy.window * 1000
    if "{seconds:" in measure.sql:
        parameters["seconds"] = float(policy.window)
    filtered = condition_of(policy, parameters, lists)
    condition = f"\n              AND (\n{filtered}\n)" if filtered else ""
    seen_by = "CAST([], 'Array(String)')"
    if policy.watches_dips and not by_window:
        seen_by = f"groupUniqArray({_DEVICES})(toString(device))"
    aggregated = f"""\
            SELECT
                {bucket}cityHash64({dimensions}) AS key,
                {dimensions},
                {seen_by} AS devices,
                {aggregate} AS {"amount" if measure.share else "value"}
            FROM {table}
            WHERE {time} >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')
              AND {time} < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC'){condition}
            GROUP BY {bucket_name}{dimensions}"""  # noqa: S608 - as in policy_query
    if measure.share == "total":
        window = "PARTITION BY bucket" if by_window else ""
        return f"""\
        SELECT *, 100 * amount / greatest(sum(amount) OVER ({window}), 1) AS value
        FROM
        (
{aggregated}
        )"""  # noqa: S608 - as in policy_query
    if measure.share == "capacity":
        end = "in_if" if "in_if" in policy.dimensions else "out_if"
        return f"""\
        SELECT f.*, 100 * amount / c.bits AS value
        FROM
        (
{aggregated}
        ) AS f
        INNER JOIN
        (
            SELECT toString(device) AS name, interface, argMax(speed, stored_at) AS bits
            FROM interface_speeds
            GROUP BY name, interface
        ) AS c ON toString(f.device) = c.name AND f.{end} = c.interface"""  # noqa: S608
    return aggregated


def _shown(policy: Policy) -> str:
    return ",\n    ".join(
        f"{_text_of(policy.columns[name])} AS {name}" for name in policy.dimensions
    )


def _known(followed: Collection[int]) -> str:
    return f"key IN ({', '.join(str(int(key)) for key in sorted(followed))})"


def _pinned(policy: Policy, parameters: dict[str, Any]) -> str:
    """The condition that a key is a pinned one."""
    pins = []
    for number, pin in enumerate(policy.pins):
        parts = []
        for name, text in pin.items():
            parameters[f"pin{number}_{name}"] = text
            parts.append(equals(policy.columns[name], f"{{pin{number}_{name}:String}}"))
        pins.append(" AND ".join(parts))
    return f"({' OR '.join(f'({pin})' for pin in pins)})"


def _text_of(column: Column) -> str:
    if column.kind is Kind.ADDRESS:
        return f"replaceRegexpOne(toString({column.name}), '^::ffff:', '')"
    if column.kind is Kind.MAC:
        return f"MACNumToString({column.name})"
    return f"toString({column.name})"
