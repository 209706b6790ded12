"""How far long work is: a bar on a terminal, else a line now and then, for logs and supervisors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: Without a terminal: how often it is told, in percent and in seconds.
_PERCENT: Final = 10
_SECONDS: Final = 15.0


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """Show on standard error how far ``what`` is; call the function with what was done since."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as shown:
            task = shown.add_task(what, total=total)
            yield lambda done: shown.advance(task, done)
        return
    told = _Told(what, total, lambda line: print(line, file=console.file, flush=True))
    yield told.advance


class _Told:
    def __init__(self, what: str, total: float, tell: Callable[[str], None]) -> None:
        self._what = what
        self._total = total
        self._tell = tell
        self._began = self._told_at = time.monotonic()
        self._told_percent = 0
        self._done = 0.0

    def advance(self, done: float) -> None:
        self._done += done
        now = time.monotonic()
        percent = min(int(100 * self._done / self._total), 100) if self._total else 100
        late = now - self._told_at >= _SECONDS and percent > self._told_percent
        if not late and percent < self._told_percent // _PERCENT * _PERCENT + _PERCENT:
            return
        self._told_percent, self._told_at = percent, now
        left = (now - self._began) * max(self._total / self._done - 1, 0.0)
        rest = f", about {left:.0f} s left" if percent < 100 else ""
        self._tell(f"{self._what}: {percent} %{rest}")
