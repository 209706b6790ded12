"""Policies evaluated by the real store, with a clock that a test turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry

from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.metrics import PolicyCollector
from exporter.policies.model import Policy, PolicySet
from tests.support.database import Database

#: A full minute; flows much older than the present would be past the life of the table.
NOW = int(time.time()) // 60 * 60
COLUMNS = (
    "time_received", "src_addr", "dst_addr", "dst_host", "dst_service", "dst_port", "proto",
    "tcp_flags", "bytes", "packets", "device",
)  # fmt: skip


def insert(client: Client, *rows: dict[str, Any]) -> None:
    """Flows received ``ago`` seconds before NOW, 10.9.9.9 to 10.0.0.1 unless told otherwise."""
    usual = {
        "ago": 10, "src_addr": "10.9.9.9", "dst_addr": "10.0.0.1", "dst_host": "",
        "dst_service": "", "dst_port": 443, "proto": 17, "tcp_flags": 0, "bytes": 0, "packets": 1,
        "device": "",
    }  # fmt: skip
    table = []
    for row in rows:
        full = usual | row
        full["time_received"] = int((NOW - full["ago"]) * 1000)
        table.append([full[name] for name in COLUMNS])
    values = ", ".join(
        f"(fromUnixTimestamp64Milli({r[0]}), toIPv6('{r[1]}'), toIPv6('{r[2]}'), '{r[3]}', "
        f"'{r[4]}', {', '.join(str(v) for v in r[5:-1])}, '{r[-1]}')"
        for r in table
    )
    client.command(f"INSERT INTO flows ({', '.join(COLUMNS)}) VALUES {values}")


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


class Evaluated:
    """An evaluator with a clock of its own, and what it tells Prometheus."""

    def __init__(
        self,
        database: Database,
        *policies: Policy,
        given: PolicySet | None = None,
        speeds: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self.clock = Clock()
        self.evaluator = PolicyEvaluator(
            database.connect,
            given or PolicySet(policies=list(policies)),
            delay_seconds=0,
            query_timeout_seconds=60,
            speeds=lambda: speeds or {},
            clock=self.clock,
        )
        self.registry = CollectorRegistry()
        self.registry.register(PolicyCollector(self.evaluator))

    def evaluate(self, after: float = 0) -> None:
        self.clock.now += after
        self.evaluator.evaluate_due()

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == name
        }

    def failures(self) -> dict[tuple[tuple[str, str], ...], float]:
        """Failed evaluations, where there are any."""
        counted = self.samples("flow_exporter_policy_evaluation_failures_total")
        return {labels: count for labels, count in counted.items() if count}

    def values(self, *labels: str) -> dict[tuple[str, ...], float]:
        """``flow_policy_value`` by these labels."""
        return {
            tuple(dict(key).get(label, "") for label in labels): value
            for key, value in self.samples("flow_policy_value").items()
        }


def policy(**changes: Any) -> Policy:
    return Policy.model_validate(
        {
            "name": "p",
            "dimensions": ["dst_addr"],
            "measure": "bits_per_second",
            "window": "1m",
            "bounds": {"above": {"static": 1000}},
        }
        | changes
    )
