"""``flow-exporter simulate``: a small datacenter's flows as real packets."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict
from typing import Annotated

import typer

from exporter.cli.app import app, parse_target


@app.command()
def simulate(
    scenario: Annotated[
        str | None, typer.Argument(help="What happens; without one, lists the scenarios.")
    ] = None,
    to: Annotated[
        str, typer.Option(metavar="ADDRESS:PORT", help="Collector to send to.")
    ] = "127.0.0.1:2055",
    rate: Annotated[
        float,
        typer.Option(min=0, help="Flow records per second at the busiest hour; 0: about 250. "
                     "The traffic's volume stays the same."),
    ] = 0.0,
    speed: Annotated[
        float, typer.Option(min=0.001, help="How much faster the scenario's own time passes.")
    ] = 1.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="Seconds to send; without it, until Ctrl-C.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same flows.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Totals as JSON.")] = False,
) -> None:  # fmt: skip
    """Send a scenario as NetFlow v5, v9, IPFIX and sFlow packets of a small datacenter.

    To a collector on this machine, every device sends from a loopback address of its own. At the
    end the totals of each device are printed, as estimates (scaled up by the sampling rate).
    """
    from exporter.simulate.live import send_live
    from exporter.simulate.scenarios import SCENARIOS, told_together

    if scenario is None:
        for known in SCENARIOS.values():
            typer.echo(f"{known.name:12} {known.summary}")
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"no scenario is named {scenario!r}: {', '.join(SCENARIOS)}")
    target = parse_target(to)
    chosen = SCENARIOS[scenario]
    if not as_json:
        typer.echo(f"Sending {chosen.name} to {to}: {chosen.summary}")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        totals = send_live(
            told_together([(chosen, 0.0)]), target, seed=seed, flows_per_second=rate,
            speed=speed, duration=duration, stop=stop,
        )  # fmt: skip
    except OSError as error:
        typer.echo(f"flow-exporter simulate: {to}: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(json.dumps({name: asdict(total) for name, total in totals.items()}))
        return
    for name, total in totals.items():
        typer.echo(
            f"{name:8} {total.datagrams} datagrams, {total.flows} flows, "
            f"{total.bytes} bytes, {total.packets} packets"
        )
