"""What was behind an alert: the largest contributors to its key, before it and during it.

Flows leave the store long before an incident is forgotten, so this is asked once, when the alert
fires, and kept in table ``incident_evidence``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from exporter.policies.model import Policy
from exporter.policies.query import Lists, Query, condition_of, dimension_text, equals
from exporter.store.session import Client

#: Columns of table ``incident_evidence`` in the order of :func:`take`.
COLUMNS: Final = (
    "fingerprint", "starts_at", "captured_at", "alertname", "policy", "dimension", "window", "rank",
    "value", "bytes", "packets", "flows",
)  # fmt: skip

#: What is grouped by, as far as the alert's key does not fix it.
DIMENSIONS: Final = (
    "src_addr", "src_host", "src_network", "src_as", "src_country", "src_port", "dst_addr",
    "dst_host", "dst_network", "dst_as", "dst_country", "dst_port", "dst_service", "proto",
    "tcp_flags", "device", "in_if_name", "out_if_name", "dns_name", "dns_rcode",
)  # fmt: skip

#: The name under which the sum of all flows of the key is kept.
TOTAL: Final = "total"

#: Contributors kept of each window.
TOP: Final = 10

#: What is ranked by, for policies that do not measure it themselves.
_RANKED_BY: Final = {"bits_per_second": "bytes", "packets_per_second": "packets"}

_SETTINGS: Final = {"max_execution_time": 10, "max_threads": 2, "max_memory_usage": 2_000_000_000}


@dataclass(frozen=True, slots=True)
class Case:
    """A policy's alert that fires since ``starts_at`` (UTC)."""

    fingerprint: str
    starts_at: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Windows:
    """Two stretches of time of one length: ``during`` ends at ``end``, ``before`` lies ahead of
    the earliest moment at which what is unusual can have begun."""

    before: datetime
    during: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Of each of the two."""
        return self.end - self.during


def windows(policy: Policy, case: Case, now: datetime) -> Windows:
    """The times to compare: an alert fires some minutes after what it tells of began."""
    window = timedelta(seconds=policy.window)
    during = case.starts_at - window - timedelta(minutes=policy.breach.minutes)
    end = max(min(now, case.starts_at + window), during + timedelta(minutes=1))
    earliest = case.starts_at - window - timedelta(minutes=policy.breach.of)
    return Windows(earliest - (end - during), during, end)


def take(
    client: Client,
    policy: Policy,
    case: Case,
    now: datetime,
    lists: Lists | None = None,
    *,
    delay: timedelta = timedelta(),
) -> list[tuple[Any, ...]]:
    """Rows for table ``incident_evidence``; a dimension that is empty in all flows has none.

    ``lists`` are those that the policy's filter looks up. Flows are in the table ``delay`` after
    their reception: of later ones each query would find others.

    Raises:
        clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
    """
    times = windows(policy, case, now - delay)
    rows: list[tuple[Any, ...]] = []
    for dimension in (TOTAL, *DIMENSIONS):
        if dimension in policy.dimensions or dimension not in (TOTAL, *policy.columns):
            continue
        query = evidence_query(policy, case, times, dimension, lists)
        result = client.query(query.sql, parameters=query.parameters, settings=_SETTINGS)
        found = result.result_rows
        if dimension != TOTAL and all(row[0] in ("", "0") for row in found):
            continue
        head = (case.fingerprint, case.starts_at, now, case.labels.get("alertname", ""))
        for window, rank, row in _ranked(policy, found):
            rows.append((*head, policy.name, dimension, window, rank, *row))
    return rows


def evidence_query(
    policy: Policy, case: Case, times: Windows, dimension: str, lists: Lists | None = None
) -> Query:
    """The largest contributors by ``dimension`` in either window: ``value`` (String), then bytes,
    packets and flows (UInt64) during it and before it; DNS queries count as flows of no bytes."""
    measured = _RANKED_BY.get(policy.measure, "flows")
    shown = "''" if dimension == TOTAL else dimension_text(dimension, policy.table)
    size, number = ("bytes", "packets") if "bytes" in policy.columns else ("0", "0")
    parameters: dict[str, Any] = {
        "before_ms": _milliseconds(times.before),
        "before_end_ms": _milliseconds(times.before + times.length),
        "during_ms": _milliseconds(times.during),
        "end_ms": _milliseconds(times.end),
        "top": TOP,
    }
    condition = condition_of(policy, parameters, lists or {})
    conditions = [f"(\n{condition}\n)"] if condition else []
    for index, name in enumerate(policy.dimensions):
        parameters[f"key{index}"] = case.labels.get(name, "")
        conditions.append(equals(policy.columns[name], f"{{key{index}:String}}"))
    sql = f"""SELECT value, bytes_1, packets_1, flows_1, bytes_0, packets_0, flows_0
FROM
(
    SELECT
        *,
        row_number() OVER (ORDER BY {measured}_1 DESC, value) AS rank_1,
        row_number() OVER (ORDER BY {measured}_0 DESC, value) AS rank_0
    FROM
    (
        SELECT
            {shown} AS value,
            sumIf(toUInt64({size}), in_window) AS bytes_1,
            sumIf(toUInt64({number}), in_window) AS packets_1,
            countIf(in_window) AS flows_1,
            sum(toUInt64({size})) - bytes_1 AS bytes_0,
            sum(toUInt64({number})) - packets_1 AS packets_0,
            count() - flows_1 AS flows_0
        FROM
        (
            SELECT *, time_received >= {_instant("during_ms")} AS in_window
            FROM {policy.counted}
            WHERE time_received >= {_instant("before_ms")}
              AND time_received < {_instant("end_ms")}
              AND (time_received < {_instant("before_end_ms")} OR in_window)
              AND {" AND ".join(conditions)}
        )
        GROUP BY value
    )
)
WHERE rank_1 <= {{top:UInt32}} OR rank_0 <= {{top:UInt32}}
"""  # noqa: S608 - identifiers come from the schema, the filter was checked token by token
    return Query(sql, parameters)


def _ranked(
    policy: Policy, found: list[tuple[Any, ...]]
) -> Iterator[tuple[str, int, tuple[Any, ...]]]:
    """Each contributor's row in each window in which it has traffic: window, rank, value, bytes,
    packets, flows."""
    measured = ("bytes", "packets", "flows").index(_RANKED_BY.get(policy.measure, "flows"))
    for window, first in (("during", 1), ("before", 4)):
        numbers = slice(first, first + 3)
        there = [(row[0], *row[numbers]) for row in found if row[numbers][2] > 0]
        there.sort(key=lambda row: (-row[1 + measured], row[0]))
        for rank, row in enumerate(there, start=1):
            yield window, rank, row


def _instant(parameter: str) -> str:
    return f"fromUnixTimestamp64Milli({{{parameter}:Int64}}, 'UTC')"


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
