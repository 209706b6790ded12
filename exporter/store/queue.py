"""Rows that wait for an insert, of each table apart. Whoever uses it holds a lock meanwhile."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from exporter.batch import Batch


@dataclass(slots=True, eq=False)
class _Queue:
    """Rows of one table that wait, with the times when they came."""

    table: str
    waiting: deque[tuple[float, Batch]] = field(default_factory=deque)
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken from a queue for one insert."""

    queue: _Queue
    waited: list[tuple[float, Batch]]
    rows: int

    @property
    def table(self) -> str:
        """The table that the rows are for."""
        return self.queue.table

    @property
    def batches(self) -> list[Batch]:
        """The rows, those that came first first."""
        return [batch for _, batch in self.waited]


class Queues:
    """Rows by table: an insert is due when a table has ``batch_rows`` of them, or when one of them
    has waited for ``batch_seconds``.
    """

    def __init__(self, batch_rows: int, batch_seconds: float) -> None:
        self._batch_rows = batch_rows
        self._batch_seconds = batch_seconds
        self._by_table: dict[str, _Queue] = {}
        #: Rows of all tables.
        self.rows = 0

    @property
    def batches(self) -> int:
        """How many batches wait, of all tables."""
        return sum(len(queue.waiting) for queue in self._by_table.values())

    def put(self, table: str, batch: Batch) -> None:
        """Add rows behind the others of their table."""
        queue = self._by_table.setdefault(table, _Queue(table))
        queue.waiting.append((time.monotonic(), batch))
        queue.rows += len(batch)
        self.rows += len(batch)

    def take(self) -> Taken:
        """The next insert's rows; there must be some."""
        queue = self._next()
        assert queue is not None
        waited: list[tuple[float, Batch]] = []
        rows = 0
        while queue.waiting and rows < self._batch_rows:
            waited.append(queue.waiting.popleft())
            rows += len(waited[-1][1])
        queue.rows -= rows
        self.rows -= rows
        return Taken(queue, waited, rows)

    def put_back(self, taken: Taken) -> None:
        """What could not be done comes first the next time."""
        taken.queue.waiting.extendleft(reversed(taken.waited))
        taken.queue.rows += taken.rows
        self.rows += taken.rows

    def due_in(self) -> float | None:
        """Seconds until there is an insert to make; ``None`` while nothing waits."""
        queue = self._next()
        if queue is None:
            return None
        age = time.monotonic() - queue.waiting[0][0]
        return 0.0 if self._enough(queue) else max(0.0, self._batch_seconds - age)

    def clear(self) -> None:
        """Forget everything."""
        self._by_table.clear()
        self.rows = 0

    def _next(self) -> _Queue | None:
        """The queue whose oldest came first; before others those with enough rows for an insert."""
        waiting = [queue for queue in self._by_table.values() if queue.waiting]
        aged = time.monotonic() - self._batch_seconds
        due = [q for q in waiting if self._enough(q) or q.waiting[0][0] <= aged]
        return min(due or waiting, key=lambda queue: queue.waiting[0][0], default=None)

    def _enough(self, queue: _Queue) -> bool:
        return queue.rows >= self._batch_rows
