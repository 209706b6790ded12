"""When a rollup by host or by network can answer a question, and how its rows stand for flows.

These rollups have the hour of reception, so long ranges have buckets of an hour at least, and what
follows the last whole hour is read from the flows: the last bucket may be a shorter one. Sums are
those of the flows exactly. Different addresses come from states, about 2 % off, and only of the
hosts with most flows: to merge all states of a day takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exporter.explore.columns import (
    HOST_COLUMNS,
    MEASURES,
    NAMES,
    NETWORK_COLUMNS,
    NO_DIMENSION,
)
from exporter.explore.expressions import TIME, quote
from exporter.explore.rollups import NO_STATE, STATE, long_enough

if TYPE_CHECKING:
    from exporter.explore.question import Question

#: Seconds of a bucket as they are asked for, where these may be too few.
ASKED: Final = "asked_seconds"
#: Seconds of a bucket, a constant of queries that may read these rollups.
BUCKET: Final = "bucket_seconds"
#: Which of the rollups answers, or an empty text: likewise.
HOURS_OF: Final = "hours_of"
#: Of so many hosts, those with most flows, different addresses are counted.
COUNTED_HOSTS: Final = 500


@dataclass(frozen=True)
class _Hours:
    """A rollup; ``columns`` are its expressions by what flows call them.

    ``name`` is what it is called where it is chosen, ``way`` ends the names of its sums, ``counts``
    is its state of different addresses.
    """

    name: str
    table: str
    columns: dict[str, str]
    way: str = ""
    counts: str = ""

    @property
    def is_read(self) -> str:
        """Whether it answers: constant."""
        return f"{HOURS_OF} = {quote(self.name)}"

    @property
    def where(self) -> str:
        return f"flows{self.way} > 0" if self.way else "1"


def _host(side: str, name: str, way: str, other: str) -> _Hours:
    columns = {f"{side}_{column}": column for column in HOST_COLUMNS}
    return _Hours(name, "hosts_1h", columns, way, f"unique_{other}_addr")


#: The first that can answer is read.
_TABLES: Final = (
    _Hours("networks", "networks_1h", {name: name for name in NETWORK_COLUMNS}),
    _host("src", "sources", "_sent", "dst"),
    _host("dst", "destinations", "_received", "src"),
)
#: What stands for a column that a table does not have.
_EMPTY: Final = {
    name: {"addr": "toIPv6('::')", "as": "toUInt32(0)"}.get(name.rpartition("_")[2], "''")
    for table in _TABLES
    for name in table.columns
}


def in_hours(question: Question) -> Question:
    """The same question with buckets of at least an hour where one of these rollups answers it."""
    question = with_long_buckets(question)
    possible = question.rollup_if and any(_possible(question, table) for table in _TABLES)
    return replace(question, step=BUCKET, asked_step=question.step) if possible else question


def with_long_buckets(question: Question) -> Question:
    """The same question with buckets of at least an hour where there is nothing by the minute.

    Nor does the range end with less: what follows the last whole hour is not in the flows.
    """
    if not question.hourly:
        return question
    longer = f"greatest(3600 * {question.hourly}, {question.step}) AS {ASKED}"
    constants = f"{longer},\n  {question.constants}" if question.constants else longer
    return replace(question, step=ASKED, hourly="", constants=constants)


def _possible(question: Question, table: _Hours) -> bool:
    """Whether a table may have what is known of the question."""
    dimensions = {question.dimension.known, question.dimension_2.known} - {"", NO_DIMENSION}
    return dimensions <= set(table.columns)


def hour_constants(question: Question) -> list[str]:
    """Which of the rollups answers, and the length of a bucket, as lists for WITH.

    Each constant names the one before it once: where it is used ClickHouse analyses all that it is
    made of, and a query uses the last ones a hundred times.
    """
    told = [question.rollup_if, *long_enough(question)]
    if question.address:
        told.append(f"trim({question.address}) = ''")
    if question.device:
        told.append(question.any_device)
    summed = [m.name for m in MEASURES if m.rollup_amount]
    cases = []
    for table in _TABLES:
        columns = (*table.columns, NO_DIMENSION)
        measures = [*summed, table.counts] if table.counts else summed
        held = [d.is_one_of(columns) for d in (question.dimension, question.dimension_2)]
        held.append(question.measure.is_one_of(measures))
        cases.append(f"{' AND '.join(held)}, {quote(table.name)}")
    counted = [f"unique_{side}_addr" for side in ("src", "dst")]
    asked = question.asked_step
    return [
        f"if({' AND '.join(told)}, multiIf({', '.join(cases)}, ''), '') AS {HOURS_OF}",
        f"({HOURS_OF} != '') AS by_hour",
        f"(by_hour AND {question.measure.is_one_of(counted)}) AS from_states",
        f"greatest(3600 * by_hour, {asked}) AS {BUCKET}",
    ]


def after_hours(question: Question, time: str = TIME) -> str:
    """Whether a time is in the last hour of the range, which may not be over, or of the earlier."""
    present = f"{time} >= toStartOfHour(range_end)"
    if not question.compare:
        return present
    return (
        f"({present} OR {time} < range_end - shift AND {time} >= toStartOfHour(range_end) - shift)"
    )


def flow_state() -> str:
    """The state of a flow, to be merged with those of hours; where none are, a constant.

    Columns are read for it wherever ``flow`` is passed on whole.
    """
    counted = f"if({HOURS_OF} = 'sources', dst_addr, src_addr)"
    state = f"initializeAggregation('{STATE}', cityHash64({counted}))"
    return f"if(from_states, {state}, {NO_STATE})"


def hour_rows(question: Question) -> str:
    """What a question needs of flows, of the rows of these rollups."""
    conditions = " AND ".join([
        *question.conditions("time", device=False), f"NOT {after_hours(question, 'time')}",
    ])  # fmt: skip
    tables = [table for table in _TABLES if _possible(question, table)]
    reads = "\n          UNION ALL\n          ".join(
        _read(question, table, conditions) for table in tables
    )
    return f"""\
SELECT time AS {TIME}, bytes, {question.measure.rollup_column} AS amount,
        {question.dimension.hour_column} AS key_1, {question.dimension_2.hour_column} AS key_2,
        toString({question.dimension.name}) AS name, state
      FROM (
        SELECT *, {", ".join(f"{m.rollup_amount} AS {m.name}" for m in MEASURES if m.rollup_amount)}
        FROM (
          {reads}
        )
      )"""


def _read(question: Question, table: _Hours, conditions: str) -> str:
    columns = _EMPTY | table.columns
    names = {f"{name}_name": columns[told] for name, told in NAMES.items() if told in columns}
    sums = {name: f"{name}{table.way}" for name in ("bytes", "packets", "flows")}
    selected = [f"{what} AS {name}" for name, what in (columns | names | sums).items()]
    held = [table.is_read, table.where, conditions]
    if table.counts:
        held.append(f"""\
(NOT from_states OR addr IN (
            SELECT addr FROM {table.table} WHERE {table.is_read} AND from_states AND {conditions}
            GROUP BY addr ORDER BY sum(flows{table.way}) DESC, addr LIMIT {COUNTED_HOSTS}))""")
    selected.append(f"{table.counts or NO_STATE} AS state")
    return f"""\
SELECT time, {", ".join(selected)}
          FROM {table.table}
          WHERE {" AND ".join(held)}"""
