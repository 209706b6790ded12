"""Reads the files of ``clickhouse/migrations`` and takes them apart into statements."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


class MigrationError(Exception):
    """The database was not, or not fully, migrated; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and the line of its file where it begins."""

    line: int
    sql: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of ``clickhouse/migrations``."""

    version: int
    name: str
    path: Path
    checksum: str
    statements: tuple[Statement, ...]


def load_migrations(folder: Path) -> list[Migration]:
    """All migrations of a folder, in order.

    Raises:
        MigrationError: a name is wrong, a number is missing or taken twice, a file is unreadable.
    """
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path}: migrations are named NNNN_name.sql")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MigrationError(f"{path}: {error}") from error
        try:
            statements = tuple(split_statements(text))
        except ValueError as error:
            raise MigrationError(f"{path}: {error}") from error
        checksum = hashlib.sha256(text.encode()).hexdigest()
        migrations.append(Migration(int(match[1]), match[2], path, checksum, statements))
    for expected, migration in enumerate(migrations, 1):
        if migration.version != expected:
            raise MigrationError(f"{migration.path}: expected number {expected:04d} here")
    return migrations


_TOKEN: Final = re.compile(
    r"""--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`|;|['"`]|/\*""",
    re.DOTALL,
)


def split_statements(text: str) -> Iterator[Statement]:
    """The statements of a file, which semicolons end; those in quotes and comments do not.

    Comments between statements belong to the following one and are kept: the server's query log
    then shows them.

    Raises:
        ValueError: a quote or a comment is not closed.
    """
    begin = 0
    bare = ""  # the statement without comments and quotes: tells whether there is one at all
    after = 0
    for token in _TOKEN.finditer(text):
        bare += text[after : token.start()]
        after = token.end()
        if token[0] in ("'", '"', "`", "/*"):
            raise ValueError(f"line {_line(text, token.start())}: {token[0]} is not closed")
        if token[0] == ";":
            if bare.strip():
                yield _statement(text, begin, token.start())
            begin, bare = token.end(), ""
    if (bare + text[after:]).strip():
        yield _statement(text, begin, len(text))


def _statement(text: str, begin: int, end: int) -> Statement:
    code = begin
    while match := re.compile(r"\s+|--[^\n]*|/\*.*?\*/", re.DOTALL).match(text, code, end):
        code = match.end()
    return Statement(_line(text, code), text[begin:end].strip())


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def masked(sql: str) -> str:
    """The same text with blanks for what is in single quotes and in comments."""
    return _TOKEN.sub(lambda token: " " * len(token[0]) if token[0][:1] in "'-/" else token[0], sql)
