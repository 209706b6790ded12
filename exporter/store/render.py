"""Migrations as they are run: for one node nearly as written, for a cluster with other engines.

The files of ``clickhouse/migrations`` are plain SQL for one node. For a cluster each statement is
run ``ON CLUSTER``, and a comment before a table says where its rows are:

``-- cluster: sharded by EXPRESSION``
    ``<table>_local`` is replicated within each shard, and a Distributed table with the public name
    asks and fills all shards. Without a comment a MergeTree table is sharded by ``rand()``.
``-- cluster: on every node``
    all nodes of all shards are replicas of the table.

Materialised views read and write the tables of their own node. Tables of the Join engine have no
replication: each node makes its own, which is why they are filled by ``CREATE TABLE … AS SELECT``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from exporter.store.statements import Migration, MigrationError, Statement, masked

#: What the name of a sharded table's part on one node ends with.
LOCAL: Final = "_local"
#: Keeper forgets a token at this age (the default of newer servers is an hour); an insert that
#: waited on disk while ClickHouse was away must still be known.
_DEDUPLICATION_SECONDS: Final = 7 * 86400

_DIRECTIVE: Final = re.compile(
    r"--\s*cluster:\s*(?:sharded by (?P<key>.+)|on every node)\s*$", re.M
)
_CREATE: Final = re.compile(
    r"CREATE (?P<kind>TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS (?P<name>\w+)(?: TO (?P<to>\w+))?"
)
_DROP: Final = re.compile(r"DROP (?P<kind>TABLE|VIEW) IF EXISTS (?P<name>\w+)\s*$")
_ENGINE: Final = re.compile(r"\bENGINE = (?P<engine>\w+)(?:\((?P<arguments>[^)]*)\))?")
_FROM: Final = re.compile(r"\b(?:FROM|JOIN) (?P<name>[a-z]\w*)\b(?!\s*[.(])")
_JOIN_GET: Final = re.compile(r"(?<=\bjoinGet\(')(?P<name>\w+)(?=')")
_WINDOW: Final = re.compile(r"\bnon_replicated_deduplication_window = (?P<blocks>\d+)")
_COMMENT: Final = re.compile(r"\bCOMMENT ('(?:[^'\\]|\\.|'')*')\s*$")


@dataclass(frozen=True, slots=True)
class _Placement:
    """Where the rows of a table are: on shards by ``key``, or, without one, on every node."""

    key: str = ""


def local_name(table: str, cluster: str) -> str:
    """The table to insert into on one node of ``cluster``; ``table`` itself where that is empty."""
    return table + LOCAL if cluster else table


def on_cluster(cluster: str) -> str:
    """The clause, with a space before it, that runs a statement on all nodes; empty without one."""
    return f" ON CLUSTER '{cluster}'" if cluster else ""


def keeper_path(database: str, table: str, *, every_node: bool = False) -> str:
    """Arguments of a Replicated engine: path in Keeper and name of the replica, quoted."""
    if every_node:
        return f"'/clickhouse/tables/every_node/{database}/{table}', '{{shard}}-{{replica}}'"
    return f"'/clickhouse/tables/{{shard}}/{database}/{table}', '{{replica}}'"


def render(migrations: Iterable[Migration], database: str, cluster: str) -> list[Migration]:
    """``migrations``, all from the first, as they are run; their checksums are those of the files.

    Raises:
        MigrationError: a statement is of a kind that no cluster can run.
    """
    placements: dict[str, _Placement] = {}
    rendered = []
    for migration in migrations:
        statements = []
        for statement in migration.statements:
            try:
                texts = list(_render(statement.sql, placements, database, cluster))
            except ValueError as error:
                raise MigrationError(f"{migration.path}:{statement.line}: {error}") from error
            statements += [Statement(statement.line, text) for text in texts]
        rendered.append(replace(migration, statements=tuple(statements)))
    return rendered


def _render(
    sql: str, placements: dict[str, _Placement], database: str, cluster: str
) -> Iterator[str]:
    # A view is read from sessions in any database, and its joinGet() would look there.
    sql = _JOIN_GET.sub(rf"{database}.\g<name>", sql)
    if not cluster:
        yield sql
        return
    code = masked(sql)
    where = on_cluster(cluster)
    created, dropped = _CREATE.search(code), _DROP.search(code)
    if dropped is not None:
        name = dropped["name"]
        names = [name, name + LOCAL] if _is_sharded(name, placements) else [name]
        for each in names:
            yield f"DROP {dropped['kind']} IF EXISTS {database}.{each}{where} SYNC"
    elif created is None:
        raise ValueError("clusters run CREATE … IF NOT EXISTS and DROP … IF EXISTS only")
    elif created["kind"] != "TABLE":
        yield _render_view(sql, code, created, placements, database, where)
    else:
        name = created["name"]
        placements[name] = placement = _placement(sql, code)
        local = local_name(name, cluster) if placement.key else name
        table = _render_engine(sql, code, database, local, every_node=not placement.key)
        begin, end = created.span("name")
        yield f"{table[:begin]}{database}.{local}{where}{table[end:]}"
        if placement.key:
            comment = _COMMENT.search(sql)
            yield (
                f"CREATE TABLE IF NOT EXISTS {database}.{name}{where} AS {database}.{local}\n"
                f"ENGINE = Distributed('{cluster}', '{database}', '{local}', {placement.key})"
                + (f"\nCOMMENT {comment[1]}" if comment else "")
            )


def _is_sharded(name: str, placements: dict[str, _Placement]) -> bool:
    return name in placements and bool(placements[name].key)


def _placement(sql: str, code: str) -> _Placement:
    engine = _ENGINE.search(code)
    if engine is None:
        raise ValueError("the table has no ENGINE")
    directive = _DIRECTIVE.search(sql)
    if not engine["engine"].endswith("MergeTree"):
        return _Placement()
    return _Placement(directive["key"] or "") if directive else _Placement("rand()")


def _render_engine(sql: str, code: str, database: str, table: str, *, every_node: bool) -> str:
    """The table with a replicated engine. What is changed stands behind the table's name."""
    engine = _ENGINE.search(code)
    assert engine is not None
    if not engine["engine"].endswith("MergeTree"):
        return sql
    arguments = keeper_path(database, table, every_node=every_node)
    if engine["arguments"]:
        arguments += f", {engine['arguments']}"
    changed = f"ENGINE = Replicated{engine['engine']}({arguments})"
    head, tail = sql[: engine.start()], sql[engine.end() :]
    return (
        head
        + changed
        + _WINDOW.sub(
            r"replicated_deduplication_window = \g<blocks>, "
            f"replicated_deduplication_window_seconds = {_DEDUPLICATION_SECONDS}",
            tail,
        )
    )


def _render_view(
    sql: str,
    code: str,
    created: re.Match[str],
    placements: dict[str, _Placement],
    database: str,
    where: str,
) -> str:
    """A view: materialised ones on the tables of the node, others on those of the cluster."""
    materialised = created["kind"] == "MATERIALIZED VIEW"

    def table(name: str) -> str:
        local = materialised and _is_sharded(name, placements)
        return f"{database}.{name}{LOCAL if local else ''}"

    parts = [(created.span("name"), f"{database}.{created['name']}{where}")]
    if created["to"]:
        parts.append((created.span("to"), table(created["to"])))
    # Names that WITH gives are no tables.
    own = set(re.findall(r"\b(\w+) AS \(", code))
    parts += [
        (found.span("name"), table(found["name"]))
        for found in _FROM.finditer(code, created.end())
        if found["name"] not in own
    ]
    for (begin, end), text in reversed(parts):
        sql = sql[:begin] + text + sql[end:]
    return sql
