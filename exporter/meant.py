"""Names that do not exist, and which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def close_to(name: str, known: Iterable[str]) -> str:
    """The name that is near; empty: none is."""
    return next(iter(difflib.get_close_matches(name, list(known), 1)), "")


def instead(name: str, known: Iterable[str]) -> str:
    """To be said behind what does not know ``name``: the name that is near, else all there are."""
    names = list(known)
    near = close_to(name, names)
    return f": is {near} meant?" if near else f": {', '.join(names) or 'there are none'}"
