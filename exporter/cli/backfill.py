"""``flow-exporter backfill``: baselines for a new policy from flows that are already stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.connection import connected
from exporter.cli.output import fail
from exporter.cli.policies import FileOption, load_chosen
from exporter.cli.times import parse_moment
from exporter.meant import instead

if TYPE_CHECKING:
    from exporter.policies.model import Policy

_DAY = 86400


@app.command()
def backfill(
    prometheus_data: Annotated[
        Path,
        typer.Option(
            exists=True, file_okay=False, writable=True, help="Data directory of Prometheus."
        ),
    ],
    config: ConfigOption = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="This policy, may be repeated; else all with a bound by baseline."),
    ] = None,
    file: FileOption = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="How far to go back.")] = 28,
    until: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Where the past ends: 'now', or a time such as 2026-03-01T22:15, for a Prometheus "
            "that has not run since; by default three hours ago.",
        ),
    ] = "",
) -> None:
    """Compute the past values of policies and write them into Prometheus' database.

    A policy then has baselines from its first hour. The values are those that the policy would
    have told, from the stored flows; they end three hours ago, where Prometheus' own begin, unless
    it has none of its own. To do it again does no harm. Exit codes: 0 done, 1 ClickHouse or
    promtool failed, 2 wrong usage.

    Try it:

    flow-exporter backfill --prometheus-data .data/prometheus -c flow-exporter.yaml
    """
    import signal
    import time

    from exporter.policies.backfill import Backfill
    from exporter.policies.blocks import BlockError
    from exporter.progress import progress

    settings = read_config(config)
    loaded = load_chosen(settings, file)
    chosen = _chosen(loaded.policies, policy or [])
    end = _end(until, int(time.time()))
    # An hour more, for the oldest hour that the present one is compared with.
    start = end - days * _DAY - 3600
    began = time.monotonic()
    # A day that is being written ends well, and what is temporary goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with connected(settings.clickhouse) as client:
            task = Backfill(client, chosen, loaded.loaded_lists, start, end)
            with progress("days of policies", task.steps) as advance:
                samples = task.write(prometheus_data, lambda: advance(1))
    except BlockError as error:
        fail(str(error), 1)
    for name, count in samples.items():
        typer.echo(f"{name}: {count} samples of {days} days")
    typer.echo(f"{sum(samples.values())} samples in {time.monotonic() - began:.0f} s", err=True)


def _end(until: str, now: int) -> int:
    if until == "now":
        return now // 60 * 60
    if not until:
        # Prometheus holds the last hours in memory and does not expect blocks of them.
        return now // 3600 * 3600 - 3 * 3600
    try:
        return min(parse_moment(until), now) // 60 * 60
    except ValueError as error:
        raise typer.BadParameter(f"--until: {error}") from error


def _chosen(policies: list[Policy], names: list[str]) -> list[Policy]:
    known = {policy.name: policy for policy in policies}
    for name in names:
        if name not in known:
            fail(f"no policy is named {name!r}{instead(name, known)}", 2)
        if not known[name].measured.has_past:
            fail(f"policy {name}: {known[name].measure} cannot be known of the past", 2)
    return [known[name] for name in names] if names else [p for p in policies if p.has_baseline]
