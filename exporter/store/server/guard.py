"""Refuses statements that reach beyond the data directory or need what the store does not keep.

The engine's own rights (see :mod:`.engine_config`) close table functions and engines that read
files, URLs and other servers. What they leave open is closed here: the scalar function ``file()``,
the ``Python()`` table function, ``INTO OUTFILE``, ``FROM INFILE`` and batches of statements; and
where the kernel can, :mod:`.confine` keeps the whole process from what none of this thinks of. The
engine's parser decides what a statement is; its text is never searched for patterns to allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from exporter.store.server import clauses, sql
from exporter.store.server.errors import EngineError, QueryError
from exporter.store.server.users import User

#: Verbs of the engine's class "control" that the writer may use. Not among them: what writes
#: files (``INTO OUTFILE``), and what needs a session that the store does not keep.
_CONTROL: Final = frozenset({"KILL", "SYSTEM", "BACKUP", "RESTORE", "SET", "USE"})

#: In a tree of the engine's parser: a forbidden function, one that is named where a function may be
#: handed over (``arrayMap(file, …)``), or one hidden in APPLY.
_FORBIDDEN: Final = re.compile(
    r"^\s*(?:(?:Table)?Function (?:file|python)\b|Identifier (?:file|python)$"
    r"|ColumnsApplyTransformer)",
    re.MULTILINE | re.I,
)
#: A table function that is told its columns as text, and the first thing that it is told.
_STRUCTURED: Final = re.compile(
    r"^ *(?:Table)?Function (?:values|sqlstandardvalues|null|generaterandom) \(.*\n"
    r" *ExpressionList.*\n *(.*)",
    re.MULTILINE | re.I,
)
#: Words by which columns in a text get values from expressions.
_COMPUTED: Final = re.compile(r"\b(?:alias|default|materialized|ephemeral)\b", re.I)
#: Whatever can hold a forbidden name has one of these words, in any case,
_SUSPICIOUS: Final = (b"file", b"python", b"identifier", b"values", b"generaterandom")
#: And `null` where it may name a function. Most queries have one that does not (`isNull`, `NULL,`):
#: to have them parsed again is a seventh of what the Data Explorer's cost.
_NULL: Final = re.compile(rb"(?<!\w)null(?!\w)(?!\s*(?:[,)'\w]|\Z))")

_EXPRESSIONS: Final = (
    "input_format_values_interpret_expressions",
    "input_format_values_deduce_templates_of_expressions",
)


class Parser(Protocol):
    """What the engine's parser tells about a statement."""

    def classify(self, statement: str) -> tuple[str, int]:
        """The class (``READ_ONLY``, ``MUTATING``, …) and the number of statements."""

    def run(
        self, statement: str, format: str, parameters: Mapping[str, str] | None = None
    ) -> bytes:
        """The answer of a statement; raises the engine's error."""


def check(parser: Parser, statement: str, user: User, parameters: Mapping[str, str]) -> str:
    """The class of ``statement``, for which these parameters are bound.

    Raises:
        QueryError: it does not parse, or this user may not run it.
    """
    if not statement.strip(" \t\r\n;"):
        raise QueryError(62, "SYNTAX_ERROR", "Empty query.")
    kind, count = parser.classify(statement)
    if count > 1:
        raise QueryError(62, "SYNTAX_ERROR", "Multi-statements are not allowed.")
    if count == 0:
        _tree(parser, statement)
        raise QueryError(62, "SYNTAX_ERROR", "The statement was not understood.")
    if user.read_only and kind != "READ_ONLY":
        raise QueryError(164, "READONLY", f"{user.name}: Cannot execute query in readonly mode.")
    text = statement.encode()
    if _suspicious(text) and sql.names_file(text):
        raise _denied("INTO OUTFILE and FROM INFILE")
    if kind == "CONTROL" and sql.verb(text) not in _CONTROL:
        raise _denied("Temporary tables, transactions and EXECUTE AS")
    if _suspicious(text):
        _check_tree(_tree(parser, statement, parameters))
    if b"additional_" in text.lower() or _escaped(text.lower()):
        _check_conditions(parser, clauses.strings(statement))
    return kind


def check_values(parser: Parser, insert: sql.Insert, *, whole: bool) -> None:
    """Looks at the data of ``INSERT … VALUES``, whose values may be expressions.

    Where not all of it is at hand, or it is none that the parser takes for a query, expressions
    are switched off: then values must be literals.

    Raises:
        QueryError: an expression uses what no statement may use, or the statement itself sets
            whether expressions are taken.
    """
    if whole and not _suspicious(insert.data):
        return
    if whole:
        try:
            tree = _tree(parser, "SELECT " + insert.data.decode("utf-8", "replace"))
        except EngineError:
            pass
        else:
            _check_tree(tree)
            return
    if any(setting in insert.head for setting in _EXPRESSIONS):
        raise _denied("Settings about expressions in VALUES")
    parser.run("SET " + ", ".join(f"{setting} = 0" for setting in _EXPRESSIONS), "Null")


def check_filters(parser: Parser, settings: Mapping[str, str]) -> None:
    """Looks at the conditions that settings add to a query as at the query itself.

    Raises:
        QueryError: one of them does not parse, or uses what no statement may use.
    """
    conditions = clauses.strings(settings.get("additional_table_filters", ""))
    conditions.append(settings.get("additional_result_filter", ""))
    for condition in conditions:
        if _suspicious(condition.encode()):
            _check_tree(_tree(parser, f"SELECT 1 WHERE {condition}"))


def _check_conditions(parser: Parser, texts: Iterable[str]) -> None:
    """Looks at texts that may be conditions of settings within a statement, however deep."""
    for text in texts:
        if _suspicious(text.encode()):
            try:
                tree = _tree(parser, f"SELECT 1 WHERE {text}")
            except EngineError:
                continue  # just a text
            _check_tree(tree)


def _check_tree(tree: str) -> None:
    if _FORBIDDEN.search(tree):
        raise _denied("The functions file and Python (and columns of their name without a table's)")
    for first in _STRUCTURED.findall(tree):
        # Other expressions than these may be a text in the end.
        if not first.startswith(("Literal ", "Function tuple ")) or _COMPUTED.search(first):
            raise _denied("Columns of table functions that are computed")


def _tree(parser: Parser, statement: str, parameters: Mapping[str, str] | None = None) -> str:
    """What the engine's parser makes of ``statement``; raises its error if it does not parse."""
    explain = f"EXPLAIN AST {statement}"
    # What is no statement of its own may still be one behind EXPLAIN, and write a file there.
    if parser.classify(explain)[0] not in ("READ_ONLY", "UNKNOWN"):
        raise _denied("INTO OUTFILE and FROM INFILE")
    return parser.run(explain, "TSVRaw", parameters).decode("utf-8", "replace")


def _suspicious(text: bytes) -> bool:
    """Whether a forbidden name can be in it; a quoted name may be written in escapes."""
    low = text.lower()
    return any(word in low for word in _SUSPICIOUS) or bool(_NULL.search(low)) or _escaped(low)


def _escaped(text: bytes) -> bool:
    """Whether a quoted name in it may be written otherwise than it reads."""
    return b"\\" in text and (b"`" in text or b'"' in text)


def _denied(what: str) -> QueryError:
    return QueryError(497, "ACCESS_DENIED", f"{what} are not available in the embedded store.")
