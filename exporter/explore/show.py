"""An answer as people or programs read it: a table with sparklines, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table

from exporter.explore.ask import Asked, Key
from exporter.explore.drawn import DRAWN_FLOWS, HOURLY_ROLLUPS, NO_FLOWS_BEFORE, ROLLUPS

_BARS: Final = "▁▂▃▄▅▆▇█"
_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_BARS_HEADER: Final = "over time"
_MOST_BARS: Final = 30
#: No name or key is folded to less.
_FOLDED: Final = 4


def sparkline(values: Sequence[float], width: int = _MOST_BARS) -> str:
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


@dataclass
class _Column:
    header: str
    cells: Sequence[str]
    justify: JustifyMethod = "left"
    width: int = field(init=False)

    def __post_init__(self) -> None:
        lines = (line for cell in (self.header, *self.cells) for line in cell.split("\n"))
        self.width = max(map(cell_len, lines))


@dataclass(frozen=True)
class AnswerTable:
    """A row per key, made for the width that it is shown at; the unit is in the title."""

    asked: Asked
    keys: Sequence[Key]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Numbers are whole, and sparklines have the room that keys and numbers leave, or none.

        Where that is too little, columns move together, then names are folded, and keys last. What
        is wider even so is left to the terminal to break.
        """
        texts = self._texts()
        columns = [*texts, *self._numbers(" before")]
        left = 1
        room = options.max_width - _needed(columns, left)
        bars = min(room - 2, _MOST_BARS)
        if bars >= len(_BARS_HEADER):
            lines = [sparkline(key.values, bars) for key in self.keys]
            columns.append(_Column(_BARS_HEADER, lines))
        elif room < 0:
            columns = [*texts, *self._numbers("\nbefore")]
            left = 0
            excess = _needed(columns, left) - options.max_width
            *keys, names = texts
            _fold(keys, _fold([names], excess))
        asked = self.asked
        title = f"{asked.measured.label}, {_time(asked.start)} to {_time(asked.end)} UTC"
        made = Table(box=None, title=title, title_justify="left", padding=(0, 1, 0, left))
        for each in columns:
            made.add_column(each.header, justify=each.justify, width=each.width, overflow="fold")
        for row in zip(*(each.cells for each in columns), strict=True):
            made.add_row(*row)
        width = max(options.max_width, _needed(columns, left))
        yield from console.render(made, options.update(width=width))

    def _texts(self) -> list[_Column]:
        by = enumerate(self.asked.by)
        keys = [_Column(name, [key.key[at] for key in self.keys]) for at, name in by]
        return [*keys, _Column("name", [key.name for key in self.keys])]

    def _numbers(self, before: str) -> list[_Column]:
        made = {
            "average": [human(key.average) for key in self.keys],
            "p95": [human(key.p95) for key in self.keys],
            "max": [human(key.maximum) for key in self.keys],
            "last": [human(key.last) for key in self.keys],
            "total": [human(key.total) for key in self.keys],
        }
        if self.asked.compare != "none":
            made[f"a {self.asked.compare}{before}"] = [human(key.earlier or 0) for key in self.keys]
            changes = (key.change for key in self.keys)
            made["change"] = ["" if change is None else f"{change:+.0%}" for change in changes]
        return [_Column(header, cells, "right") for header, cells in made.items()]


def _needed(columns: Sequence[_Column], left: int) -> int:
    """Width of a table of ``columns``, with so many spaces to the left of each and one after it."""
    return sum(left + each.width + 1 for each in columns)


def _fold(columns: Sequence[_Column], excess: int) -> int:
    """Take ``excess`` from the widest columns: what is left of it when all are narrow."""
    while excess > 0:
        widest = max(columns, key=lambda each: each.width)
        if widest.width <= _FOLDED:
            break
        widest.width -= 1
        excess -= 1
    return excess


def as_json(asked: Asked, keys: Sequence[Key], looked_at: str) -> str:
    """One object: what was asked, what was looked at, and ``keys``; rates are per second, times in
    UTC."""
    return json.dumps(
        {
            "from": _time(asked.start),
            "to": _time(asked.end),
            "step_seconds": asked.step_of(looked_at),
            "by": list(asked.by),
            "measure": asked.measure,
            "looked_at": looked_at,
            "estimated": looked_at.startswith(DRAWN_FLOWS),
            "keys": [asdict(key) for key in keys],
        }
    )


def remarks(looked_at: str) -> list[str]:
    """What people should know of an answer by what was looked at."""
    told = []
    what, gone, since = looked_at.partition(NO_FLOWS_BEFORE)
    if gone and what in (ROLLUPS, HOURLY_ROLLUPS):
        told.append(f"from {what}: flows before {since} UTC are gone")
    elif gone:
        told.append(
            f"no flows before {since} UTC are kept, and no rollup answers this: rollups know"
            " services, protocols, devices, interfaces, addresses, hosts, networks, countries and"
            " AS, not all of them together, and nothing of --address and --where"
        )
    if what.startswith(DRAWN_FLOWS):
        told.append("estimated from flows drawn by size; --exact sums them all")
    return told


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
