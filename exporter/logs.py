"""Logs: one line per event on standard error, as ``key=value`` pairs (logfmt)."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Final

_RARE_SECONDS: Final = 60.0


class LogfmtFormatter(logging.Formatter):
    """``time=… level=… logger=… msg="…"``, with ``error`` when there was an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        pairs = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            pairs["error"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_quoted(value)}" for key, value in pairs.items())


def _quoted(value: str) -> str:
    plain = value.isascii() and value.isprintable() and not set(value) & set(' "=\\')
    if value and plain:
        return value
    text = json.dumps(value, ensure_ascii=False)
    # JSON leaves what a terminal obeys, ends of lines, and marks that turn the order of letters.
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def configure_logging(level: str) -> None:
    """Log everything from ``level`` (``debug``, ``info``, …) on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What these say of single requests and connections, our own messages and metrics say too.
    for name in ("uvicorn", "urllib3", "clickhouse_connect", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)


class RareLog:
    """Logs each kind of message at most once a minute."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, float] = {}

    def warning(self, kind: str, text: str) -> None:
        """A warning, unless one of that kind was logged within a minute."""
        self._rarely(logging.WARNING, kind, text)

    def error(self, kind: str, text: str) -> None:
        """An error, likewise."""
        self._rarely(logging.ERROR, kind, text)

    def exception(self, kind: str, text: str) -> None:
        """An error with the exception that is handled, likewise."""
        self._rarely(logging.ERROR, kind, text, exc_info=True)

    def forget(self) -> None:
        """What was wrong is over: log it at once when it comes again."""
        self._last.clear()

    def _rarely(self, level: int, kind: str, text: str, *, exc_info: bool = False) -> None:
        now = time.monotonic()
        if now - self._last.get(kind, -_RARE_SECONDS) >= _RARE_SECONDS:
            self._last[kind] = now
            self._logger.log(level, text, exc_info=exc_info)
