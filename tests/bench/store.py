"""The store alone: what inserts, rollups and merges cost, bytes per flow, how long queries take.

``python -m tests.bench.store --millions 100`` measures with as many flows as the goals name; the
page of benchmarks is made with fewer. Flows are those of :mod:`tests.bench.traffic`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.insert import Encoding
from exporter.store.migrate import Migrator
from tests.bench.processes import cpu_seconds, memory_bytes
from tests.bench.report import machine, write_between
from tests.bench.traffic import Traffic
from tests.support.store import RunningStore

#: Rate whose inserts the costs are measured with; nothing waits for the clock.
FLOWS_PER_SECOND: Final = 500_000
PAGE: Final = Path(__file__).parents[2] / "docs/reference/benchmarks.md"
BEGIN: Final = "<!-- store:begin -->"
END: Final = "<!-- store:end -->"
_DAY_MS: Final = 86_400_000
_REPEATS: Final = 5
_UNMERGED_INSERTS: Final = 4
#: Merges are over when none has run for so long.
_QUIET_SECONDS: Final = 3.0


@dataclass(frozen=True)
class StoreCost:
    """CPU seconds per million flows (c/M) of the store's process, and bytes on disk per flow."""

    flows: int
    batch_rows: int
    encode: float
    insert: float
    merge: float
    bytes_per_flow: dict[str, float]
    megabytes: float


@dataclass(frozen=True)
class Latency:
    """A query over a day of ``flows``; the median of some runs, and what is asked of it."""

    query: str
    flows: int
    milliseconds: float
    goal: float


_HOUR: Final = "time >= {end:DateTime} - 3600 AND time < {end:DateTime}"
_DAY: Final = "time >= {end:DateTime} - 86400 AND time < {end:DateTime}"
#: Name, SQL, milliseconds that are the goal with 100 million flows a day.
_QUERIES: Final = (
    ("1 h by minute and service, flows_1m", 100,
     f"SELECT time, service, sum(bytes) FROM flows_1m WHERE {_HOUR} GROUP BY ALL"),
    ("24 h by minute and port, ten largest, flows_1m", 500,
     f"SELECT time, port, sum(bytes) FROM flows_1m WHERE {_DAY} AND port IN (SELECT port "
     f"FROM flows_1m WHERE {_DAY} GROUP BY port ORDER BY sum(bytes) DESC LIMIT 10) GROUP BY ALL"),
    ("24 h by hour and service, flows_1h", 500,
     f"SELECT time, service, sum(bytes) FROM flows_1h WHERE {_DAY} GROUP BY ALL"),
    ("1 h, ten largest sources, flows", 500,
     "SELECT src_addr, sum(bytes) AS b FROM flows WHERE time_received >= {end:DateTime} - 3600 "
     "AND time_received < {end:DateTime} GROUP BY src_addr ORDER BY b DESC LIMIT 10"),
    ("24 h of one address, source or destination, flows", 300,
     "SELECT way, peer, sum(bytes) AS b FROM host_traffic WHERE addr = {addr:IPv6} AND "
     "time_received >= {end:DateTime} - 86400 AND time_received < {end:DateTime} "
     "GROUP BY way, peer ORDER BY b DESC LIMIT 100"),
    ("24 h, distinct sources of each destination, hosts_1h", 1000,
     "SELECT addr, uniqCombinedMerge(12)(unique_src_addr) AS sources FROM hosts_1h "
     f"WHERE {_DAY} GROUP BY addr ORDER BY sources DESC LIMIT 10"),
)  # fmt: skip


@contextmanager
def _migrated(folder: Path) -> Iterator[tuple[RunningStore, Client]]:
    with RunningStore(folder / "store") as store:
        settings = ClickHouse(
            url=store.url,
            user=store.user,
            password_file=str(store.data_dir / "writer.password"),
            insert_timeout_seconds=600,
        )
        Migrator(settings, resource("clickhouse/migrations")).apply()
        with connect(settings) as client:
            yield store, client


def cost(flows: int, batch_rows: int) -> StoreCost:
    """Insert ``flows`` in batches as a collector would at a high rate, then let merges end.

    The first inserts are measured while no merge may run: merges are what the rest of all costs.
    """
    traffic, encoding = Traffic(), Encoding()
    begin = int(time.time()) // 3600 * 3_600_000 - 3_600_000
    batches = max(flows // batch_rows, _UNMERGED_INSERTS + 1)
    flows = batches * batch_rows
    encoded = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="flow-bench-") as folder,
        _migrated(Path(folder)) as (store, client),
    ):
        client.command("SYSTEM STOP MERGES")
        before = cpu_seconds(store.pid)
        unmerged = 0.0
        for number in range(batches):
            batch = traffic.flows(
                batch_rows,
                begin=begin + number * batch_rows * 1000 // FLOWS_PER_SECOND,
                milliseconds=batch_rows * 1000 // FLOWS_PER_SECOND,
            )
            began = time.thread_time()
            insert = encoding.encode([batch], f"bench-{number}")
            encoded += time.thread_time() - began
            insert.send(client)
            if number + 1 == _UNMERGED_INSERTS:
                unmerged = (cpu_seconds(store.pid) - before) / (number + 1)
                client.command("SYSTEM START MERGES")
        megabytes = memory_bytes(store.pid) / 1e6
        _until_merged(client)
        used = cpu_seconds(store.pid) - before
        sizes = _sizes(client)
        stored = sum(rows for table, rows, _ in sizes if table == "flows")
        assert stored == flows, f"{stored} of {flows} flows are there"
    return StoreCost(
        flows,
        batch_rows,
        encode=encoded / flows * 1e6,
        insert=unmerged / batch_rows * 1e6,
        merge=(used - unmerged * batches) / flows * 1e6,
        bytes_per_flow={table: size / flows for table, _, size in sizes},
        megabytes=megabytes,
    )


