"""Keeps a policy's filter what it is meant to be: one boolean expression over flow columns.

The text of a filter becomes part of a query, so every token of it must be known harmless before
ClickHouse sees it: literals, operators, flow columns, a list of pure functions and the words that
join them. There is no word to begin a subquery or a table function with, and no way to close the
parentheses around the filter. What remains, grammar and types, ClickHouse itself checks.
"""

from __future__ import annotations

import re
from typing import Final

from exporter.schema import BY_NAME

_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<text>'(?:[^'\\]|\\.|'')*')
    | (?P<number>0x[0-9A-Fa-f]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![A-Za-z_0-9.])
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<comment>--|/\*|\#)
    | (?P<operator><=|>=|!=|<>|==|[-+*/%=<>(),\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)

_WORDS: Final = frozenset(
    {"AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "BETWEEN", "TRUE", "FALSE", "IS", "NULL"}
)

#: Functions of a row's own values, none of which reads anything else.
FUNCTIONS: Final = frozenset(
    {
        "abs",
        "bitAnd",
        "bitOr",
        "bitShiftLeft",
        "bitShiftRight",
        "bitTest",
        "concat",
        "dateDiff",
        "empty",
        "endsWith",
        "greatest",
        "has",
        "if",
        "intDiv",
        "isIPAddressInRange",
        "least",
        "length",
        "lower",
        "match",
        "modulo",
        "notEmpty",
        "position",
        "startsWith",
        "toHour",
        "toString",
        "upper",
        "xor",
    }
)

_CLOSES: Final = {")": "(", "]": "["}

MAX_LENGTH: Final = 4_000


def check_filter(text: str) -> None:
    """Refuses whatever is not a lone expression over flow columns.

    Raises:
        ValueError: says which part is refused.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    open_brackets: list[str] = []
    position = 0
    after_operand = False
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"{text[position : position + 20]!r} is not allowed in a filter")
        position = token.end()
        if token.group() == "*" and not after_operand:
            raise ValueError("'*' stands for columns here, which is not allowed in a filter")
        if token.lastgroup == "word":
            _check_word(token.group(), text[position:].lstrip().startswith("("))
        elif token.lastgroup == "operator":
            _check_bracket(token.group(), open_brackets)
        elif token.lastgroup == "comment":
            raise ValueError("comments are not allowed in a filter")
        if token.lastgroup != "space":
            after_operand = _is_operand(token)
    if open_brackets:
        raise ValueError(f"{open_brackets[-1]!r} is not closed")


def _is_operand(token: re.Match[str]) -> bool:
    """Whether an operator may follow."""
    text = token.group()
    if token.lastgroup == "operator":
        return text in _CLOSES
    return text.upper() not in _WORDS - {"TRUE", "FALSE", "NULL"}


def _check_word(word: str, called: bool) -> None:
    if word.upper() in _WORDS:
        return
    if called:
        if word not in FUNCTIONS:
            raise ValueError(f"function {word} is not allowed in a filter")
    elif word not in BY_NAME:
        raise ValueError(f"no flow column is named {word!r}")


def _check_bracket(operator: str, open_brackets: list[str]) -> None:
    if operator in "([":
        open_brackets.append(operator)
    elif operator in _CLOSES and (not open_brackets or open_brackets.pop() != _CLOSES[operator]):
        raise ValueError(f"{operator!r} closes nothing")
