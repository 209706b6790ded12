"""What `up` promises about its children, with real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from exporter.up.ports import HeldPorts
from exporter.up.supervisor import Child, StartError, Supervisor, Task

Lines = list[tuple[str, str]]


def _python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


_SLEEPER = "import time; print('up'); time.sleep(60)"
_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); "
    "time.sleep(60)"
)


def _run(scenario: Callable[[Supervisor, Lines], Awaitable[None]]) -> Lines:
    lines: Lines = []

    async def main() -> None:
        supervisor = Supervisor(lambda name, line: lines.append((name, line)))
        try:
            await scenario(supervisor, lines)
        finally:
            await supervisor.stop()

    asyncio.run(asyncio.wait_for(main(), 90))
    return lines


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not come true within a minute")


def test_children_end_in_reverse_order_and_what_they_say_meanwhile_is_kept() -> None:
    polite = (
        "import signal, sys, time\n"
        "def end(*_): print('bye'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up'); time.sleep(60)"
    )

    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        for name in ("first", "second"):
            await supervisor.start(Child(name, _python(polite)))
        await _until(lambda: len(lines) == 2)

    assert _run(scenario)[-2:] == [("second", "bye"), ("first", "bye")]


def test_a_child_that_dies_is_started_again() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        await supervisor.start(
            Child("child", _python(f"import os; print(os.getpid()); {_SLEEPER}"))
        )
        await _until(lambda: len(lines) >= 2)
        os.kill(int(lines[0][1]), signal.SIGKILL)
        await _until(lambda: [line for _, line in lines].count("up") == 2)

    assert ("child", "ended with code -9; starting it again in 1 s") in _run(scenario)


def test_a_child_that_does_not_end_is_killed() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        await supervisor.start(Child("stubborn", _python(_STUBBORN), stop_seconds=0.2))
        await _until(lambda: ("stubborn", "up") in lines)

    assert ("stubborn", "did not end in 0 s: killed") in _run(scenario)


def test_start_waits_until_the_child_answers(tmp_path: Path) -> None:
    (tmp_path / "ready").write_text("yes")
    with HeldPorts() as held:
        port = held.pick("web", 19000)
    server = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]

    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        url = f"http://127.0.0.1:{port}/"
        await supervisor.start(Child("web", server, ready_url=url))
        with HeldPorts() as held:
            assert held.pick("other", port) > port

    _run(scenario)


def test_a_child_that_ends_at_its_start_is_an_error_with_its_last_words() -> None:
    said: Lines = []

    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        code = "print('no room left'); raise SystemExit(3)"
        try:
            await supervisor.start(Child("broken", _python(code), ready_url="http://127.0.0.1:1/"))
        finally:
            said.extend(lines)

    with pytest.raises(StartError, match="broken ended with code 3: no room left"):
        _run(scenario)
    assert said == [("broken", "no room left")], "and is not started again"


def test_a_child_that_does_not_become_ready_is_an_error_that_says_what_it_waits_for() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        code = """import time; print('level=warning msg="no table"'); time.sleep(60)"""
        await supervisor.start(
            Child("slow", _python(code), ready_url="http://127.0.0.1:1/", start_seconds=1.5)
        )

    with pytest.raises(StartError, match=r"slow was not ready in 2 s .*: warning: no table"):
        _run(scenario)


def test_what_is_known_to_be_noise_is_not_shown() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        code = f"print('noise 1'); print('word'); {_SLEEPER}"
        await supervisor.start(Child("child", _python(code), hidden=re.compile("^noise")))
        await _until(lambda: len(lines) == 2)

    assert _run(scenario) == [("child", "word"), ("child", "up")]


def test_a_taken_port_moves_to_the_next_free_one() -> None:
    with socket.socket() as other, HeldPorts() as held:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert held.pick("child", port) > port


def test_a_port_is_kept_from_others_until_its_child_starts() -> None:
    with HeldPorts() as first, HeldPorts() as second:
        port = first.pick("late", 19000)
        early = first.pick("early", 19000)
        first.release("early")
        assert early > port
        assert second.pick("early", early) > early, "its child may not listen yet"
        assert second.pick("late", port) > port
        first.release("late")
        with socket.create_server(("127.0.0.1", port)):
            pass
    with HeldPorts() as third:
        assert third.pick("late", port) == port


def test_a_task_is_over_before_what_comes_after_it_and_is_not_run_again() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        await supervisor.run(Task("task", _python("import time; time.sleep(0.3); print('done')")))
        assert lines == [("task", "done")]
        await supervisor.start(Child("child", _python(_SLEEPER)))
        await _until(lambda: len(lines) == 2)

    assert _run(scenario) == [("task", "done"), ("child", "up")]


def test_a_task_that_fails_stops_the_start() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        with pytest.raises(StartError, match="task ended with code 3"):
            await supervisor.run(Task("task", _python("raise SystemExit(3)")))

    _run(scenario)


def test_a_task_that_is_given_up_is_ended() -> None:
    async def scenario(supervisor: Supervisor, lines: Lines) -> None:
        code = f"import os; print(os.getpid()); {_SLEEPER}"
        running = asyncio.create_task(supervisor.run(Task("task", _python(code))))
        await _until(lambda: len(lines) == 2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(ProcessLookupError):
            os.kill(int(lines[0][1]), 0)

    _run(scenario)
