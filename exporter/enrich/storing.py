"""What stores names in ClickHouse again and again."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod

from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


class Storing(Collector):
    """Calls :meth:`store` every ``seconds``, in a thread called ``name``.

    ``what`` is stored, as the log calls it. It begins after ``first_seconds``.
    """

    def __init__(self, name: str, what: str, seconds: float, first_seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._first_seconds = first_seconds
        #: How often storing failed.
        self._failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """Store no more."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    @abstractmethod
    def store(self) -> None:
        """Store what the tables lack or have otherwise.

        Raises:
            Exception: ClickHouse does not take it; the next time comes nevertheless.
        """

    def _run(self) -> None:
        wait = self._first_seconds
        while not self._stop.wait(wait):
            try:
                self.store()
            except Exception as error:
                self._failures += 1
                log.warning("%s were not stored: %s", self._what, error)
            wait = self._seconds
