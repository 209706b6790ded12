"""Asks ClickHouse whether it would take the policies' queries: grammar and types of filters."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from exporter.config import lines_of
from exporter.policies.model import Policy, PolicySet
from exporter.policies.query import Lists, condition_of, policy_query

_BOOLEAN: Final = frozenset({"Bool", "UInt8", "LowCardinality(UInt8)"})


def refused_queries(
    client: Client, file: Path, policies: PolicySet, running: Collection[Policy] = ()
) -> list[str]:
    """Faults that ClickHouse finds in the policies of ``file``, each as ``file:line: where: what``.

    What is ``running`` already is not asked about again.

    Raises:
        clickhouse_connect.driver.exceptions.OperationalError: ClickHouse does not answer.
    """
    asked = [policy for policy in policies.policies if policy not in running]
    faults = check_queries(client, asked, policies.loaded_lists)
    if not faults:
        return []
    refused = [(n, policy) for n, policy in enumerate(policies.policies) if policy.name in faults]
    places = [("policies", n, "filter" if policy.filter else "name") for n, policy in refused]
    return [
        f"{file}:{line}: policy {policy.name}: {faults[policy.name]}"
        for line, (_, policy) in zip(lines_of(file, places), refused, strict=True)
    ]


def check_queries(
    client: Client, policies: Iterable[Policy], lists: Lists | None = None
) -> dict[str, str]:
    """What is wrong with which policy, by name; empty when all can be evaluated.

    Nothing is read from the table.

    Raises:
        clickhouse_connect.driver.exceptions.OperationalError: ClickHouse does not answer.
    """
    faults: dict[str, str] = {}
    for policy in policies:
        fault = _fault(client, policy, lists or {})
        if fault:
            faults[policy.name] = fault
    return faults


def _fault(client: Client, policy: Policy, lists: Lists) -> str:
    query = policy_query(policy, 0, lists=lists)
    try:
        if policy.filter:
            # Checked token by token when the policy was read.
            parameters: dict[str, Any] = {}
            condition = condition_of(policy, parameters, lists)
            asked = f"DESCRIBE (SELECT (\n{condition}\n) AS filter FROM {policy.table})"  # noqa: S608
            kind = str(client.query(asked, parameters=parameters).result_rows[0][1])
            if kind not in _BOOLEAN:
                return f"filter: is {kind}, not true or false"
        client.query(f"EXPLAIN PLAN {query.sql}", parameters=query.parameters)
    except DatabaseError as error:
        if getattr(error, "code", None) is None:
            raise
        return " ".join(str(error).split())[:500]
    return ""
