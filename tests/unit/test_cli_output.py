"""Names that others gave are shown as they are, and obeyed by no terminal."""

from __future__ import annotations

import errno
import json
import os

import pytest
import typer
from rich.table import Table

from exporter.cli.output import fail, of_files, show_json, show_line, show_table

HOSTILE = "\x1b]0;title\x07\x1b[31mred\x9b2J\x7f\u202e"
HARMLESS = "]0;title[31mred2J"


def test_a_table_shows_brackets_and_no_escape_sequences(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table("interface", "host", box=None)
    table.add_row("xe-0/0/1 [uplink] :smile:", HOSTILE)
    table.add_row("é", "two\nlines")
    show_table(table)
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split("  ") for line in shown[1:2]] == [[" xe-0/0/1 [uplink] :smile:", HARMLESS]]
    assert shown[2].split() == ["é", "two"]
    assert shown[3].split() == ["lines"]


def test_a_line_holds_no_escape_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    show_line(HOSTILE + "é")
    assert capsys.readouterr().out == HARMLESS + "é\n"


def test_a_fault_holds_none_either_and_ends_with_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended:
        fail(HOSTILE, 2)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == HARMLESS + "\n"


def test_json_holds_none_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"name": HOSTILE + "é"})
    shown = capsys.readouterr().out
    assert shown.rstrip("\n").isprintable()
    assert "é" in shown
    assert json.loads(shown) == {"name": HOSTILE + "é"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/root/x"),
            "/root/x: Permission denied: name a folder in which who runs this may write",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "No space left on device: the disk is full",
        ),
        (OSError("no free TCP port"), "no free TCP port"),
    ],
)
def test_what_the_system_refuses_is_told_without_its_number(error: OSError, said: str) -> None:
    assert of_files(error).startswith(said)
