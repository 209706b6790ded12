"""Answers on standard output: tables for people, JSON for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]

#: Of what is no terminal, so that nothing is cut or wrapped in a pipe or a file.
_WIDE = 10_000


def show_table(table: Table) -> None:
    """Print it; colours and wrapping on a terminal only."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(table)


def show_json(value: Any) -> None:
    """Print it on one line; what JSON does not know (times, addresses) becomes text."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))
