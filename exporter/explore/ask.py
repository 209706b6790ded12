"""Asks a question of ClickHouse: all choices known, texts percent-encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from clickhouse_connect.driver.client import Client

from exporter.explore.choices import by, measuring
from exporter.explore.columns import DIMENSIONS, MEASURES, NO_DIMENSION, Measure
from exporter.explore.drawn import (
    ALL_FLOWS,
    DRAWN_FLOWS,
    FEW_FLOWS,
    HOURLY_ROLLUPS,
    ROLLUPS,
    looked_at_query,
)
from exporter.explore.question import Question
from exporter.explore.series import series_query
from exporter.explore.table import table_query
from exporter.meant import instead
from exporter.policies.filter import check_filter

#: Lengths of buckets in seconds; the shortest that gives at most BUCKETS of them is taken.
STEPS: Final = (60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)
BUCKETS: Final = 60
#: Ranges end with a whole minute, or where buckets have whole hours, as rollups do, with one.
MINUTE: Final = 60
HOUR: Final = 3600
TOP_LIMIT: Final = 1000


@dataclass(frozen=True)
class Asked:
    """What is asked; ``start`` and ``end`` are seconds since the epoch.

    Raises:
        ValueError: says which choice cannot be.
    """

    start: int
    end: int
    by: Sequence[str] = ("src_addr",)
    measure: str = MEASURES[0].name
    where: str = ""
    address: str = ""
    top: int = 10
    compare: str = NO_DIMENSION
    pinned: Sequence[str] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        dimensions = [name for _, name in DIMENSIONS]
        if not 1 <= len(self.by) <= 2 or len(set(self.by)) != len(self.by):
            raise ValueError("group by one dimension, or by two different ones")
        for name in self.by:
            if name not in dimensions:
                raise ValueError(f"no dimension is named {name!r}{instead(name, dimensions)}")
        measures = [measure.name for measure in MEASURES]
        if self.measure not in measures:
            raise ValueError(
                f"no measure is named {self.measure!r}{instead(self.measure, measures)}"
            )
        if self.compare not in (NO_DIMENSION, "day", "week"):
            raise ValueError(f"compare with day or week, not with {self.compare!r}")
        if not 1 <= self.top <= TOP_LIMIT:
            raise ValueError(f"top must be from 1 to {TOP_LIMIT}")
        if self.start >= self.end:
            raise ValueError("the range ends before it begins")
        _check_prefix(self.address.strip())
        try:
            check_filter(self.where)
        except ValueError as error:
            raise ValueError(f"where: {error}") from error

    @property
    def measured(self) -> Measure:
        """The measure by its name."""
        return next(measure for measure in MEASURES if measure.name == self.measure)

    @property
    def step(self) -> int:
        """Length of a bucket in seconds."""
        length = self.end - self.start
        return next((step for step in STEPS if length <= step * BUCKETS), STEPS[-1])

    def step_of(self, looked_at: str) -> int:
        """The same where that is looked at: rollups by hour have no less."""
        return max(self.step, HOUR) if looked_at.startswith(HOURLY_ROLLUPS) else self.step

    def question(self, looked_at: str = ALL_FLOWS) -> Question:
        """As SQL; ``looked_at`` is what :func:`looks_at` says."""
        step = self.step_of(looked_at)
        first, *rest = self.by
        second = rest[0] if rest else NO_DIMENSION
        return Question(
            start=f"toDateTime({self.start}, 'UTC')",
            end=f"toDateTime({self.end}, 'UTC')",
            step=str(step),
            end_step=str(MINUTE if step < HOUR else HOUR),
            dimension=by(first),
            dimension_2=by(second),
            measure=measuring(self.measure),
            top=_text(str(self.top)),
            address=_text(self.address) if self.address.strip() else "",
            compare="" if self.compare == NO_DIMENSION else _text(self.compare),
            pinned=_text(",".join(self.pinned)) if self.pinned else "",
            rollup_if="" if self.where else "1",
            beyond="1" if looked_at.startswith(ROLLUPS) else "",
            estimated="1" if looked_at.startswith(DRAWN_FLOWS) else "",
            few="1" if looked_at.startswith(FEW_FLOWS) else "",
            where=self.where,
        )


def _check_prefix(address: str) -> None:
    """Refuse a prefix that is none; names may have slashes."""
    network, slash, length = address.partition("/")
    if not slash:
        return
    try:
        ip_address(network)
    except ValueError:
        return
    try:
        if length.isdecimal():  # the library takes masks, too
            ip_network(address, strict=False)
            return
    except ValueError:
        pass
    raise ValueError(f"{address!r} is not a prefix such as 10.0.0.0/8")


def _text(value: str) -> str:
    """A String in SQL, whatever characters it has: as Grafana sends variables.

    Bound parameters do not reach every place of so deep a query.
    """
    return f"decodeURLComponent('{percent_encoded(value, safe='-_.~')}')"


@dataclass(frozen=True)
class Key:
    """One key of the answer; ``values`` are those of all buckets, oldest first."""

    key: Sequence[str]
    name: str
    average: float
    p95: float
    maximum: float
    last: float
    total: float
    earlier: float | None
    change: float | None
    values: Sequence[float] = field(default_factory=tuple)


def looks_at(client: Client, asked: Asked) -> str:
    """By which flows :func:`ask` had better answer: those of :mod:`exporter.explore.drawn`."""
    sql = looked_at_query(asked.question(), "0" if asked.exact else "1")
    [[looked_at]] = client.query(sql).result_rows
    return str(looked_at)


def ask(client: Client, asked: Asked, looked_at: str = ALL_FLOWS) -> list[Key]:
    """The top keys, largest first, by the flows that :func:`looks_at` says.

    Raises:
        clickhouse_connect's errors: ClickHouse does not answer, or refuses.
    """
    question = asked.question(looked_at)
    series: dict[str, list[float]] = {}
    for _, name, value in client.query(series_query(question)).result_rows:
        series.setdefault(name, []).append(value)
    table = client.query(table_query(question))
    return [_key(row, len(asked.by), series) for row in table.named_results()]


def _key(row: dict[str, Any], dimensions: int, series: dict[str, list[float]]) -> Key:
    parts = [row["Key"], row["Second key"]][:dimensions]
    shown = " ".join(part for part in (*parts, row["Name"]) if part)
    return Key(
        key=parts,
        name=row["Name"],
        average=row["Average"],
        p95=row["95th percentile"],
        maximum=row["Maximum"],
        last=row["Last"],
        total=row["Total"],
        earlier=row["Earlier"],
        change=row["Change"],
        values=series.get(shown, ()),
    )
