"""Takes a statement apart as far as the HTTP protocol needs: its verb, format and inline data.

The engine parses SQL; this only finds where an ``INSERT`` ends and its data begins, and where a
query's ``FORMAT`` stands. It follows ClickHouse's lexer: ``--`` , ``#`` and ``/* */`` comments,
strings with backslash and doubled quotes, quoted identifiers, ``$tag$`` heredocs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    rb"""
    (?P<space>[\s\x00]+ | (?:--|\#[!\ ])[^\n]*\n? | /\*.*?(?:\*/|\Z))
  | (?P<string>'(?:[^'\\]|\\.|'')*(?:'|\\?\Z))
  | (?P<quoted>`(?:[^`\\]|\\.|``)*(?:`|\\?\Z) | "(?:[^"\\]|\\.|"")*(?:"|\\?\Z))
  | (?P<heredoc>(?P<tag>\$\w*\$).*?(?:(?P=tag)|\Z))
  | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
  | (?P<other>[0-9][\w.]* | .)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL that is neither space nor comment. ``depth`` counts open brackets."""

    kind: str
    text: bytes
    start: int
    end: int
    depth: int

    def is_word(self, *words: bytes) -> bool:
        return self.kind == "word" and self.text.upper() in words


def tokens(sql: bytes) -> Iterator[Token]:
    """The tokens of ``sql``; an unfinished string or comment goes on to its end.

    Takes time in proportion to the length of ``sql``, whatever stands in it.
    """
    depth = 0
    position = 0
    while found := _TOKEN.match(sql, position):
        position = found.end()
        kind = found.lastgroup or "other"
        if kind == "tag":
            kind = "heredoc"
        if kind == "space":
            continue
        text = found.group()
        if text in b")]}":
            depth -= 1
        yield Token(kind, text, found.start(), position, depth)
        if text in b"([{":
            depth += 1


@dataclass(frozen=True, slots=True)
class Insert:
    """An ``INSERT`` whose data follows the statement.

    ``head`` is the statement without ``FORMAT`` or ``VALUES``, ``format`` the data's format and
    ``data`` what of the data stood in the same text.
    """

    head: str
    format: str
    data: bytes

    def from_file(self, path: str) -> str:
        """The same insert, of data that lies in a file."""
        head = self.head.encode()
        found = list(tokens(head))
        end = next(
            (
                word.start
                for word, after in zip(found, found[2:], strict=False)
                if word.depth == 0 and word.is_word(b"SETTINGS") and after.text == b"="
            ),
            len(head),
        )
        target, settings = head[:end].decode(), head[end:].decode()
        return f"{target} FROM INFILE '{path}' {settings} FORMAT {self.format}"


def verb(sql: bytes) -> str:
    """The first word in upper case; empty if there is none."""
    for token in tokens(sql):
        if token.kind == "word":
            return token.text.upper().decode()
        if token.text != b"(":
            break
    return ""


def split_insert(sql: bytes) -> Insert | None:
    """``sql`` as an insert with data, or None where it is another statement.

    Of a body that is still arriving its beginning is enough, once it reaches into the data.
    """
    words = tokens(sql)
    first = next(words, None)
    if first is None or not first.is_word(b"INSERT"):
        return None
    target_seen = False
    for token in words:
        if token.depth:
            continue
        if not target_seen:
            if token.is_word(b"INTO", b"TABLE", b"FUNCTION"):
                continue
            target_seen = True
            continue
        if token.is_word(b"SELECT", b"WITH", b"WATCH", b"INFILE", b"EXPLAIN"):
            return None
        if token.is_word(b"VALUES"):
            return Insert(_text(sql[: token.start]), "Values", sql[token.end :])
        if token.is_word(b"FORMAT"):
            name = next(words, None)
            if name is None or name.kind != "word":
                return None
            data = sql[name.end :].lstrip(b" \t\f;")
            for newline in (b"\r\n", b"\n"):
                if data.startswith(newline):
                    data = data[len(newline) :]
                    break
            # The engine takes names of formats in any case.
            format = "Values" if name.is_word(b"VALUES") else name.text.decode()
            return Insert(_text(sql[: token.start]), format, data)
    return None


def names_file(sql: bytes) -> bool:
    """Whether ``INTO OUTFILE`` or ``FROM INFILE`` with its file stands anywhere in ``sql``."""
    before: Token | None = None
    for token in tokens(sql):
        if before is not None and token.kind in ("string", "heredoc"):
            return True
        before = token if token.is_word(b"OUTFILE", b"INFILE") else None
    return False


@dataclass(frozen=True, slots=True)
class Query:
    """A query that answers, and the format it answers in; ``tail`` is what follows the format."""

    text: str
    format: str
    tail: str

    def into(self, path: str) -> str:
        """The same query, its answer written to ``path``, which exists."""
        return (
            f"{self.text}\nINTO OUTFILE '{path}' TRUNCATE FORMAT {self.format} {self.tail}".rstrip()
        )


def split_query(sql: bytes, default_format: str) -> Query:
    """``sql`` as a query with its own format, or else ``default_format``."""
    found = [token for token in tokens(sql) if token.depth == 0]
    while found and found[-1].text == b";":
        sql = sql[: found.pop().start]
    for index in range(len(found) - 2, 0, -1):
        clause, name = found[index : index + 2]
        after = found[index + 2] if index + 2 < len(found) else None
        if (
            clause.is_word(b"FORMAT")
            and name.kind == "word"
            and (after is None or after.is_word(b"SETTINGS"))
        ):
            return Query(_text(sql[: clause.start]), _text(name.text), _text(sql[name.end :]))
    return Query(_text(sql), default_format, "")


def _text(sql: bytes) -> str:
    return sql.decode("utf-8", "replace").strip()


def quote(value: str) -> str:
    """``value`` as an SQL string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """``name`` as an SQL identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
