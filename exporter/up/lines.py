"""What the children say, as a person reads it."""

from __future__ import annotations

import json
import re
from typing import Final

_PAIR: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)')
#: When and where in the code: of use in a log file, not beside what is seen as it happens.
_HIDDEN: Final = {"time", "ts", "level", "msg", "logger", "caller", "source", "component"}
_USUAL: Final = "info"
#: A query that was slow is told with all of its SQL.
_LONGEST: Final = 500


def readable(line: str) -> str:
    """The message of a ``key=value`` log line, and what else it tells; other lines as they are."""
    pairs: dict[str, str] = {}
    at = 0
    while found := _PAIR.match(line, at):
        pairs[found[1]] = _unquoted(found[2])
        at = found.end()
    if at < len(line) or not {"level", "msg"} <= pairs.keys():
        return line
    level = "" if pairs["level"] == _USUAL else f"{pairs['level']}: "
    rest = [f"{key}: {value}" for key, value in pairs.items() if key not in _HIDDEN]
    return "; ".join([level + pairs["msg"], *rest])


def shortened(text: str) -> str:
    """``text``, cut where nobody reads on."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:  # Go quotes some characters as JSON does not
        return text[1:-1]
