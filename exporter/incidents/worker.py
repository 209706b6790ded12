"""What the threads share that keep alerts and their evidence."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from prometheus_client.registry import Collector

from exporter.store.session import Client, Session

#: Between tries while ClickHouse is away; each waits for twice as long as the one before.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0

#: Stopping waits for a query that runs, for so long.
_PATIENCE_SECONDS: Final = 15.0

Item = TypeVar("Item")


class Worker(Collector, Generic[Item]):
    """A thread called ``name`` that works with ClickHouse on what is queued.

    ``_condition`` guards all that the thread shares with others, and is notified of each change.
    """

    def __init__(self, name: str, client_factory: Callable[[], Client]) -> None:
        self._name = name
        self._session = Session(client_factory)
        self._queue: deque[Item] = deque()
        self._condition = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._dropped = 0

    def start(self) -> None:
        """Begin to work."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, once what is under way has; what is queued by then is up to the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)
            self._thread = None
        self._session.close()

    @abstractmethod
    def _run(self) -> None:
        """The thread, until ``_stopping``."""


def first_line(error: Exception) -> str:
    """What an error says, for the log."""
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
