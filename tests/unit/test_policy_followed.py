"""A key whose names change has not stopped."""

from __future__ import annotations

from typing import Any

from exporter.policies.keys import FollowedKeys, Row
from exporter.policies.model import Policy


def followed(**changes: Any) -> FollowedKeys:
    fields: dict[str, Any] = {
        "name": "p",
        "dimensions": ["dst_addr", "dst_host", "dst_service"],
        "measure": "bits_per_second",
        "bounds": {"below": {"static": 0}},
    }
    return FollowedKeys(Policy.model_validate(fields | changes))


def row(key: int, addr: str, host: str, service: str = "web", value: float = 9.0) -> Row:
    return Row(key, {"dst_addr": addr, "dst_host": host, "dst_service": service}, value)


def told(keys: FollowedKeys) -> dict[tuple[str, ...], float]:
    return {tuple(key.labels.values()): key.value for key in keys}


def test_a_host_that_is_named_does_not_read_0_without_its_name() -> None:
    for pin in ([], [{"dst_service": "web"}]):
        keys = followed(pin=pin)
        keys.update([row(1, "10.0.0.1", ""), row(2, "10.0.0.2", "db")], 60)
        keys.update([row(3, "10.0.0.1", "fl13"), row(2, "10.0.0.2", "db")], 120)
        assert told(keys) == {
            ("10.0.0.1", "fl13", "web"): 9.0, ("10.0.0.2", "db", "web"): 9.0,
        }  # fmt: skip


def test_what_stops_beside_another_service_or_host_reads_0() -> None:
    keys = followed()
    keys.update([row(1, "10.0.0.1", "fl13"), row(2, "10.0.0.1", "fl13", "ingest")], 60)
    keys.update([row(1, "10.0.0.1", "fl13"), row(3, "10.0.0.3", "fl13", "ingest")], 120)
    assert told(keys) == {
        ("10.0.0.1", "fl13", "web"): 9.0,
        ("10.0.0.1", "fl13", "ingest"): 0.0,
        ("10.0.0.3", "fl13", "ingest"): 9.0,
    }


def test_names_that_are_keys_by_themselves_stop() -> None:
    keys = followed(dimensions=["dst_host"])
    keys.update([Row(1, {"dst_host": "fl13"}, 9.0)], 60)
    keys.update([Row(2, {"dst_host": "fl14"}, 9.0)], 120)
    assert told(keys) == {("fl13",): 0.0, ("fl14",): 9.0}


def test_two_names_at_a_time_are_two_keys() -> None:
    keys = followed()
    keys.update([row(1, "10.0.0.1", "a"), row(2, "10.0.0.1", "b")], 60)
    assert len(keys) == 2


def test_one_silent_device_of_several_is_enough_to_say_nothing_of_a_dip() -> None:
    keys = followed()
    keys.update([row(1, "10.0.0.1", "a")._replace(devices=("sw1", "sw2"))], 60)
    assert keys.unobserved({"sw1", "sw2", "sw3"}) == []
    assert [key.labels["dst_addr"] for key in keys.unobserved({"sw1"})] == ["10.0.0.1"]
