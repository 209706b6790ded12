"""How the values of pinned keys are read."""

from __future__ import annotations

import pytest

from exporter.policies.pins import matches, value_text
from exporter.schema import BY_NAME


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("dst_addr", "10.0.0.1", "10.0.0.1"),
        ("dst_addr", "::ffff:10.0.0.1", "10.0.0.1"),
        ("dst_addr", "2001:DB8:0::1", "2001:db8::1"),
        ("in_if", 7, "7"),
        ("dst_port", "0443", "443"),
        ("src_mac", "00:00:5e:00:53:01", "00:00:5E:00:53:01"),
        ("direction", "ingress", "ingress"),
        ("dst_host", "fl13", "fl13"),
    ],
)
def test_a_value_is_written_as_metrics_show_it(column: str, value: str | int, text: str) -> None:
    assert value_text(BY_NAME[column], value) == text


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("dst_addr", "10.0.0.0/24"),
        ("dst_port", 65536),
        ("dst_port", "http"),
        ("proto", -1),
        ("src_mac", "5e:00"),
        ("direction", "sideways"),
    ],
)
def test_what_a_column_cannot_have_is_refused(column: str, value: str | int) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        value_text(BY_NAME[column], value)


def test_a_pin_means_every_key_that_has_its_values() -> None:
    key = {"dst_addr": "10.0.0.1", "dst_service": "ingest"}
    assert matches({"dst_service": "ingest"}, key)
    assert matches({"dst_service": "ingest", "dst_host": ""}, key)
    assert not matches({"dst_service": "ingest", "dst_host": "fl13"}, key)
