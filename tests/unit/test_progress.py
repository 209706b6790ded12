"""Progress without a terminal: lines for a log."""

from __future__ import annotations

import re

import pytest

from exporter.progress import progress


def test_a_line_comes_with_each_tenth_and_says_how_long_it_takes_yet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("days", 40) as advance:
        for _ in range(40):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert [int(re.findall(r"(\d+) %", line)[0]) for line in lines] == list(range(10, 101, 10))
    assert re.fullmatch(r"days: 10 %, about \d+ s left", lines[0])
    assert lines[-1] == "days: 100 %"
