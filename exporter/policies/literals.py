"""Refuses texts in a filter that its columns can never equal: the condition would be false for
ever, and its policy silent.

ClickHouse takes them without a word, or says of prefixes only that they are no address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Final

from exporter.schema import Column, Kind

_EQUALITY: Final = frozenset({"=", "==", "!=", "<>"})


def check_literals(tokens: list[re.Match[str]], columns: Mapping[str, Column]) -> None:
    """Looks at what stands beside the columns among the ``tokens`` of a filter, spaces left out.

    Raises:
        ValueError: says which text is refused, and what to write.
    """
    for index, token in enumerate(tokens):
        if token.group() == "isIPAddressInRange":
            _check_range(tokens[index + 1 : index + 8], columns)
        column = columns.get(token.group())
        if column is None or token.lastgroup != "word":
            continue
        for text in _compared(tokens[index + 1 :]):
            if column.enum is not None:
                names = [member.name.lower() for member in column.enum]
                if text not in names:
                    raise ValueError(f"{column.name} is one of {', '.join(names)}, not {text!r}")
            elif column.kind is Kind.ADDRESS and "/" in text:
                raise ValueError(
                    f"{text!r} is no address but a prefix: write {_between(column.name, text)}, "
                    f"or {column.name} IN list(…)"
                )


def _compared(after: list[re.Match[str]]) -> Iterator[str]:
    """The texts that an operand is to equal; ``after`` are the tokens behind it."""
    words = [token.group().upper() for token in after[:3]]
    if words[:1] and words[0] in _EQUALITY:
        yield from _text(after[1:2])
        return
    start = 1 if words[:1] == ["NOT"] else 0
    if words[start : start + 2] not in (["IN", "("], ["IN", "["]):
        return
    for token in after[start + 2 :]:
        if token.group() in ")]":
            return
        yield from _text([token])


def _text(tokens: list[re.Match[str]]) -> Iterator[str]:
    for token in tokens:
        if token.lastgroup == "text":
            yield token.group()[1:-1]


def _check_range(after: list[re.Match[str]], columns: Mapping[str, Column]) -> None:
    """``isIPAddressInRange(toString(src_addr), '10.0.0.0/8')``: addresses show as IPv6 there."""
    if [token.group() for token in after[:3:2]] != ["(", "("] or len(after) < 7:
        return
    column = columns.get(after[3].group())
    if column is None or column.kind is not Kind.ADDRESS or after[1].group() != "toString":
        return
    for text in _text(after[6:7]):
        if re.fullmatch(r"[\d.]+/\d+", text):
            raise ValueError(
                f"toString({column.name}) shows IPv4 addresses as ::ffff:10.0.0.1, none of which "
                f"is in {text!r}: write {_between(column.name, text)}, or {column.name} IN list(…)"
            )


def _between(column: str, text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{column} BETWEEN '10.0.0.0' AND '10.255.255.255'"
    return f"{column} BETWEEN '{network[0]}' AND '{network[-1]}'"