def latencies(flows: int) -> list[Latency]:
    """Fill a day with ``flows`` and ask; no merges run meanwhile."""
    traffic, encoding = Traffic(), Encoding()
    end = int(time.time()) // 3600 * 3_600_000
    batch_rows = min(250_000, flows)
    with (
        tempfile.TemporaryDirectory(prefix="flow-bench-") as folder,
        _migrated(Path(folder)) as (store, client),
    ):
        for number in range(0, flows, batch_rows):
            batch = traffic.flows(
                batch_rows,
                begin=end - _DAY_MS + number * _DAY_MS // flows,
                milliseconds=batch_rows * _DAY_MS // flows,
            )
            encoding.encode([batch], f"bench-{number}").send(client)
        encoding.free()
        _until_merged(client)
        address = client.query(
            "SELECT addr FROM hosts_1h GROUP BY addr ORDER BY sum(flows_sent + flows_received) "
            "DESC LIMIT 1 OFFSET 500"
        ).first_row
        assert address is not None
        parameters = {"end": end // 1000, "addr": str(address[0])}
        with store.client(reader=True, database="flow") as reader:
            return [
                Latency(name, flows, _median(reader, sql, parameters), goal)
                for name, goal, sql in _QUERIES
            ]


def _median(client: Client, sql: str, parameters: dict[str, Any]) -> float:
    times = []
    for number in range(_REPEATS + 1):
        began = time.perf_counter()
        client.query(sql, parameters=parameters)
        if number:  # the first one warms up
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def _sizes(client: Client) -> list[tuple[str, int, int]]:
    """Table, rows, bytes on disk; the largest first."""
    return [
        (row[0], int(row[1]), int(row[2]))
        for row in client.query(
            "SELECT table, sum(rows), sum(bytes_on_disk) AS size FROM system.parts "
            "WHERE active AND database = currentDatabase() GROUP BY table ORDER BY size DESC"
        ).result_rows
    ]


def _until_merged(client: Client, limit_seconds: float = 600.0) -> None:
    deadline = time.monotonic() + limit_seconds
    quiet_since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - quiet_since < _QUIET_SECONDS:
        row = client.query("SELECT count() FROM system.merges").first_row
        if row is None or row[0]:
            quiet_since = time.monotonic()
        time.sleep(0.2)


def markdown(costs: list[StoreCost], asked: list[Latency], load_before: float) -> str:
    """The tables of the page."""
    tables = [f"Measured on {machine()}, load before the run {load_before:.1f}."]
    for cost_ in costs:
        rows = [
            ("encode (collector)", f"{cost_.encode:.2f}"),
            ("insert, rollups included", f"{cost_.insert:.2f}"),
            ("merges", f"{cost_.merge:.2f}"),
            ("all of it", f"{cost_.encode + cost_.insert + cost_.merge:.2f}"),
        ]
        title = f"{cost_.flows / 1e6:g} M flows in inserts of {cost_.batch_rows:,}"
        tables.append(_table(f"Store: CPU seconds per million flows, {title}", "", rows))
        sizes = [(f"`{t}`", f"{b:.2f}") for t, b in cost_.bytes_per_flow.items() if b >= 0.01]
        sizes.append(("all", f"{sum(cost_.bytes_per_flow.values()):.2f}"))
        tables.append(_table("Store: bytes on disk per flow", "table", sizes))
        tables.append(f"Resident memory of the store after the inserts: {cost_.megabytes:.0f} MB.")
    if asked:
        answers = [
            (a.query, f"{a.milliseconds:.0f} ms (goal {a.goal:.0f} with 100 M)") for a in asked
        ]
        title = f"Store: queries over a day of {asked[0].flows / 1e6:g} M flows"
        tables.append(_table(title, "query", answers))
    return "\n\n".join(tables)


def _table(title: str, what: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"### {title}", "", f"| {what} | |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def main(
    millions: Annotated[float, typer.Option(help="Million flows in the day that is asked.")] = 10,
    cost_millions: Annotated[float, typer.Option(help="Million flows that are inserted.")] = 8,
    batch_rows: Annotated[int, typer.Option(help="Flows of an insert.")] = ClickHouse().batch_rows,
    update_docs: Annotated[
        bool, typer.Option(help="Write the tables into docs/reference/benchmarks.md.")
    ] = False,
) -> None:
    """Measure what the store costs and how long queries take."""
    load_before = os.getloadavg()[0]
    costs = [cost(int(cost_millions * 1e6), batch_rows)] if cost_millions else []
    asked = latencies(int(millions * 1e6)) if millions else []
    text = markdown(costs, asked, load_before)
    print(text)
    if update_docs:
        write_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    typer.run(main)
