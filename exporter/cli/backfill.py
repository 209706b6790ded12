"""``flow-exporter backfill``: baselines for a new policy from flows that are already stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from exporter.cli.app import ConfigOption, app, read_config

if TYPE_CHECKING:
    from exporter.policies.model import Policy, PolicySet

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
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Policies; by default those of the configuration."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="How far to go back.")] = 28,
) -> None:
    """Compute the past values of policies and write them into Prometheus' database.

    A policy then has baselines from its first hour. The values are those that the policy would
    have told, from the stored flows; they end three hours ago, where Prometheus' own begin. To do
    it again does no harm. Exit codes: 0 done, 1 ClickHouse or promtool failed, 2 wrong usage.
    """
    import time

    from clickhouse_connect.driver.exceptions import ClickHouseError
    from rich.console import Console
    from rich.progress import Progress

    from exporter.policies.backfill import Backfill
    from exporter.policies.blocks import BlockError
    from exporter.store.client import StoreError, connect, explain

    settings = read_config(config)
    loaded = _policies(settings.policies.file, file)
    chosen = _chosen(loaded.policies, policy or [])
    # Prometheus holds the last hours in memory and does not expect blocks of them.
    end = int(time.time()) // 3600 * 3600 - 3 * 3600
    # An hour more, for the oldest hour that the present one is compared with.
    start = end - days * _DAY - 3600
    began = time.monotonic()
    try:
        client = connect(settings.clickhouse)
    except StoreError as error:
        _fail(str(error), 1)
    try:
        task = Backfill(client, chosen, loaded.loaded_lists, start, end)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            shown = progress.add_task("days of policies", total=task.steps)
            samples = task.write(prometheus_data, lambda: progress.advance(shown))
    except BlockError as error:
        _fail(str(error), 1)
    except ClickHouseError as error:
        _fail(str(explain(error, settings.clickhouse)), 1)
    finally:
        client.close()
    for name, count in samples.items():
        typer.echo(f"{name}: {count} samples of {days} days")
    typer.echo(f"{sum(samples.values())} samples in {time.monotonic() - began:.0f} s", err=True)


def _policies(configured: str, file: Path | None) -> PolicySet:
    from exporter.config import ConfigError
    from exporter.policies.model import load_policies
    from exporter.resources import resource

    path = file or (Path(configured) if configured else resource("alerting/policies.yaml"))
    try:
        return load_policies(path)
    except ConfigError as error:
        _fail(str(error), 2)


def _chosen(policies: list[Policy], names: list[str]) -> list[Policy]:
    known = {policy.name: policy for policy in policies}
    for name in names:
        if name not in known:
            _fail(f"no policy is named {name!r}: {', '.join(known) or 'there are none'}", 2)
        if not known[name].measured.has_past:
            _fail(f"policy {name}: {known[name].measure} cannot be known of the past", 2)
    return [known[name] for name in names] if names else [p for p in policies if p.has_baseline]


def _fail(text: str, code: int) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(code)
