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


def test_a_key_expires_in_its_time_though_the_clock_was_set_back() -> None:
    keys = followed(expiry="10m")
    keys.update([row(1, "10.0.0.1", "fl13")], 7200)
    keys.update([], 60)  # two hours back
    assert told(keys) == {("10.0.0.1", "fl13", "web"): 0.0}
    keys.update([], 600)
    assert len(keys) == 1
    keys.update([], 660)
    assert len(keys) == 0


def flood(keys: FollowedKeys, minute: int, *, large: int) -> None:
    """A window in which ``large`` keys that were never there before are the largest."""
    new = [row(1000 * minute + n, f"10.1.{minute}.{n}", "", value=1e9) for n in range(large)]
    keys.update(new, 60 * minute)


def test_many_large_keys_for_a_while_do_not_hide_that_one_known_for_longer_has_stopped() -> None:
    keys = followed(top=4, max_keys=8)
    for minute in range(1, 11):
        keys.update([row(1, "10.0.0.1", "fl13")], 60 * minute)
    for minute in range(11, 31):
        flood(keys, minute, large=50)
        assert told(keys)["10.0.0.1", "fl13", "web"] == 0.0
    assert len(keys) == 8
    assert keys.evicted == 20 * 4 - 7


def test_what_is_among_the_largest_now_has_its_place_before_what_has_a_history() -> None:
    keys = followed(top=4, max_keys=8)
    for minute in range(1, 11):
        keys.update([row(n, f"10.0.0.{n}", "fl") for n in range(4)], 60 * minute)
        keys.update([row(n, f"10.0.0.{n}", "fl") for n in range(4, 8)], 60 * minute + 30)
    flood(keys, 11, large=4)
    current = [key for key in keys if key.value]
    assert len(current) == 4
    assert len(keys) == 8
    assert keys.evicted == 4


def test_a_pinned_key_is_evicted_for_nobody() -> None:
    keys = followed(top=4, max_keys=4, pin=[{"dst_addr": "10.0.0.1"}])
    keys.update([row(1, "10.0.0.1", "fl13", value=1.0)], 60)
    flood(keys, 2, large=50)
    assert told(keys)["10.0.0.1", "fl13", "web"] == 0.0
    assert len(keys) == 4
