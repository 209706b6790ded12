"""``flow-exporter dashboards``: write Grafana's dashboards, or check that they are up to date."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.app import app


class DashboardsError(Exception):
    """The dashboards cannot be generated; the text says what is missing."""


def generate(folder: Path) -> dict[str, str]:
    """File name to contents of the dashboards that ``folder/source`` describes.

    Raises:
        DashboardsError: there is no source, or the SDK that it needs is not installed.
    """
    source = folder / "source" / "__init__.py"
    if not source.is_file():
        raise DashboardsError(f"{source}: not found; name the grafana folder with --folder")
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        raise DashboardsError(
            "grafana-foundation-sdk is not installed; it is needed to write dashboards only:"
            " pip install '.[dev]' in the checkout"
        )
    name = "flow_exporter_dashboards"
    spec = importlib.util.spec_from_file_location(
        name, source, submodule_search_locations=[str(source.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its modules import each other
    with warnings.catch_warnings():
        # At import the SDK recommends the newer schema, which Grafana 11.6 does not read.
        warnings.simplefilter("ignore", DeprecationWarning)
        spec.loader.exec_module(module)
    made: dict[str, str] = module.files()
    return made


def differences(folder: Path, made: dict[str, str]) -> list[str]:
    """What ``folder/dashboards`` lacks, has too much, or has otherwise; one line each."""
    target = folder / "dashboards"
    present = {path.name: path.read_text(encoding="utf-8") for path in target.glob("*.json")}
    found = []
    for name in sorted(made.keys() | present.keys()):
        if name not in present:
            found.append(f"{target / name}: missing")
        elif name not in made:
            found.append(f"{target / name}: no dashboard of the source has this name")
        elif present[name] != made[name]:
            found.append(f"{target / name}: differs from the source")
    return found


def write(folder: Path, made: dict[str, str]) -> None:
    """Makes ``folder/dashboards`` hold these files and no other dashboard."""
    target = folder / "dashboards"
    target.mkdir(exist_ok=True)
    for path in target.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (target / name).write_text(text, encoding="utf-8")


@app.command()
def dashboards(
    folder: Annotated[
        Path, typer.Option(help="Folder with source/ and dashboards/.", file_okay=False)
    ] = Path("grafana"),
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail where the files differ.")
    ] = False,
) -> None:
    """Write Grafana's dashboards from their source, or check the files.

    Try it:

    flow-exporter dashboards --check
    """
    try:
        made = generate(folder)
    except DashboardsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    if not check:
        write(folder, made)
        typer.echo(f"{len(made)} dashboards in {folder / 'dashboards'}")
        return
    found = differences(folder, made)
    for line in found:
        typer.echo(line, err=True)
    if found:
        typer.echo("write them with: flow-exporter dashboards", err=True)
        raise typer.Exit(1)
    typer.echo(f"{len(made)} dashboards are up to date")
