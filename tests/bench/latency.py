"""How long the store takes to answer over a day of flows: goals, dashboards, policies.

``python -m tests.bench.latency --millions 100`` asks as many flows as the goals name; with
``--folder`` the day stays there for the next time. Flows are those of :mod:`tests.bench.traffic`.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from clickhouse_connect.driver.client import Client

from tests.bench import evaluation, panels
from tests.bench.day import DAY_SECONDS, Day, asked_day
from tests.bench.evaluation import Evaluation
from tests.bench.panels import Asked, percentile
from tests.bench.report import machine, write_between

PAGE: Final = Path(__file__).parents[2] / "docs/reference/benchmarks.md"
BEGIN: Final = "<!-- latency:begin -->"
END: Final = "<!-- latency:end -->"
_REPEATS: Final = 5
#: Rows of the tables of what is slowest.
_SLOWEST: Final = 10

_HOUR: Final = "time >= {end:DateTime} - 3600 AND time < {end:DateTime}"
_DAY: Final = "time >= {end:DateTime} - 86400 AND time < {end:DateTime}"
_ONE_ADDRESS: Final = (
    "SELECT way, peer, sum(bytes) AS b FROM host_traffic WHERE addr = {{{}:IPv6}} AND "
    "time_received >= {{end:DateTime}} - 86400 AND time_received < {{end:DateTime}} "
    "GROUP BY way, peer ORDER BY b DESC LIMIT 100"
)
#: Name, milliseconds that are the goal with 100 million flows a day, SQL.
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
    ("24 h of one busy address, source or destination, flows", 300, _ONE_ADDRESS.format("busy")),
    ("24 h of one usual address, source or destination, flows", 300, _ONE_ADDRESS.format("usual")),
    ("24 h, destinations with most distinct sources, fan_in", 1000,
     "SELECT addr, sources FROM fan_in(since = {since:DateTime}, until = {end:DateTime}) "
     "ORDER BY sources DESC LIMIT 10"),
)  # fmt: skip


@dataclass(frozen=True)
class Latency:
    """A query over a day of ``flows``; the median of some runs, and what is asked of it."""

    query: str
    milliseconds: float
    goal: float


@dataclass(frozen=True)
class Latencies:
    """All that was measured on a day of ``flows``."""

    flows: int
    load_before: float
    goals: list[Latency]
    panels: list[Asked]
    policies: Evaluation | None


def goals(day: Day) -> list[Latency]:
    """The questions that have goals of their own."""
    parameters = {
        "end": day.end,
        "since": day.end - DAY_SECONDS,
        "busy": day.address,
        "usual": day.usual_address,
    }
    return [
        Latency(name, _median(day.reader, sql, parameters), goal) for name, goal, sql in _QUERIES
    ]


def _median(client: Client, sql: str, parameters: dict[str, Any]) -> float:
    times = []
    for number in range(_REPEATS + 1):
        began = time.perf_counter()
        client.query(sql, parameters=parameters)
        if number:  # the first one warms up
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def markdown(found: Latencies) -> str:
    """The tables of the page."""
    millions = f"{found.flows / 1e6:g} M flows"
    parts = [f"Measured on {machine()}, load before the run {found.load_before:.1f}."]
    if found.goals:
        rows = [[goal.query, _shown(goal.milliseconds), f"{goal.goal:.0f}"] for goal in found.goals]
        parts.append(_table(
            f"Store: queries over a day of {millions}",
            ["query", "ms", "goal with 100 M, ms"], rows,
        ))  # fmt: skip
    if found.panels:
        parts.append(_dashboards(found.panels, millions))
        parts.append(_slowest(found.panels))
    if found.policies is not None:
        parts.append(_policies(found.policies, millions))
    return "\n\n".join(parts)


def _dashboards(asked: list[Asked], millions: str) -> str:
    rows = []
    for name in (*dict.fromkeys(a.view.dashboard for a in asked), "all"):
        of_it = [a for a in asked if name in ("all", a.view.dashboard)]
        row = [name, str(len(of_it))]
        for span in panels.RANGES:
            times = [a.milliseconds for a in of_it if a.span == span]
            row += [_shown(percentile(times, 0.5)), _shown(percentile(times, 0.95))]
        over = sum(a.milliseconds > panels.GOAL_MS for a in of_it)
        rows.append([*row, str(over)])
    spans = [f"{span}, {what}" for span in panels.RANGES for what in ("p50", "p95")]
    header = ["dashboard", "queries", *spans, f"over {panels.GOAL_MS / 1e3:g} s"]
    title = f"Dashboards: milliseconds of a query over {millions} a day"
    return _table(title, header, rows)


def _slowest(asked: list[Asked]) -> str:
    rows = []
    for each in sorted(asked, key=lambda a: -a.milliseconds)[:_SLOWEST]:
        what = f"{each.view.dashboard}, {each.view.how}: {each.query}".replace("|", "/")
        used = [_shown(each.milliseconds), f"{each.cpu:.1f}", f"{each.rows / 1e6:.1f}"]
        rows.append([what, each.span, *used])
    header = ["query", "range", "ms", "CPU s", "million rows read"]
    return _table("Dashboards: the slowest queries", header, rows)


def _policies(found: Evaluation, millions: str) -> str:
    rows = [
        [f"`{name}`", f"{seconds:.2f}"]
        for name, seconds in sorted(found.seconds.items(), key=lambda item: -item[1])[:_SLOWEST]
    ]
    rows.append([f"all {len(found.seconds)}", f"{sum(found.seconds.values()):.2f}"])
    return (
        _table(f"Policies: seconds of one round over {millions} a day", ["policy", "s"], rows)
        + f"\n\nThe goal for all is {evaluation.GOAL_SECONDS:g} s a minute with 100 M flows. The"
        f" store used {found.cpu:.2f} CPU seconds and {found.peak_bytes / 1e6:.0f} MB more memory"
        f" at most; {found.keys} keys are followed."
    )


def _shown(milliseconds: float) -> str:
    return "too long" if milliseconds == float("inf") else f"{milliseconds:.0f}"


def _table(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |"]
    lines.append("|---|" + "---:|" * (len(header) - 1))
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main(
    millions: Annotated[float, typer.Option(help="Million flows in the day.")] = 2,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the day here, or ask the one that is here.")
    ] = None,
    only: Annotated[
        str, typer.Option(help="Dashboards whose name contains this; nothing else.")
    ] = "",
    update_docs: Annotated[
        bool, typer.Option(help="Write the tables into docs/reference/benchmarks.md.")
    ] = False,
) -> None:
    """Measure how long queries take."""
    load_before = os.getloadavg()[0]
    with asked_day(int(millions * 1e6), folder) as day:
        found = Latencies(
            day.flows,
            load_before,
            [] if only else goals(day),
            panels.measure(day, only),
            None if only else evaluation.measure(day),
        )
    text = markdown(found)
    print(text)
    if update_docs:
        write_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    typer.run(main)
