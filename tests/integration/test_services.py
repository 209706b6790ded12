"""Services over long ranges against brute force, over a day of flows as many hosts make them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.explore.drawn import ALL_FLOWS, DRAWN_FLOWS
from exporter.store.draw import THRESHOLD
from grafana.source import services_sql
from tests.bench.day import DAY_SECONDS
from tests.support.day import stored_day
from tests.support.grafana import Context, Value, expand_sql

FLOWS = 120_000
STEP = 300


@dataclass(frozen=True)
class Flow:
    """What services are made of, of a flow; ``time`` in seconds since the epoch."""

    time: float
    service: tuple[str, str]
    edge: tuple[str, str]
    src_addr: str
    dst_addr: str
    offered: bool
    bytes: int


@dataclass(frozen=True)
class Day:
    """A day of flows in a store, up to ``end``."""

    reader: Client
    flows: list[Flow]
    end: int

    @property
    def start(self) -> int:
        """When it begins."""
        return self.end - DAY_SECONDS

    def ask(
        self, query: Callable[[], str], step: int = STEP, **chosen: Value
    ) -> list[dict[str, Any]]:
        """The rows of a panel's query over the day, in buckets of ``step`` seconds."""
        variables: dict[str, Value] = {
            "address": "",
            "measure": "bits_per_second",
            "since": "",
            "looked_at": ALL_FLOWS,
        }
        sql = expand_sql(query(), Context(self.start, self.end, step, variables | chosen))
        return list(self.reader.query(sql).named_results())


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    with stored_day(FLOWS) as stored:
        rows = stored.reader.query(
            "SELECT toUnixTimestamp64Milli(time_received), src_addr, dst_addr, src_port,"
            " dst_port, toString(dst_service), toString(src_network), toString(dst_host),"
            " toString(dst_network), bytes FROM flows"
        ).result_rows
        yield Day(stored.reader, [_flow(*row) for row in rows], stored.end)


def _flow(
    milliseconds: int, src: Any, dst: Any, src_port: int, dst_port: int, service: str,
    talks: str, host: str, network: str, octets: int,
) -> Flow:  # fmt: skip
    source, destination = (str(a.ipv4_mapped or a) for a in (src, dst))
    listens = f"{host or network or 'elsewhere'} {service or dst_port}"
    return Flow(
        milliseconds / 1000,
        (destination, str(dst_port)),
        (f"from {talks or 'elsewhere'}", listens),
        source,
        destination,
        dst_port <= src_port or service != "",
        octets,
    )


def changes(day: Day, split: float) -> dict[tuple[str, str], tuple[float, float]]:
    """Bits per second of each service before and from ``split`` on."""
    found: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    lengths = (split - day.start, day.end - split)
    for flow in day.flows:
        if flow.offered:
            during = flow.time >= split
            found[flow.service][during] += flow.bytes * 8 / lengths[during]
    return {service: (before, during) for service, (before, during) in found.items()}


def test_rises_and_dips_of_a_day_are_those_of_its_flows(day: Day) -> None:
    expected = changes(day, day.start + DAY_SECONDS / 2)
    order = sorted(expected, key=lambda service: -abs(expected[service][1] - expected[service][0]))
    rows = day.ask(services_sql.rises_query)
    assert [(row["Key"], row["Second key"]) for row in rows] == order[: len(rows)]
    for row, service in zip(rows, order, strict=False):
        assert (row["Before"], row["During"]) == pytest.approx(expected[service])


def rises(
    day: Day, step: int = STEP, **chosen: Value
) -> dict[tuple[str, str], tuple[float, float]]:
    """Before and during of all services that the panel would show were it long enough."""
    rows = day.ask(lambda: services_sql.rises_query(100_000), step, **chosen)
    return {(row["Key"], row["Second key"]): (row["Before"], row["During"]) for row in rows}


def test_drawn_flows_stand_for_all(day: Day) -> None:
    expected = rises(day)
    found = rises(day, looked_at=DRAWN_FLOWS)
    assert len(found) < len(expected) * 2 / 3, "of many services no flow was looked at"
    for time in (0, 1):
        whole = sum(each[time] for each in expected.values())
        assert sum(each[time] for each in found.values()) == pytest.approx(whole, rel=0.1)
        assert sum(each[time] for each in found.values()) != pytest.approx(whole, rel=1e-6)
    largest = max(expected, key=lambda service: sum(expected[service]))
    for estimate, bits in zip(found[largest], expected[largest], strict=True):
        assert estimate == pytest.approx(bits, rel=near(day, bits * DAY_SECONDS / 2))


def near(day: Day, bits: float) -> float:
    """How far off an estimate of so many bits is at most: five standard deviations, as a part."""
    mean = sum(flow.bytes for flow in day.flows) / len(day.flows)
    return float(5 * (THRESHOLD / (bits / 8 / mean)) ** 0.5)


def test_different_values_are_counted_of_all_flows(day: Day) -> None:
    expected = rises(day, measure="unique_dst_port")
    assert rises(day, measure="unique_dst_port", looked_at=DRAWN_FLOWS) == expected


def test_the_graph_of_a_day_has_its_largest_edges(day: Day) -> None:
    expected: dict[tuple[str, str], float] = defaultdict(float)
    for flow in day.flows:
        if flow.offered:
            expected[flow.edge] += flow.bytes * 8 / DAY_SECONDS
    largest = sorted(expected, key=lambda edge: -expected[edge])
    rows = day.ask(services_sql.edges_query)
    assert [(row["source"], row["target"]) for row in rows] == largest[:40]
    assert [row["bits"] for row in rows] == pytest.approx([expected[edge] for edge in largest[:40]])
    some = day.ask(services_sql.edges_query, looked_at=DRAWN_FLOWS)
    found = {(row["source"], row["target"]): row["bits"] for row in some}
    bits = expected[largest[0]]
    assert found[largest[0]] == pytest.approx(bits, rel=near(day, bits * DAY_SECONDS))
    assert found[largest[0]] != pytest.approx(expected[largest[0]], rel=1e-6)


def test_fan_in_of_a_day_counts_the_sources_of_hosts_by_the_hour(day: Day) -> None:
    hourly: dict[tuple[str, int], set[str]] = defaultdict(set)
    daily: dict[str, set[str]] = defaultdict(set)
    for flow in day.flows:
        hourly[flow.dst_addr, int(flow.time) // 3600 * 3600].add(flow.src_addr)
        daily[flow.dst_addr].add(flow.src_addr)
    rows = day.ask(services_sql.fan_in_query)
    shown = {row["series"].split(" ")[0] for row in rows}
    assert len(shown) == services_sql.LINES
    least = min(len(daily[host]) for host in shown)
    others = sorted((len(sources) for host, sources in daily.items() if host not in shown))
    assert others[-1] <= 1.1 * least
    assert len(rows) == services_sql.LINES * 24
    for row in rows:
        key = (row["series"].split(" ")[0], int(row["time"].replace(tzinfo=UTC).timestamp()))
        assert row["Value"] == pytest.approx(len(hourly[key]), rel=0.05)
