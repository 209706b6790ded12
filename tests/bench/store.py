"""The store alone: what inserts, rollups and merges cost, bytes per flow.

Flows are those of :mod:`tests.bench.traffic`. How long queries take is told by
:mod:`tests.bench.latency`.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.insert import Encoding
from tests.bench.day import migrated_store, until_merged
from tests.bench.processes import cpu_seconds, memory_bytes, most_memory_bytes
from tests.bench.report import machine, write_between
from tests.bench.traffic import Traffic

#: Rate whose inserts the costs are measured with; nothing waits for the clock.
FLOWS_PER_SECOND: Final = 500_000
PAGE: Final = Path(__file__).parents[2] / "docs/reference/benchmarks.md"
BEGIN: Final = "<!-- store:begin -->"
END: Final = "<!-- store:end -->"
_UNMERGED_INSERTS: Final = 4


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
    most_megabytes: float


def cost(flows: int, batch_rows: int) -> StoreCost:
    """Insert ``flows`` in batches as a collector would at a high rate, then let merges end.

    The first inserts are measured while no merge may run: merges are what the rest of all costs.
    One insert goes ahead of them, for whatever a start brings with it.
    """
    traffic, encoding = Traffic(), Encoding()
    begin = int(time.time()) // 3600 * 3_600_000 - 3_600_000
    batches = max(flows // batch_rows, _UNMERGED_INSERTS + 1)
    flows = batches * batch_rows
    encoded = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="flow-bench-") as folder,
        migrated_store(Path(folder)) as (store, _, client),
    ):
        client.command("SYSTEM STOP MERGES")
        milliseconds = batch_rows * 1000 // FLOWS_PER_SECOND
        first = traffic.flows(batch_rows, begin=begin - milliseconds, milliseconds=milliseconds)
        encoding.encode([first], "bench-first").send(client)
        before = cpu_seconds(store.pid)
        unmerged = 0.0
        for number in range(batches):
            batch = traffic.flows(
                batch_rows, begin=begin + number * milliseconds, milliseconds=milliseconds
            )
            began = time.thread_time()
            insert = encoding.encode([batch], f"bench-{number}")
            encoded += time.thread_time() - began
            insert.send(client)
            if number + 1 == _UNMERGED_INSERTS:
                unmerged = (cpu_seconds(store.pid) - before) / (number + 1)
                client.command("SYSTEM START MERGES")
        megabytes = memory_bytes(store.pid) / 1e6
        until_merged(client)
        used = cpu_seconds(store.pid) - before
        most_megabytes = most_memory_bytes(store.pid) / 1e6
        sizes = _sizes(client)
        stored = sum(rows for table, rows, _ in sizes if table == "flows")
        assert stored == flows + batch_rows, f"{stored} of {flows + batch_rows} flows are there"
    return StoreCost(
        flows,
        batch_rows,
        encode=encoded / flows * 1e6,
        insert=unmerged / batch_rows * 1e6,
        merge=(used - unmerged * batches) / flows * 1e6,
        bytes_per_flow={table: size / stored for table, _, size in sizes},
        megabytes=megabytes,
        most_megabytes=most_megabytes,
    )


def _sizes(client: Client) -> list[tuple[str, int, int]]:
    """Table, rows, bytes on disk; the largest first."""
    return [
        (row[0], int(row[1]), int(row[2]))
        for row in client.query(
            "SELECT table, sum(rows), sum(bytes_on_disk) AS size FROM system.parts "
            "WHERE active AND database = currentDatabase() GROUP BY table ORDER BY size DESC"
        ).result_rows
    ]


def markdown(costs: list[StoreCost], load_before: float) -> str:
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
        tables.append(
            f"Resident memory of the store after the inserts: {cost_.megabytes:.0f} MB, "
            f"at most {cost_.most_megabytes:.0f} MB."
        )
    return "\n\n".join(tables)


def _table(title: str, what: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"### {title}", "", f"| {what} | |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])


def main(
    millions: Annotated[float, typer.Option(help="Million flows that are inserted.")] = 8,
    batch_rows: Annotated[int, typer.Option(help="Flows of an insert.")] = ClickHouse().batch_rows,
    update_docs: Annotated[
        bool, typer.Option(help="Write the tables into docs/reference/benchmarks.md.")
    ] = False,
) -> None:
    """Measure what the store costs."""
    load_before = os.getloadavg()[0]
    text = markdown([cost(int(millions * 1e6), batch_rows)], load_before)
    print(text)
    if update_docs:
        write_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    typer.run(main)
