"""Results as tables for a terminal, as Markdown for the documentation, as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.enrichment import Enrichment
from tests.bench.measure import Cost, Idle, Memory, Peak

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
#: Receivers that others are compared with, and who they are compared to.
PEERS = ("nfcapd", "nfcapd -y", "nfacctd", "sfacctd")
OURS = "receive + decode"


@dataclass
class Results:
    """All measurements of one run."""

    quick: bool
    load_before: float
    costs: list[Cost] = field(default_factory=list)
    busy: list[Cost] = field(default_factory=list)
    coalesced: list[Cost] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    enrichments: list[Enrichment] = field(default_factory=list)

    def as_json(self) -> str:
        return json.dumps(asdict(self) | {"machine": machine()}, indent=2)

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and rows of each table."""
        found = []
        together = ", bursts coalesced by the receiving interface"
        for costs, how in ((self.costs, ""), (self.busy, ""), (self.coalesced, together)):
            if costs:
                rate = max(cost.offered for cost in costs)
                title = f"CPU seconds per million flows (c/M) at {rate / 1e6:g} M flows/s{how}"
                found.append(_costs(title, costs))
        if self.peaks:
            found.append(
                _pivot("Highest rate without loss on one core, flows per second", self.peaks, _rate)
            )
        if self.memories:
            found.append(_memories(self.memories))
        if self.idle:
            found.append(_idle(self.idle))
        if self.enrichments:
            found.append(_enrichments(self.enrichments))
        return found

    def print(self, console: Console) -> None:
        for title, header, rows in self.tables():
            table = Table(title=title, title_justify="left")
            for number, name in enumerate(header):
                table.add_column(name, justify="left" if number == 0 else "right", min_width=6)
            for row in rows:
                table.add_row(*row)
            console.print(table)

    def markdown(self) -> str:
        parts = [f"Measured on {machine()}, load before the run {self.load_before:.1f}"
                 f"{', with --quick' if self.quick else ''}."]  # fmt: skip
        for title, header, rows in self.tables():
            lines = [f"### {title}", "", "| " + " | ".join(header) + " |"]
            lines.append("|---|" + "---:|" * (len(header) - 1))
            lines += ["| " + " | ".join(row) + " |" for row in rows]
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    def update(self, page: Path) -> None:
        """Replace what stands between the markers of a documentation page."""
        write_between(page, BEGIN, END, self.markdown())


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a page."""
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def machine() -> str:
    """Processor, cores and Python of this machine."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


def _costs(what: str, costs: list[Cost]) -> tuple[str, list[str], list[list[str]]]:
    title, header, rows = _pivot(what, costs, _cost)
    names = {cost.receiver for cost in costs}
    for peer in (peer for peer in PEERS if peer in names):
        header.append(f"{peer} / ours")
        for row in rows:
            by = {c.receiver: c.turns for c in costs if c.workload == row[0]}
            row.append(_ratio(by.get(peer, ()), by.get(OURS, ())))
    return title, header, rows


def _ratio(peer: Sequence[float], ours: Sequence[float]) -> str:
    """The median of turns side by side, the least and the most of them."""
    ratios = sorted(theirs / our for theirs, our in zip(peer, ours, strict=False))
    if not ratios:
        return ""
    middle = f"{statistics.median(ratios):.1f}x"
    return middle if len(ratios) == 1 else f"{middle} ({ratios[0]:.1f} - {ratios[-1]:.1f})"


def _pivot(
    title: str, results: Iterable[Any], cell: Callable[[Any], str]
) -> tuple[str, list[str], list[list[str]]]:
    """One row for each workload, one column for each receiver, in order of appearance."""
    results = list(results)
    workloads = list(dict.fromkeys(r.workload for r in results))
    receivers = list(dict.fromkeys(r.receiver for r in results))
    cells = {(r.workload, r.receiver): cell(r) for r in results}
    rows = [[w, *(cells.get((w, r), "") for r in receivers)] for w in workloads]
    return title, ["workload", *receivers], rows


def _cost(cost: Cost) -> str:
    lost = f" ({cost.lost:.1%} lost)" if abs(cost.lost) > 0.0005 else ""
    return f"{cost.cpu_per_million:.2f}{lost}"


def _rate(peak: Peak) -> str:
    text = f"{peak.flows_per_second / 1e6:.2f} M"
    return f"over {text}" if peak.limited else text


def _memories(memories: list[Memory]) -> tuple[str, list[str], list[list[str]]]:
    receivers = list(dict.fromkeys(m.receiver for m in memories))
    counts = list(dict.fromkeys(m.devices for m in memories))
    by = {(m.devices, m.receiver): f"{m.megabytes:.0f}" for m in memories}
    rows = [[str(n), *(by.get((n, r), "") for r in receivers)] for n in counts]
    return "Resident memory by devices, MB", ["devices", *receivers], rows


def _idle(measured: list[Idle]) -> tuple[str, list[str], list[list[str]]]:
    rows = [[one.receiver, f"{one.cores:.2%}"] for one in measured]
    rate = measured[0].packets_per_second
    return f"Next to no traffic, {rate:g} packets a second", ["receiver", "of one core"], rows


def _enrichments(measured: list[Enrichment]) -> tuple[str, list[str], list[list[str]]]:
    title = "Enrichment: CPU seconds per million flows (c/M) by size of the batch"
    header = ["flows in a batch", "known addresses", "all new", "all new, after a start",
              "memory of addresses, MB", "of the MMDB file, MB"]  # fmt: skip
    rows = [
        [
            f"{e.batch_flows:,}",
            f"{e.cpu_per_million:.2f}",
            f"{e.new:.2f}",
            f"{e.first:.2f}",
            f"{e.cache_bytes / 1e6:.0f}",
            f"{e.mmdb_bytes / 1e6:.0f}",
        ]
        for e in measured
    ]
    return title, header, rows
