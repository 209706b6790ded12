"""Keeps a policy's filter what it is meant to be: one boolean expression over a table's columns.

The text of a filter becomes part of a query, so every token of it must be known harmless before
ClickHouse sees it: literals, operators, columns, a list of pure functions and the words that join
them. There is no word to begin a subquery or a table function with, and no way to close the
parentheses around the filter. What remains, grammar and types, ClickHouse itself checks.

``column IN list('name')`` is ours: :func:`expand_lists` puts the condition there that looks the
column up in the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass
from typing import Final

from exporter.meant import close_to
from exporter.policies.literals import check_literals
from exporter.schema import BY_NAME, Column

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

#: Words that join conditions, in capitals.
WORDS: Final = frozenset(
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

#: What may stand before a column that is looked up in a list.
_BEFORE_LOOKUP: Final = frozenset({"(", ",", "AND", "OR", "NOT"})

MAX_LENGTH: Final = 4_000

#: What :func:`is_plain` holds a text against, in the dialect that Python and ClickHouse share:
#: texts without escapes, numbers; then, of what these leave, the signs, and what begins a comment.
PLAIN_TEXT: Final = r"'[^'\\]*'"
PLAIN_NUMBER: Final = r"\b(0x[0-9A-Fa-f]+|[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?)\b"
PLAIN_SIGNS: Final = r"^[A-Za-z0-9_\s<>=!+*/%(),-]*$"
COMMENT: Final = r"--|/[*]|[*]/"


@dataclass(frozen=True, slots=True)
class ListUse:
    """``column [NOT] IN list('name')``, from ``start`` up to ``end`` in the filter's text."""

    column: str
    name: str
    negated: bool
    start: int
    end: int


def check_filter(text: str, columns: Mapping[str, Column] = BY_NAME) -> None:
    """Refuses whatever is not a lone expression over ``columns``; lists are refused too.

    Raises:
        ValueError: says which part is refused.
    """
    if find_lists(text, columns):
        raise ValueError("list(…) stands for lists of policies.yaml, which are not known here")


def is_plain(text: str) -> bool:
    """Whether dashboards take a filter that was found good as their SQL condition.

    They hold the text against simpler patterns than a parser: brackets and escapes are refused.
    """
    frame = re.sub(PLAIN_NUMBER, " 0 ", re.sub(PLAIN_TEXT, " 0 ", text))
    return bool(re.match(PLAIN_SIGNS, frame)) and not re.search(COMMENT, frame)


def find_lists(text: str, columns: Mapping[str, Column]) -> list[ListUse]:
    """The lists that a filter asks for, which may use nothing else than ``columns``.

    Raises:
        ValueError: says which part is refused.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"longer than {MAX_LENGTH} characters")
    tokens = _tokens(text)
    uses = []
    open_brackets: list[str] = []
    for index, token in enumerate(tokens):
        if token.group() == "*" and not (index and _is_operand(tokens[index - 1])):
            raise ValueError("'*' stands for columns here, which is not allowed in a filter")
        if token.lastgroup == "word":
            called = index + 1 < len(tokens) and tokens[index + 1].group() == "("
            if called and token.group() == "list":
                uses.append(_list_use(tokens, index, columns))
            else:
                _check_word(token.group(), called, columns)
        elif token.lastgroup == "operator":
            _check_bracket(token.group(), open_brackets)
        elif token.lastgroup == "comment":
            raise ValueError("comments are not allowed in a filter")
    if open_brackets:
        raise ValueError(f"{open_brackets[-1]!r} is not closed")
    check_literals(tokens, columns)
    return uses


def expand_lists(text: str, uses: list[ListUse], condition: Callable[[ListUse], str]) -> str:
    """``text`` with the condition of each of its lists in its place."""
    for use in reversed(uses):
        word = "NOT " if use.negated else ""
        text = f"{text[: use.start]}({word}({condition(use)})){text[use.end :]}"
    return text


def _tokens(text: str) -> list[re.Match[str]]:
    """All tokens but spaces."""
    tokens = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"{text[position : position + 20]!r} is not allowed in a filter")
        position = token.end()
        if token.lastgroup != "space":
            tokens.append(token)
    return tokens


def _list_use(tokens: list[re.Match[str]], index: int, columns: Container[str]) -> ListUse:
    """The use whose word ``list`` is at ``index``."""
    wrong = ValueError("a list is written: column IN list('name')")
    after = tokens[index + 1 : index + 4]
    if len(after) < 3 or after[1].lastgroup != "text" or after[2].group() != ")":
        raise wrong
    at = index - 1
    if at < 0 or tokens[at].group().upper() != "IN":
        raise wrong
    at -= 1
    negated = at >= 0 and tokens[at].group().upper() == "NOT"
    at -= negated
    if at < 0 or tokens[at].group() not in columns:
        raise wrong
    if at > 0 and tokens[at - 1].group().upper() not in _BEFORE_LOOKUP:
        raise wrong
    name = after[1].group()[1:-1]
    return ListUse(tokens[at].group(), name, negated, tokens[at].start(), after[2].end())


def _is_operand(token: re.Match[str]) -> bool:
    """Whether an operator may follow."""
    text = token.group()
    if token.lastgroup == "operator":
        return text in _CLOSES
    return text.upper() not in WORDS - {"TRUE", "FALSE", "NULL"}


def _check_word(word: str, called: bool, columns: Collection[str]) -> None:
    if word.upper() in WORDS:
        return
    if called:
        if word not in FUNCTIONS:
            raise ValueError(f"function {word} is not allowed in a filter")
    elif word not in columns:
        near = close_to(word, columns)
        raise ValueError(
            f"no flow column is named {word!r}" + (f": is {near} meant?" if near else "")
        )


def _check_bracket(operator: str, open_brackets: list[str]) -> None:
    if operator in "([":
        open_brackets.append(operator)
    elif operator in _CLOSES and (not open_brackets or open_brackets.pop() != _CLOSES[operator]):
        raise ValueError(f"{operator!r} closes nothing")
