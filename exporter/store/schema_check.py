"""Compares the tables and views of a database with what the migrations make.

ClickHouse itself brings both to one form: what it has by ``create_table_query``, what it should
have by ``formatQuerySingleLine``; what is compared is then text against text, part by part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.client import explain
from exporter.store.render import LOCAL
from exporter.store.retention import TTL_TABLES, live_days, retained_days
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
_NEW_TABLE: Final = (
    "which no ALTER changes: rename the table, run `flow-exporter migrate --again`, "
    "INSERT INTO … SELECT its rows"
)
_AGAIN: Final = "run `flow-exporter migrate --again`"


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as the code expects it, and what to do."""

    object: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.object}: {self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class _Column:
    type: str
    codec: str
    comment: str
    definition: str


@dataclass(slots=True)
class _Object:
    """A table or a view in ClickHouse's own words."""

    kind: str
    columns: dict[str, _Column] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    clauses: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    select: str = ""
    to: str = ""


def schema_differences(
    client: Client, settings: ClickHouse, migrations: Iterable[Migration]
) -> list[Difference]:
    """What the database lacks or has otherwise than ``migrations`` (as rendered) make it.

    On a cluster the node that answers is looked at. Tables of others in the database, settings that
    were added to ours, and how a materialised view is secured are nobody's business.

    Raises:
        StoreError: ClickHouse cannot be used.
    """
    try:
        expected = _expected(client, settings.database, migrations)
        live = {
            name: _object(text, settings.database)
            for name, text in _created(client, settings.database)
            if name in expected
        }
    except Exception as error:
        raise explain(error, settings) from error
    where = f" ON CLUSTER '{settings.cluster}'" if settings.cluster else ""
    differences: list[Difference] = []
    for name, should in expected.items():
        found = live.get(name)
        alter = f"ALTER TABLE {settings.database}.{name}{where}"
        if found is None:
            differences.append(Difference(name, f"the {should.kind} is missing", _AGAIN))
        elif found.kind != should.kind:
            differences.append(
                Difference(name, f"is a {found.kind}, should be a {should.kind}", _NEW_TABLE)
            )
        elif should.select:
            drop = f"DROP VIEW {settings.database}.{name}{where}, then {_AGAIN}"
            differences += _compare_views(name, found, should, drop)
        else:
            differences += _compare_columns(name, found, should, alter)
            differences += _compare_clauses(name, found, should, alter, settings)
    return differences


def _compare_views(name: str, found: _Object, should: _Object, drop: str) -> Iterator[Difference]:
    if found.to != should.to:
        yield Difference(name, f"writes to {found.to}, should write to {should.to}", drop)
    if found.select != should.select:
        begin = next(
            (
                n
                for n, (one, other) in enumerate(zip(found.select, should.select, strict=False))
                if one != other
            ),
            min(len(found.select), len(should.select)),
        )
        begin = max(0, begin - 20)
        is_, should_be = found.select[begin:][:60], should.select[begin:][:60]
        yield Difference(name, f"the query has `{is_}`, should have `{should_be}`", drop)


def _compare_columns(
    name: str, found: _Object, should: _Object, alter: str
) -> Iterator[Difference]:
    previous = ""
    for column, expected in should.columns.items():
        place = f"AFTER {previous}" if previous else "FIRST"
        previous = column
        live = found.columns.get(column)
        where = f"{name}.{column}"
        if live is None:
            yield Difference(
                where, "is missing", f"{alter} ADD COLUMN {expected.definition} {place}"
            )
            continue
        modify = f"{alter} MODIFY COLUMN {expected.definition}"
        for what, is_, should_be in (
            ("type", live.type, expected.type),
            ("codec", live.codec, expected.codec),
            ("comment", live.comment, expected.comment),
        ):
            if is_ != should_be:
                yield Difference(
                    where, f"{what} is {is_ or 'none'}, should be {should_be or 'none'}", modify
                )
    for column in found.columns:
        if column not in should.columns:
            yield Difference(f"{name}.{column}", "is not known", f"{alter} DROP COLUMN {column}")
    both = [column for column in found.columns if column in should.columns]
    ordered = [column for column in should.columns if column in found.columns]
    for n, (is_, should_be) in enumerate(zip(both, ordered, strict=True)):
        if is_ != should_be:
            place = f"AFTER {ordered[n - 1]}" if n else "FIRST"
            yield Difference(
                name,
                f"column {n + 1} is {is_}, should be {should_be}",
                f"{alter} MODIFY COLUMN {should.columns[should_be].definition} {place}",
            )
            break  # the rest follows from the first
    for index, definition in should.indexes.items():
        if index not in found.indexes:
            yield Difference(
                name, f"index {index} is missing", f"{alter} ADD INDEX {index} {definition}"
            )
        elif found.indexes[index] != definition:
            yield Difference(
                name,
                f"index {index} is {found.indexes[index]}, should be {definition}",
                f"{alter} DROP INDEX {index}, ADD INDEX {index} {definition}",
            )


def _compare_clauses(
    name: str, found: _Object, should: _Object, alter: str, settings: ClickHouse
) -> Iterator[Difference]:
    for clause in ("ENGINE =", "PARTITION BY", "PRIMARY KEY", "ORDER BY"):
        is_, should_be = found.clauses.get(clause, ""), should.clauses.get(clause, "")
        if is_ != should_be:
            word = clause.removesuffix(" =")
            yield Difference(
                name, f"{word} is {is_ or 'none'}, should be {should_be or 'none'}", _NEW_TABLE
            )
    table = name.removesuffix(LOCAL)
    if table in TTL_TABLES and "Distributed" not in found.clauses["ENGINE ="]:
        ttl = found.clauses.get("TTL")
        days = live_days(f"TTL {ttl}") if ttl else 0
        wanted = retained_days(TTL_TABLES[table], settings)
        if days != wanted:
            yield Difference(
                name,
                f"TTL is {ttl or 'none'}, should be {f'{wanted} days' if wanted else 'none'}",
                "run `flow-exporter migrate`",
            )
    for key, value in should.settings.items():
        if found.settings.get(key) != value:
            yield Difference(
                name,
                f"setting {key} is {found.settings.get(key, 'the default')}, should be {value}",
                f"{alter} MODIFY SETTING {key} = {value}",
            )
    is_, should_be = found.clauses.get("COMMENT", "''"), should.clauses.get("COMMENT", "''")
    if is_ != should_be:
        yield Difference(
            name, f"comment is {is_}, should be {should_be}", f"{alter} MODIFY COMMENT {should_be}"
        )


def _expected(client: Client, database: str, migrations: Iterable[Migration]) -> dict[str, _Object]:
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
    objects: dict[str, _Object] = {}
    for name, text in zip(statements, formatted, strict=True):
        objects[name] = _object(text, database)
        if copied := _COPIED.search(text):
            objects[name].columns = objects[copied[1]].columns
    return objects


def _created(client: Client, database: str) -> Sequence[Sequence[str]]:
    """Names of tables and views, and the statements that make them as they are."""
    return client.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = {database:String}",
        {"database": database},
    ).result_rows


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _object(text: str, database: str) -> _Object:
    """What a CREATE statement, in ClickHouse's own format on one line, says."""
    kind = "materialised view" if text.startswith("CREATE MATERIALIZED") else "table"
    kind = "view" if text.startswith("CREATE VIEW") else kind
    made = _Object(kind)
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


def _column(name: str, rest: str) -> _Column:
    comment = re.search(rf" COMMENT ({_TEXT})", rest)
    bare = rest.replace(comment[0], "") if comment else rest
    codec = re.search(r" CODEC\((.*)\)$", bare)
    # The engine writes out the width that Delta has by the column's type.
    written = re.sub(r"\b(Delta|DoubleDelta)\(\d+\)", r"\1", codec[1]) if codec else ""
    return _Column(
        type=bare[: codec.start()] if codec else bare,
        codec=written,
        comment=comment[1] if comment else "",
        definition=f"{name} {rest}",
    )
