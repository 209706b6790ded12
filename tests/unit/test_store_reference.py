"""The reference page of the store names what the code has."""

from __future__ import annotations

from pathlib import Path

from exporter.listening import Connections
from exporter.store.server.metrics import StoreMetrics
from exporter.store.server.settings import READER_SETTINGS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "store.md").read_text()


def test_every_metric_is_described() -> None:
    connections = Connections("flow_store", total=1, each=1)
    metrics = list(StoreMetrics(lambda: 0, lambda: "1", lambda: 0, connections).collect())
    assert len(metrics) == PAGE.count("| `flow_store_")
    for metric in metrics:
        name = metric.name + ("_total" if metric.type == "counter" else "")
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` "))
        assert f"| {metric.type} |" in row
        assert metric.documentation in row


def test_every_setting_of_the_reader_is_named() -> None:
    by_pattern = ("max_", "output_format_", "format_csv_", "date_time_output_")
    for name in READER_SETTINGS:
        named = f"`{name}`" in PAGE or name.startswith(by_pattern) or "overflow_mode" in name
        assert named, name
