"""``python -m tests.bench``: ourselves against nfcapd and nfacctd, on the same packets.

docs/reference/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import link, receivers
from tests.bench.enrichment import BATCH_FLOWS, enrichment_cost
from tests.bench.measure import (
    Load,
    decode_cost,
    idle_cost,
    memory,
    peak_rate,
    receive_costs,
)
from tests.bench.report import OURS, Results
from tests.bench.workloads import KINDS, Kind, Workload, build

PAGE = Path(__file__).parents[2] / "docs/reference/benchmarks.md"
END_TO_END = "end to end"
ENRICHMENT = "enrichment"
IDLE = "idle"
IDLE_PACKETS = 100
#: Workloads whose highest rate is searched for, and those measured end to end.
PEAKS = ("netflow9 IPv4", "ipfix IPv6", "sflow5")
ENDS_TO_END = ("netflow9 IPv4", "ipfix IPv6", "sflow5")


@dataclass(frozen=True)
class Size:
    """How much is sent, how fast; pmacct gets the first part of it, slower, as it would lose.

    Flows to warm up with are sent before those that are measured, in ``turns``. ``busy`` is the
    second rate, at which we and nfcapd are measured again: what naps between packets cost is small
    there.
    """

    flows: int
    warm_up: int
    turns: int
    rate: float
    pmacct_flows: int
    pmacct_warm_up: int
    pmacct_rate: float
    busy_flows: int
    busy_turns: int
    busy_rate: float
    peak_seconds: float
    devices: tuple[int, ...]
    idle_seconds: float

    @property
    def most_flows(self) -> int:
        """So many are sent to one receiver."""
        return self.warm_up + max(self.turns * self.flows, self.busy_turns * self.busy_flows)


FULL = Size(
    500_000, 1_000_000, 5, 250_000, 50_000, 10_000, 25_000,
    1_000_000, 3, 1_000_000, 1.5, (1, 100, 2000), 30.0,
)  # fmt: skip
QUICK = Size(
    200_000, 100_000, 1, 200_000, 20_000, 5_000, 20_000, 400_000, 1, 800_000, 0.7, (1, 100), 10.0
)


@dataclass(frozen=True)
class Step:
    """One measurement: what the progress bar says, and what it does with the results."""

    what: str
    run: Callable[[Results], Any]


def _loads(kind: Kind, size: Size, address: str = receivers.LOOPBACK) -> dict[str, Load]:
    """Us and nfcapd, where it knows the protocol."""
    found = {OURS: _load(partial(receivers.ours, address=address), size)}
    if kind.name != "sflow5":
        found["nfcapd"] = _load(receivers.nfcapd(address=address), size)
    return found


def _load(starter: receivers.Starter, size: Size) -> Load:
    return Load(starter, size.flows, size.warm_up, size.rate, size.turns)


def _all_loads(kind: Kind, size: Size) -> dict[str, Load]:
    """The same and everyone else."""
    # The store merges, and pmacct writes, for a while after the last packet.
    pmacct = partial(
        Load, flows=size.pmacct_flows, warm_up_flows=size.pmacct_warm_up,
        flows_per_second=size.pmacct_rate, turns=1, idle_seconds=3.0,
    )  # fmt: skip
    found = _loads(kind, size)
    if kind.name == "sflow5":
        found["sfacctd"] = pmacct(receivers.pmacct("sfacctd"))
    else:
        found["nfcapd -y"] = _load(receivers.nfcapd("-y"), size)
        found["nfacctd"] = pmacct(receivers.pmacct("nfacctd"))
    if kind.name in ENDS_TO_END:
        end_to_end = _load(receivers.collector, size)
        found[END_TO_END] = replace(end_to_end, turns=1, idle_seconds=3.0)
    return found


def _steps(kind: Kind, size: Size, folder: Path, *, coalesced: bool, peaks: bool) -> list[Step]:
    """All measurements of one workload; the first of them makes its packets."""
    file = folder / "workload.npz"
    made: list[Workload] = []

    def make(_: Results) -> None:
        made.append(build(kind, size.most_flows))
        made[0].save(file)

    def costs(results: Results) -> None:
        results.costs += receive_costs(made[0], file, _all_loads(kind, size))

    def busy(results: Results) -> None:
        faster = {
            name: replace(load, flows=size.busy_flows, flows_per_second=size.busy_rate,
                          turns=size.busy_turns)
            for name, load in _loads(kind, size).items()
        }  # fmt: skip
        results.busy += receive_costs(made[0], file, faster)

    def together(results: Results) -> None:
        with link.coalescing() as way:
            loads = _loads(kind, size, way.address)
            results.coalesced += receive_costs(made[0], file, loads, way)

    def peak(name: str, load: Load) -> Step:
        return Step(f"{name}, highest rate", lambda results: results.peaks.append(peak_rate(
            made[0], file, name, load.starter, start=size.rate, seconds=size.peak_seconds,
        )))  # fmt: skip

    steps = [
        Step("making packets", make),
        Step("decode alone", lambda results: results.costs.append(decode_cost(made[0], file))),
        Step("all in turns", costs),
    ]
    if coalesced:
        steps.append(Step("coalesced", together))
    if kind.name != "sflow5":  # a million samples are 250,000 datagrams: beyond the sender
        steps.append(Step("busy", busy))
    if peaks and kind.name in PEAKS:
        steps += [peak(name, load) for name, load in _loads(kind, size).items()]
    return [Step(f"{kind.name}: {step.what}", step.run) for step in steps]


def _enrichment_steps() -> list[Step]:
    def step(flows: int) -> Step:
        def run(results: Results) -> None:
            results.enrichments.append(enrichment_cost(flows))

        return Step(f"{ENRICHMENT}: batches of {flows:,}", run)

    return [step(flows) for flows in BATCH_FLOWS]


def _standing_steps(size: Size) -> list[Step]:
    """What a receiver takes that has little to do: memory, and CPU at few packets."""
    starters: dict[str, receivers.Starter] = {
        OURS: receivers.ours, END_TO_END: receivers.collector, "nfcapd": receivers.nfcapd(),
    }  # fmt: skip

    def remember(name: str, starter: receivers.Starter) -> Step:
        def run(results: Results) -> None:
            results.memories += memory(name, starter, size.devices)

        return Step(f"memory: {name}", run)

    def rest(name: str, starter: receivers.Starter) -> Step:
        def run(results: Results) -> None:
            results.idle.append(idle_cost(
                name, starter, packets_per_second=IDLE_PACKETS, seconds=size.idle_seconds
            ))  # fmt: skip

        return Step(f"{IDLE}: {name}", run)

    found = starters.items()
    return [*(remember(*each) for each in found), *(rest(*each) for each in found)]


def main(
    quick: Annotated[
        bool, typer.Option(help="Three minutes instead of half an hour; the figures vary.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON.")] = False,
    update_docs: Annotated[
        bool, typer.Option(help="Write the tables into docs/reference/benchmarks.md.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only workloads whose names contain this; repeatable.")
    ] = None,
    peaks: Annotated[bool, typer.Option(help="Search for the highest rates, too.")] = True,
) -> None:
    """Measure flow-exporter, nfcapd and nfacctd on the same packets, in turns."""
    size = QUICK if quick else FULL
    chosen = [k for k in KINDS if not only or any(part in k.name for part in only)]
    results = Results(quick, os.getloadavg()[0])
    errors = Console(stderr=True)
    failures: list[str] = []
    no_link = link.why_not() if chosen else ""
    if no_link:
        errors.print(f"Bursts that an interface coalesces are not measured: {no_link}")
    with tempfile.TemporaryDirectory(prefix="flow-bench-") as folder:
        steps = [
            step
            for kind in chosen
            for step in _steps(kind, size, Path(folder), coalesced=not no_link, peaks=peaks)
        ]
        if not only or any(part in IDLE for part in only):
            steps += _standing_steps(size)
        if not only or any(part in ENRICHMENT for part in only):
            steps += _enrichment_steps()
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=errors,
        )  # fmt: skip
        with bar:
            task = bar.add_task("", total=len(steps))
            for step in steps:
                bar.update(task, description=step.what)
                try:
                    step.run(results)
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    failures.append(f"{step.what}: {error}")
                bar.advance(task)
    if as_json:
        print(results.as_json())
    else:
        results.print(Console())
    for failure in failures:
        errors.print(failure, markup=False)
    if failures:
        raise typer.Exit(1)
    if update_docs:
        results.update(PAGE)


if __name__ == "__main__":
    typer.run(main)
