"""The SQL that evaluates a policy: its top keys in one window, and the keys it already follows.

Flows count in the window in which they were received, with all their bytes: a device reports a
long flow only when it ends or its active timeout passes, so any other attribution would read too
low at the present end of time. A window at least as long as the devices' active timeout evens out
the lumps.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from exporter.policies.model import Policy
from exporter.schema import BY_NAME, Kind


@dataclass(frozen=True, slots=True)
class Query:
    """SQL with ClickHouse's ``{name:Type}`` places, and what to bind to them.

    Its result has the columns ``key`` (UInt64), one String per dimension, ``value`` (Float64),
    followed keys first, then by value, largest first.
    """

    sql: str
    parameters: dict[str, Any]


def policy_query(policy: Policy, end_ms: int, followed: Collection[int] = ()) -> Query:
    """The values of ``policy`` in the window before ``end_ms`` (milliseconds since the epoch).

    ``followed`` are hashes of keys whose values are wanted however small they are.
    """
    dimensions = ", ".join(policy.dimensions)
    shown = ",\n    ".join(f"{dimension_text(name)} AS {name}" for name in policy.dimensions)
    order = "value DESC, key"
    wanted = "value >= {minimum:Float64}"
    if followed:
        known = f"key IN ({', '.join(str(int(key)) for key in sorted(followed))})"
        order = f"{known} DESC, {order}"
        wanted = f"{wanted} OR {known}"
    condition = f"\n      AND (\n{policy.filter}\n)" if policy.filter else ""
    sql = f"""SELECT
    key,
    {shown},
    toFloat64(value) AS value
FROM
(
    SELECT
        cityHash64({dimensions}) AS key,
        {dimensions},
        {policy.measured.sql} AS value
    FROM flows
    WHERE time_received >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')
      AND time_received < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC'){condition}
    GROUP BY {dimensions}
    HAVING {wanted}
    ORDER BY {order}
    LIMIT {{limit:UInt32}}
)
ORDER BY {order}
"""  # noqa: S608 - identifiers come from the schema, the filter was checked token by token
    parameters: dict[str, Any] = {
        "start_ms": end_ms - policy.window * 1000,
        "end_ms": end_ms,
        "minimum": policy.minimum,
        "limit": policy.top + len(followed),
    }
    if "{seconds:" in policy.measured.sql:
        parameters["seconds"] = float(policy.window)
    return Query(sql, parameters)


def history_query(
    policy: Policy, start_ms: int, end_ms: int, followed: Collection[int] = ()
) -> Query:
    """What :func:`policy_query` would have given at the end of each window from ``start_ms`` to
    ``end_ms``, full windows both, one after the other.

    The first column is ``bucket``, the window's number since the epoch. Whatever key is picked up
    in one of the windows, or is ``followed`` at the start, comes with all its values.
    """
    dimensions = ", ".join(policy.dimensions)
    shown = ",\n    ".join(f"{dimension_text(name)} AS {name}" for name in policy.dimensions)
    known = ""
    if followed:
        known = f" OR key IN ({', '.join(str(int(key)) for key in sorted(followed))})"
    condition = f"\n              AND (\n{policy.filter}\n)" if policy.filter else ""
    sql = f"""SELECT
    bucket,
    key,
    {shown},
    toFloat64(value) AS value
FROM
(
    SELECT
        *,
        max(position <= {{limit:UInt32}} AND value >= {{minimum:Float64}})
            OVER (PARTITION BY key) AS picked
    FROM
    (
        SELECT *, row_number() OVER (PARTITION BY bucket ORDER BY value DESC, key) AS position
        FROM
        (
            SELECT
                intDiv(toUnixTimestamp64Milli(time_received), {{window_ms:Int64}}) AS bucket,
                cityHash64({dimensions}) AS key,
                {dimensions},
                {policy.measured.sql} AS value
            FROM flows
            WHERE time_received >= fromUnixTimestamp64Milli({{start_ms:Int64}}, 'UTC')
              AND time_received < fromUnixTimestamp64Milli({{end_ms:Int64}}, 'UTC'){condition}
            GROUP BY bucket, {dimensions}
        )
    )
)
WHERE picked{known}
ORDER BY bucket, value DESC
"""  # noqa: S608 - identifiers come from the schema, the filter was checked token by token
    parameters: dict[str, Any] = {
        "window_ms": policy.window * 1000,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "minimum": policy.minimum,
        "limit": policy.top,
    }
    if "{seconds:" in policy.measured.sql:
        parameters["seconds"] = float(policy.window)
    return Query(sql, parameters)


def dimension_text(name: str) -> str:
    """The expression that shows a dimension's value as people write it."""
    kind = BY_NAME[name].kind
    if kind is Kind.ADDRESS:
        return f"replaceRegexpOne(toString({name}), '^::ffff:', '')"
    if kind is Kind.MAC:
        return f"MACNumToString({name})"
    return f"toString({name})"
