"""Compares the tables and views of a database with what the migrations make, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse
from exporter.store.client import explained
from exporter.store.render import LOCAL, on_cluster
from exporter.store.retention import TTL_TABLES, live_days, retained_days
from exporter.store.schema_object import SchemaObject, expected_objects, live_objects
from exporter.store.statements import Migration

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


def schema_differences(
    client: Client, settings: ClickHouse, migrations: Iterable[Migration]
) -> list[Difference]:
    """What the database lacks or has otherwise than ``migrations`` (as rendered) make it.

    On a cluster the node that answers is looked at. Tables of others in the database, settings that
    were added to ours, and how a materialised view is secured are nobody's business.

    Raises:
        StoreError: ClickHouse cannot be used.
    """
    with explained(settings):
        expected = expected_objects(client, settings.database, migrations)
        live = live_objects(client, settings.database, expected)
    where = on_cluster(settings.cluster)
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


def _compare_views(
    name: str, found: SchemaObject, should: SchemaObject, drop: str
) -> Iterator[Difference]:
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
    name: str, found: SchemaObject, should: SchemaObject, alter: str
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
    name: str, found: SchemaObject, should: SchemaObject, alter: str, settings: ClickHouse
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
