"""An answer as people or programs read it: a table with sparklines, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from rich.table import Table

from exporter.explore.ask import Asked, Key

_BARS: Final = "▁▂▃▄▅▆▇█"
_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")


def sparkline(values: Sequence[float], width: int = 30) -> str:
    """A bar per value, or per largest of several where there are more than ``width``."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [index * len(values) // width for index in range(width + 1)]
    highest = [max(values[low:high]) for low, high in pairwise(edges)]
    top = max(highest) or 1.0
    return "".join(_BARS[min(7, int(value / top * 8))] for value in highest)


def human(value: float) -> str:
    """At most four digits, with a prefix for thousands."""
    for prefix in _PREFIXES:
        if abs(value) < 1000 or prefix == _PREFIXES[-1]:
            break
        value /= 1000
    return f"{value:.4g}{prefix}"


def table(asked: Asked, keys: Sequence[Key]) -> Table:
    """A row per key; the unit is in the title."""
    span = f"{_time(asked.start)} to {_time(asked.end)} UTC"
    made = Table(box=None, title=f"{asked.measured.label}, {span}", title_justify="left")
    for name in (*asked.by, "name"):
        made.add_column(name, no_wrap=True)
    compares = asked.compare != "none"
    numbers = ["average", "p95", "max", "last", "total"]
    numbers += [f"a {asked.compare} before", "change"] if compares else []
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("over time", no_wrap=True)
    for key in keys:
        row = [human(n) for n in (key.average, key.p95, key.maximum, key.last, key.total)]
        if compares:
            row += [human(key.earlier or 0), "" if key.change is None else f"{key.change:+.0%}"]
        made.add_row(*key.key, key.name, *row, sparkline(key.values))
    return made


def as_json(asked: Asked, keys: Sequence[Key]) -> str:
    """One object: what was asked, and ``keys``; rates are per second, times in UTC."""
    return json.dumps(
        {
            "from": _time(asked.start),
            "to": _time(asked.end),
            "step_seconds": asked.step,
            "by": list(asked.by),
            "measure": asked.measure,
            "keys": [asdict(key) for key in keys],
        }
    )


def as_csv(asked: Asked, keys: Sequence[Key]) -> str:
    """A header and a line per key."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["name", "average", "p95", "maximum", "last", "total", "earlier", "change"]
    writer.writerow([*asked.by, *names])
    for key in keys:
        writer.writerow([*key.key, *(getattr(key, name) for name in names)])
    return text.getvalue()


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
