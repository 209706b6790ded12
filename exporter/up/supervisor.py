"""Child processes in order: started one after the other, restarted when they die, stopped in
reverse, so that a collector can hand its last rows to a store that still answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import http.client
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from exporter.up.errors import UpError
from exporter.up.lines import readable

_PR_SET_PDEATHSIG = 1
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
#: A child that ran this long was healthy: its next restart waits the first pause again.
_HEALTHY_SECONDS = 60.0


class StartError(UpError):
    """A child ended or did not become ready at its first start; the text has what it said last."""


@dataclass(frozen=True, slots=True)
class Child:
    """A program to run; ``ready_url`` answers 200 once it can be used.

    Lines of its output in which ``hidden`` is found are not shown.
    """

    name: str
    argv: Sequence[str]
    ready_url: str = ""
    hidden: re.Pattern[str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 60.0
    stop_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Task:
    """A program that runs to its end before what comes after it is started.

    ``about`` says what it does, and how long that may take.
    """

    name: str
    argv: Sequence[str]
    about: str = ""
    stop_seconds: float = 20.0


class Supervisor:
    """Runs children until :meth:`stop` is called.

    ``log`` gets a child's name and one line of its output (without the newline).
    """

    def __init__(self, log: Callable[[str, str], None]) -> None:
        self._log = log
        self._watches: list[tuple[Child, asyncio.Task[None]]] = []
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._starting: set[str] = set()
        self._last_lines: dict[str, str] = {}
        self._stopping = asyncio.Event()

    async def start(self, child: Child) -> None:
        """Start ``child`` and wait until it is ready; from then on it is started again if it ends.

        Raises:
            StartError: it ended, or was not ready within ``start_seconds``.
        """
        process = await self._start(child)
        self._starting.add(child.name)
        watch = asyncio.create_task(self._watch(child, process))
        self._watches.append((child, watch))
        if child.ready_url:
            await self._until_ready(child, process, watch)
        self._starting.discard(child.name)

    async def run(self, task: Task) -> None:
        """Run ``task`` to its end; when cancelled, end it.

        Raises:
            StartError: it ended with a code other than 0.
        """
        process = await self._spawn(task.argv, {})
        try:
            await self._relay(task.name, process)
            code = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), task.stop_seconds)
            except TimeoutError:
                process.kill()
                await process.wait()
            raise
        if code:
            raise self._with_last_words(task.name, f"ended with code {code}")

    async def stop(self) -> None:
        """End all children, the last started first; each is killed after its ``stop_seconds``."""
        self._stopping.set()
        while self._watches:
            child, watch = self._watches.pop()
            process = self._processes[child.name]
            if process.returncode is None:
                process.terminate()
            # The watch goes on meanwhile: what a child says while it ends is worth reading.
            done, _ = await asyncio.wait({watch}, timeout=child.stop_seconds)
            if not done:
                self._log(child.name, f"did not end in {child.stop_seconds:.0f} s: killed")
                process.kill()
                await watch

    def reload(self, name: str) -> None:
        """Send SIGHUP to the child of that name, if it runs."""
        process = self._processes.get(name)
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGHUP)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        process = await self._spawn(child.argv, child.environment)
        self._processes[child.name] = process
        return process

    async def _spawn(
        self, argv: Sequence[str], environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *argv,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            # Its own session: Ctrl-C reaches us alone, and we end the children in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    async def _until_ready(
        self, child: Child, process: asyncio.subprocess.Process, watch: asyncio.Task[None]
    ) -> None:
        deadline = time.monotonic() + child.start_seconds
        while time.monotonic() < deadline:
            if process.returncode is not None:
                await watch  # until all that it said is there
                raise self._with_last_words(child.name, f"ended with code {process.returncode}")
            if await asyncio.to_thread(_answers, child.ready_url):
                return
            await asyncio.sleep(0.1)
        raise self._with_last_words(
            child.name, f"was not ready in {child.start_seconds:.0f} s ({child.ready_url})"
        )

    def _with_last_words(self, name: str, what: str) -> StartError:
        last = self._last_lines.get(name)
        return StartError(f"{name} {what}" + (f": {readable(last)}" if last else ""))

    async def _watch(self, child: Child, process: asyncio.subprocess.Process) -> None:
        pause = _FIRST_PAUSE
        while True:
            started = time.monotonic()
            await self._relay(child.name, process, child.hidden)
            code = await process.wait()
            if self._stopping.is_set() or child.name in self._starting:
                return
            if time.monotonic() - started > _HEALTHY_SECONDS:
                pause = _FIRST_PAUSE
            self._log(child.name, f"ended with code {code}; starting it again in {pause:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            if self._stopping.is_set():
                return
            pause = min(2 * pause, _LONGEST_PAUSE)
            process = await self._start(child)

    async def _relay(
        self, name: str, process: asyncio.subprocess.Process, hidden: re.Pattern[str] | None = None
    ) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line over the limit; the stream goes on behind it
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            if not text or (hidden and hidden.search(text)):
                continue
            self._last_lines[name] = text
            self._log(name, text)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2.0) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False


def die_with_parent() -> None:
    """Between fork and exec: a killed parent leaves no child behind on its ports."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
