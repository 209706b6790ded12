"""Log lines are one line each and tell a terminal nothing, whatever a peer calls itself."""

from __future__ import annotations

import json
import logging

import pytest

from exporter.logs import LogfmtFormatter, RareLog


def formatted(text: str) -> str:
    record = logging.LogRecord("exporter.test", logging.WARNING, "", 0, "%s", (text,), None)
    return LogfmtFormatter().format(record)


@pytest.mark.parametrize(
    "mark",
    ["\n", "\r", "\x1b[2J", "\x7f", "\x85", "\x9b2J", "\u2028", "\u2029", "\u202e", "\U000e0001"],
)
def test_what_a_terminal_would_obey_is_escaped(mark: str) -> None:
    line = formatted(f"a{mark}b")
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert json.loads(line.partition("msg=")[2]) == f"a{mark}b"


def test_other_texts_are_as_they_are() -> None:
    assert formatted("naïve name").endswith('msg="naïve name"')
    assert formatted("plain").endswith("msg=plain")


def test_an_exception_that_comes_again_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rare = RareLog(logging.getLogger("exporter.test"))
    for number in range(3):
        try:
            raise ValueError(f"fault {number}")
        except ValueError:
            rare.exception("internal", "it failed")
    [record] = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]) == "fault 0"
