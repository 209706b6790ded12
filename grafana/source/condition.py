"""A condition in SQL that a person writes, and what keeps it harmless.

The text reaches the query as it is written: there is no other way for it to be SQL. So the same
query first holds it, percent-encoded, against the lists that filters of policies are held against
(columns, functions, operators, literals; brackets that match): see
:mod:`exporter.policies.filter`. A scalar subquery does so, which ClickHouse runs while it analyses
the query: it refuses all of it before it looks at the text as SQL or reads any flow. Nothing that
stands before the text can be changed by it. Behind that, the datasource's user may only read, this
database only, within limits of its own.
"""

from __future__ import annotations

from exporter.explore.expressions import quote
from exporter.policies.filter import (
    COMMENT,
    FUNCTIONS,
    PLAIN_NUMBER,
    PLAIN_SIGNS,
    PLAIN_TEXT,
    WORDS,
)
from exporter.schema import COLUMNS

from .flows_sql import variable

NAME = "condition"

_TEXT = quote(PLAIN_TEXT)
_NUMBER = quote(PLAIN_NUMBER)
_SIGNS = quote(PLAIN_SIGNS)
_COMMENT = quote(COMMENT)
_WORD = quote(r"[A-Za-z_][A-Za-z0-9_]*")


def _array(words: list[str]) -> str:
    return f"[{', '.join(map(quote, words))}]"


#: Constants for WITH: ``condition_text``, and ``condition_is_safe``, which is 1 or an error.
CONSTANTS = f"""
  {variable(NAME)} AS condition_text,
  replaceRegexpAll(replaceRegexpAll(condition_text, {_TEXT}, ' 0 '), {_NUMBER}, ' 0 ')
    AS condition_frame,
  arrayCumSum(arrayMap(sign -> if(sign = '(', 1, -1), extractAll(condition_frame, '[()]')))
    AS condition_depths,
  match(condition_frame, {_SIGNS}) AND NOT match(condition_frame, {_COMMENT})
    AND arrayAll(depth -> depth >= 0, condition_depths)
    AND (empty(condition_depths) OR condition_depths[-1] = 0)
    AND arrayAll(word -> has({_array([c.name for c in COLUMNS])}, word)
      OR has({_array(sorted(FUNCTIONS))}, word)
      OR has({_array(sorted(WORDS))}, upper(word)), extractAll(condition_frame, {_WORD}))
    AS condition_allowed,
  (SELECT CAST(if(condition_allowed, '1',
    'the SQL condition: only columns, operators, numbers, texts and plain functions are allowed'),
    'UInt8')) AS condition_is_safe"""

#: Over flows. An empty text leaves an empty array, so nothing is excluded; of several, separated
#: by commas, all have to hold.
WHERE = f"condition_is_safe AND NOT has(array(${{{NAME}:raw}}), 0)"

#: Constant: nothing is asked for.
EMPTY = "trim(condition_text) = ''"
