"""Lengths and moments as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_LENGTH = re.compile(r"(\d{1,6})(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_length(text: str) -> int:
    """Seconds out of ``30m``, ``6h``, ``7d``.

    Raises:
        ValueError: it is none; the text says so.
    """
    found = _LENGTH.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise ValueError(f"{text!r} is not a length such as 30m, 6h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


def parse_moment(text: str) -> int:
    """Seconds since the epoch out of ISO 8601, UTC unless it says.

    Raises:
        ValueError: it is none; the text says so.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time such as 2026-03-01T22:15") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
