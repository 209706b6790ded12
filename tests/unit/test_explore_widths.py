"""What `flow-exporter explore` prints on terminals of several widths."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from exporter.cli.output import show_table
from exporter.explore.ask import Asked, Key
from exporter.explore.show import AnswerTable

SHORT, LONG = "10.20.30.40", "2001:db8:20:30:40:50:60:7000"
NAMES = ("aggregation-04.example.net", "two words")
NUMBERS = ["47.44M", "123.4M", "999.9M", "12.35k", "170.8G"]
EARLIER = ["23.72M", "+100%"]

#: Lines of a table below its title, on a terminal of so many columns.
Printed = Callable[[AnswerTable, int], list[str]]


def answer(*addresses: str, compare: str = "none") -> AnswerTable:
    keys = [
        Key(
            key=[address], name=name, average=47.44e6, p95=123.4e6, maximum=999.9e6, last=12_350,
            total=170.8e9, earlier=23.72e6, change=1.0, values=[float(n) for n in range(60)],
        )
        for address, name in zip(addresses, NAMES, strict=False)
    ]  # fmt: skip
    return AnswerTable(Asked(0, 3600, compare=compare), keys)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Printed:
    def lines(table: AnswerTable, columns: int) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))
        show_table(table)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
        below = next(at for at, line in enumerate(shown) if "average" in line or "a week" in line)
        return shown[below:]

    return lines


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("compare", ["none", "week"])
def test_numbers_are_whole_and_no_line_is_longer_than_the_terminals(
    printed: Printed, columns: int, compare: str
) -> None:
    lines = printed(answer(SHORT, LONG, compare=compare), columns)
    assert max(map(len, lines)) <= columns
    numbers = NUMBERS if compare == "none" else NUMBERS + EARLIER
    rows = [line.split() for line in lines]
    whole = [row for row in rows if [word for word in row if word in numbers] == numbers]
    assert len(whole) == 2
    assert "…" not in "".join(lines)


def test_sparklines_have_the_room_that_keys_and_numbers_leave(printed: Printed) -> None:
    def bars(columns: int) -> tuple[int, str]:
        header, row, *others = printed(answer(SHORT), columns)
        assert row.split()[:2] == [SHORT, NAMES[0]]
        assert not others
        return len(re.sub("[^▁-█]", "", row)), header.split("total")[1].strip()

    assert bars(200) == (30, "over time")
    assert bars(100) == (16, "over time")
    assert bars(93) == (9, "over time")
    assert bars(92) == (0, ""), "so few would say nothing"
    assert bars(80) == (0, "")


def test_names_are_folded_before_keys(printed: Printed) -> None:
    lines = printed(answer(SHORT, LONG), 80)
    assert [line.split()[0] for line in lines[1::2]] == [SHORT, LONG]
    assert lines[1].split()[1] + lines[2].strip() == NAMES[0]


def test_folded_keys_have_all_their_characters(printed: Printed) -> None:
    lines = printed(answer(SHORT, LONG, compare="week"), 60)
    assert "".join(line[:4].strip() for line in lines) == f"src_addr{SHORT}{LONG}"


def test_a_terminal_that_is_too_narrow_breaks_lines_itself(printed: Printed) -> None:
    _, row, *_ = printed(answer(SHORT), 30)
    assert row.split()[-5:] == NUMBERS
