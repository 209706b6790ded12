"""Answers on standard output: tables for people, JSON for machines."""

from __future__ import annotations

import errno
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]

#: Of what is no terminal, so that nothing is cut or wrapped in a pipe or a file.
_WIDE: Final = 10_000
#: Marks that turn the order of letters: a name could read as another.
_TURNING: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
#: What a terminal would obey: hosts and alerts have the names that others gave them.
_CONTROLS: Final = dict.fromkeys([*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0), *_TURNING])
#: The same in JSON, which escapes those below a space itself; the value stays the same.
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *_TURNING)}
#: Beside the system's own words.
_ADVICE: Final = {
    errno.EACCES: "name a folder in which who runs this may write, or give it to them",
    errno.EROFS: "name a folder on a disk that may be written",
    errno.ENOSPC: "the disk is full (`df -h` tells which): free some of it",
    errno.EEXIST: "a file is in the place of a folder",
    errno.ENOTDIR: "a file is in the place of a folder",
}


def show_table(table: RenderableType) -> None:
    """Print it; colours and wrapping on a terminal only, cells as they are and never as markup.

    Lines that are longer than those of the terminal are not cut.
    """
    from rich.console import Console
    from rich.segment import Segment, Segments

    width = None if sys.stdout.isatty() else _WIDE
    console = Console(width=width, markup=False, emoji=False)
    shown = [Segment(text.translate(_CONTROLS), style) for text, style, _ in console.render(table)]
    console.print(Segments(shown), end="", crop=False)


def show_line(text: str) -> None:
    """Print one line, or some."""
    typer.echo(text.translate(_CONTROLS))


def show_error(text: str) -> None:
    """Say on the standard error what is wrong; others' names may be part of it."""
    typer.echo(text.translate(_CONTROLS), err=True)


def of_files(error: OSError) -> str:
    """What the system refused, with the file where it names one, and what to do about it."""
    if error.errno is None or error.strerror is None:
        return str(error)
    place = f"{error.filename}: " if error.filename else ""
    advice = _ADVICE.get(error.errno)
    return f"{place}{error.strerror}" + (f": {advice}" if advice else "")


def fail(text: str, code: int) -> NoReturn:
    """Say on the standard error what is wrong, and end with this exit code."""
    show_error(text)
    raise typer.Exit(code)


def show_json(value: Any) -> None:
    """Print it on one line; what JSON does not know (times, addresses) becomes text."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str).translate(_ESCAPED))
