"""The reference pages say what the program says: every metric, setting, command and option."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import Counter
from exporter.metrics.counters import TrafficCounters
from tests.support.reference import DOCS, filled, marks, pages, tables

_REMAKE = "run `python -m tests.support.reference`"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return tables()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_page_is_up_to_date(page: Path, made: dict[str, str]) -> None:
    text = page.read_text()
    assert marks(text) <= made.keys(), f"{page.name} has a place for what is no more"
    assert text == filled(text, made), f"{page.name} is out of date: {_REMAKE}"


def test_every_metric_setting_and_command_is_on_a_page(made: dict[str, str]) -> None:
    placed = {name for page in pages() for name in marks(page.read_text())}
    missing = made.keys() - placed
    assert not missing, f"add a place for {sorted(missing)} in docs/reference, then {_REMAKE}"


def test_traffic_counters_are_described_as_they_describe_themselves() -> None:
    page = (DOCS / "metrics.md").read_text()
    for family in TrafficCounters([Counter(name="x", labels=["proto"])]).describe():
        if family.name.startswith("flow_x_"):
            measure = family.name.removeprefix("flow_x_")
            text = family.documentation.removesuffix(", by proto.")
            assert f"| `flow_<name>_{measure}_total` | {text} |" in page
