"""Tables and views as ClickHouse describes them, read from the statements that make them.

ClickHouse itself brings them to one form: what it has by ``create_table_query``, what migrations
make by ``formatQuerySingleLine``. So their parts can be compared as text.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.store.statements import Migration

_CREATED: Final = re.compile(
    r"CREATE (?:TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS (?:\w+\.)?(?P<name>\w+)"
)
_DROPPED: Final = re.compile(r"DROP (?:TABLE|VIEW) IF EXISTS (?:\w+\.)?(?P<name>\w+)")
_TEXT: Final = r"'(?:[^'\\]|\\.|'')*'"
_TOKEN: Final = re.compile(rf"{_TEXT}|[(),]")
_CLAUSE: Final = re.compile(
    r" ?\b(ENGINE =|PARTITION BY|PRIMARY KEY|ORDER BY|TTL|SETTINGS|COMMENT) "
)
_SELECT: Final = re.compile(r" AS ((?:SELECT|WITH|\(SELECT) .*)$", re.DOTALL)
_LAST_COMMENT: Final = re.compile(rf" COMMENT ({_TEXT})$")
_COPIED: Final = re.compile(r" AS (?:\w+\.)?(\w+) (?=ENGINE)")


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """A column of a table: parts of its ``definition``, which ALTER takes."""

    type: str
    codec: str
    comment: str
    definition: str


@dataclass(slots=True)
class SchemaObject:
    """A table or a view in ClickHouse's own words.

    ``clauses`` are those behind the columns, by their words; a view has none of all this, but
    ``select`` and, a materialised one, the table that it writes ``to``.
    """

    kind: str
    columns: dict[str, SchemaColumn] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    clauses: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    select: str = ""
    to: str = ""


def expected_objects(
    client: Client, database: str, migrations: Iterable[Migration]
) -> dict[str, SchemaObject]:
    """What ``migrations``, as rendered, make, by name."""
    statements: dict[str, str] = {}
    for migration in migrations:
        for statement in migration.statements:
            if created := _CREATED.search(statement.sql):
                statements[created["name"]] = statement.sql
            elif dropped := _DROPPED.search(statement.sql):
                statements.pop(dropped["name"], None)
    texts = ", ".join(_quote(sql) for sql in statements.values())
    formatted = client.query(
        f"SELECT arrayMap(sql -> formatQuerySingleLine(sql), [{texts}])"
    ).result_rows[0][0]
    objects: dict[str, SchemaObject] = {}
    for name, text in zip(statements, formatted, strict=True):
        objects[name] = _object(text, database)
        if copied := _COPIED.search(text):
            objects[name].columns = objects[copied[1]].columns
    return objects


def live_objects(client: Client, database: str, names: Container[str]) -> dict[str, SchemaObject]:
    """Those of these names that there are."""
    rows = client.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = {database:String}",
        {"database": database},
    ).result_rows
    return {name: _object(text, database) for name, text in rows if name in names}


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _object(text: str, database: str) -> SchemaObject:
    """What a CREATE statement, in ClickHouse's own format on one line, says."""
    kind = "materialised view" if text.startswith("CREATE MATERIALIZED") else "table"
    kind = "view" if text.startswith("CREATE VIEW") else kind
    made = SchemaObject(kind)
    select = _SELECT.search(text)
    if kind != "table" and select is not None:
        to = re.search(r" TO (?:\w+\.)?(\w+)", text[: select.start()])
        made.to = to[1] if to else ""
        query = _LAST_COMMENT.sub("", select[1])
        made.select = re.sub(rf"(?<![\w.`]){database}\.", "", query)
        return made
    if select is not None:
        comment = _LAST_COMMENT.search(text)
        text = text[: select.start()] + (comment[0] if comment else "")
    begin, tail = text.find("("), text
    engine = text.find("ENGINE =")
    if 0 <= begin < engine:
        items, end = _items(text, begin)
        tail = text[end:]
        for item in items:
            if item.startswith("INDEX "):
                _, index, definition = item.split(" ", 2)
                made.indexes[index.strip("`")] = definition
            else:
                column, _, rest = item.partition(" ")
                made.columns[column.strip("`")] = _column(column, rest)
    pieces = _CLAUSE.split(tail[tail.find("ENGINE =") :])
    made.clauses = {
        clause: value.strip() for clause, value in zip(pieces[1::2], pieces[2::2], strict=True)
    }
    made.settings = {
        key: value
        for key, _, value in (
            part.partition(" = ") for part in made.clauses.get("SETTINGS", "").split(", ")
        )
        if key
    }
    return made


def _items(text: str, begin: int) -> tuple[list[str], int]:
    """What commas separate in the parentheses that open at ``begin``, and where they end."""
    depth, items, start = 0, [], begin + 1
    for token in _TOKEN.finditer(text, begin):
        if token[0] == "(":
            depth += 1
        elif token[0] == ")":
            depth -= 1
        if (token[0] == "," and depth == 1) or (token[0] == ")" and depth == 0):
            items.append(text[start : token.start()].strip())
            start = token.end()
        if depth == 0 and token[0] == ")":
            return items, token.end()
    raise ValueError(f"parentheses are not closed: {text[begin : begin + 100]}")


def _column(name: str, rest: str) -> SchemaColumn:
    comment = re.search(rf" COMMENT ({_TEXT})", rest)
    bare = rest.replace(comment[0], "") if comment else rest
    codec = re.search(r" CODEC\((.*)\)$", bare)
    # The engine writes out the width that Delta has by the column's type.
    written = re.sub(r"\b(Delta|DoubleDelta)\(\d+\)", r"\1", codec[1]) if codec else ""
    return SchemaColumn(
        type=bare[: codec.start()] if codec else bare,
        codec=written,
        comment=comment[1] if comment else "",
        definition=f"{name} {rest}",
    )
