"""``flow-exporter spool``: what waits on disk, and what ClickHouse refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.app import ConfigOption, app, read_config
from exporter.cli.output import JsonOption, show_error, show_json, show_table

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.config import Config
    from exporter.store.quarantine import Quarantine, Quarantined

spool_app = typer.Typer(
    help="Show the spool; replay or drop what is in quarantine.", no_args_is_help=True
)
app.add_typer(spool_app, name="spool")

NamesArgument = Annotated[
    list[str] | None, typer.Argument(help="Files in quarantine, as `spool list` names them.")
]


@spool_app.command("list")
def list_files(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what waits for ClickHouse, and what is in quarantine and why; times are UTC.

    Try it:

    flow-exporter spool list --config flow-exporter.yaml
    """
    from rich.table import Table

    from exporter.store.spool import waiting_files

    folder, quarantine = _open(read_config(config))
    waiting = waiting_files(folder)
    size = sum(file.size for file in waiting)
    flows = sum(file.rows for file in waiting)
    oldest = _time(waiting[0].sequence / 1000) if waiting else None
    files = quarantine.files()
    if as_json:
        show_json(
            {
                "spool": {"inserts": len(waiting), "flows": flows, "bytes": size, "since": oldest},
                "quarantine": [
                    {
                        "name": file.name,
                        "since": _time(file.since),
                        "flows": file.rows,
                        "bytes": file.size,
                        "reason": file.reason,
                    }
                    for file in files
                ],
            }
        )
        return
    typer.echo(
        f"spool: {len(waiting)} inserts, {flows} flows, {size} bytes"
        + (f", the oldest of {oldest}" if oldest else "")
    )
    typer.echo(f"quarantine: {len(files)} inserts, {sum(file.rows for file in files)} flows")
    table = Table("name", "since", "flows", "bytes", "reason", box=None)
    for file in files:
        table.add_row(
            file.name, _time(file.since), str(file.rows), str(file.size), file.reason[:200]
        )
    if files:
        show_table(table)


@spool_app.command()
def replay(names: NamesArgument = None, config: ConfigOption = None) -> None:
    """Insert what is in quarantine, all of it without NAMES; what is refused again stays.

    The collector may go on running. It replays the spool by itself.

    Try it:

    flow-exporter spool replay --config flow-exporter.yaml
    """
    from exporter.config import ConfigError
    from exporter.store.client import StoreError, connect, explain
    from exporter.store.insert_file import DamagedFileError, read_insert

    settings = read_config(config)
    _, quarantine = _open(settings)
    failed = 0
    try:
        with connect(settings.clickhouse) as client:
            for file in _chosen(quarantine, names):
                try:
                    read_insert(file.path).send(client)
                except DamagedFileError as error:
                    show_error(f"{file.name}: damaged: {error}")
                    failed += 1
                except OSError as error:
                    show_error(f"{file.name}: {error.strerror}")
                    failed += 1
                except Exception as error:  # a client fails in many ways
                    show_error(f"{file.name}: {explain(error, settings.clickhouse)}")
                    failed += 1
                else:
                    quarantine.remove(file)
                    typer.echo(f"{file.name}: {file.rows} flows inserted")
    except (ConfigError, StoreError) as error:
        show_error(f"error: {error}")
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    if failed:
        raise typer.Exit(1)


@spool_app.command()
def drop(
    names: NamesArgument = None,
    config: ConfigOption = None,
    every: Annotated[bool, typer.Option("--all", help="Everything in quarantine.")] = False,
) -> None:
    """Delete files in quarantine, for good.

    Try it:

    flow-exporter spool drop --all --config flow-exporter.yaml
    """
    if bool(names) == every:
        raise typer.BadParameter("give NAMES, or --all")
    _, quarantine = _open(read_config(config))
    for file in _chosen(quarantine, names):
        quarantine.remove(file)
        typer.echo(f"{file.name}: {file.rows} flows dropped")


def _open(config: Config) -> tuple[Path, Quarantine]:
    from pathlib import Path

    from exporter.store.quarantine import Quarantine

    spool = config.clickhouse.spool
    if not spool.directory:
        typer.echo("there is no spool: clickhouse.spool.directory is empty", err=True)
        raise typer.Exit(2)
    folder = Path(spool.directory)
    if not folder.is_dir():
        typer.echo(f"{folder}: no such folder; the collector makes it when it starts", err=True)
        raise typer.Exit(1)
    return folder, Quarantine(folder, spool.quarantine_max_bytes)


def _chosen(quarantine: Quarantine, names: list[str] | None) -> list[Quarantined]:
    files = {file.name: file for file in quarantine.files()}
    missing = [name for name in names or () if name not in files]
    if missing:
        typer.echo(f"not in quarantine: {', '.join(missing)}", err=True)
        raise typer.Exit(1)
    return [files[name] for name in names or files]


def _time(moment: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")
