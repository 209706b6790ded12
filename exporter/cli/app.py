"""The application object and what all commands share."""

from __future__ import annotations

import importlib
import ipaddress
import pkgutil
from pathlib import Path
from typing import Annotated

import typer

from exporter import __version__
from exporter.config import Config, ConfigError, load_config

app = typer.Typer(
    name="flow-exporter",
    help="Network flows into ClickHouse, Prometheus, Alertmanager and Grafana.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; defaults apply without one."),
]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"flow-exporter {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show version.")
    ] = False,
) -> None:
    del version


def parse_target(value: str) -> tuple[str, int]:
    """Address and port out of ``ADDRESS:PORT``, or a usage error."""
    host, _, port = value.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r} is not ADDRESS:PORT") from error


def read_config(path: Path | None) -> Config:
    """The configuration, or an error on standard error and exit code 2."""
    try:
        return load_config(path)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


# A command is a module beside this one; each imports heavy parts inside its functions, so that
# --help is quick.
for _module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    importlib.import_module(f"exporter.cli.{_module.name}")
