"""The settings that a query itself gives, and the conditions within settings.

A read-only user's statements run with ``readonly = 1``, under which the engine takes no settings
from SQL. Grafana's plugin writes ad-hoc filters there, so the clause is taken off and its settings
are judged as those of the URL are.
"""

from __future__ import annotations

import re

from exporter.store.server.sql import tokens


def split_settings(sql: str) -> tuple[str, dict[str, str]]:
    """A query without its closing ``SETTINGS`` clause, and the clause as names and values.

    Values are as in a URL: strings without quotes, anything else as written. A query without such
    a clause comes back as it was.
    """
    text = sql.encode()
    found = list(tokens(text))
    begin = max(
        (i for i, token in enumerate(found) if token.depth == 0 and token.is_word(b"SETTINGS")),
        default=None,
    )
    if begin is None:
        return sql, {}
    given: dict[str, str] = {}
    position = begin
    end = found[begin].end
    while position + 3 < len(found) and (position == begin or found[position].text == b","):
        name, equals, value = found[position + 1 : position + 4]
        if name.kind != "word" or equals.text != b"=":
            return sql, {}
        last = position + 3
        while last + 1 < len(found) and found[last + 1].depth > value.depth:
            last += 1
        if value.text in b"([{" and last + 1 < len(found):
            last += 1
        end = found[last].end
        given[name.text.decode()] = _value(text[value.start : end], value.kind)
        position = last + 1
    if not given:
        return sql, {}
    return (text[: found[begin].start] + text[end:]).decode(), given


def strings(sql: str) -> list[str]:
    """The string literals in ``sql``, without quotes and escapes."""
    return [_unquoted(token.text) for token in tokens(sql.encode()) if token.kind == "string"]


def _value(text: bytes, kind: str) -> str:
    return _unquoted(text) if kind == "string" else text.decode()


def _unquoted(literal: bytes) -> str:
    def character(match: re.Match[bytes]) -> bytes:
        if match["code"]:
            return bytes([int(match["code"], 16)])
        return match["escaped"] or b"'"

    text = re.sub(
        rb"\\x(?P<code>[0-9A-Fa-f]{2})|\\(?P<escaped>.)|''",
        character,
        literal[1:-1],
        flags=re.DOTALL,
    )
    return text.decode("utf-8", "replace")
