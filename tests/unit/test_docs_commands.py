"""What README and documentation tell to type can be typed: the command and its options exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from exporter.cli import app
from exporter.policies.model import load_policies
from exporter.schema import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PROGRAM = "flow-exporter"
_FENCED = re.compile(r"^ *```[a-z]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(rf"`({PROGRAM}\s[^`]+)`")
_SHELL = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>"})


def commands(page: str) -> Iterator[list[str]]:
    """The arguments of each call of the program in fenced blocks and in sentences of a page."""
    for block in _FENCED.findall(page):
        for line in block.replace("\\\n", " ").splitlines():
            yield from _calls(line)
    for span in _INLINE.findall(_FENCED.sub("", page)):
        yield from _calls(" ".join(span.split()))


def _calls(line: str) -> Iterator[list[str]]:
    if PROGRAM not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    try:
        words = [*lexer, ";"]
    except ValueError:  # a quote in a listing or in a sentence: not a command
        return
    begin = 0
    for at, word in enumerate(words):
        if word not in _SHELL:
            continue
        call = words[begin:at]
        begin = at + 1
        while call and ("=" in call[0] or call[0] in ("$", "#", "exec", "nice")):
            call = call[1:]
        if call and Path(call[0]).name == PROGRAM:
            yield call[1:]


def refusal(arguments: list[str]) -> str:
    """Why the program does not understand a call; empty: command and options exist.

    It is read, not run: arguments and the values of options are whatever the reader puts there.
    """
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name=PROGRAM)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command is called {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
        context = command.context_class(command, parent=context)
    try:
        command.make_parser(context).parse_args(rest)
    except typer.BadParameter.__bases__ as error:  # wrong usage, of any kind
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_pages_exist_with_their_options(page: Path) -> None:
    for arguments in commands(page.read_text()):
        said = refusal(arguments)
        assert not said, f"{PROGRAM} {shlex.join(arguments)}: {said}"


def test_calls_are_found_in_blocks_and_in_sentences() -> None:
    page = """Say `flow-exporter check` first, or `flow-exporter
spool list`.
```sh
# flow-exporter is good
sudo true; X=1 .venv/bin/flow-exporter explore --by dst_port \\
  --where "dst_host = 'a'" | head    # comment
```
"""
    assert list(commands(page)) == [
        ["explore", "--by", "dst_port", "--where", "dst_host = 'a'"],
        ["check"],
        ["spool", "list"],
    ]


@pytest.mark.parametrize(
    "arguments", ["explain", "explore --group src_as", "explore --by", "spool lists"]
)
def test_what_does_not_exist_is_found(arguments: str) -> None:
    assert refusal(arguments.split())


def test_tutorials_ask_for_what_there_is() -> None:
    """Flow columns, tables and policies that the tutorials name exist."""
    schema = "".join(file.read_text() for file in (ROOT / "clickhouse/migrations").glob("*.sql"))
    policies = {policy.name for policy in load_policies(ROOT / "alerting/policies.yaml").policies}
    columns = {column.name for column in COLUMNS}
    for page in (ROOT / "docs/tutorial").glob("*.md"):
        text = page.read_text()
        for table in re.findall(r"FROM flow\.(\w+)", text):
            assert f"CREATE TABLE IF NOT EXISTS {table}" in schema, f"{page.name}: {table}"
        assert set(re.findall(r"--by (\w+)", text)) <= columns, page.name
        assert set(re.findall(r"  warning +(\w+)", text)) <= policies, page.name
