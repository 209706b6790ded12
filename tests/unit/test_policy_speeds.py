"""What is known of the speeds of interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.address import pack_address
from exporter.batch import format_address
from exporter.config import Device
from exporter.policies.speeds import SpeedKeeper, known_speeds

EDGE = pack_address("192.0.2.1")
OTHER = pack_address("192.0.2.2")


def test_the_configuration_says_more_than_devices_and_later_ones_more_than_earlier() -> None:
    device = Device.model_validate(
        {
            "address": "192.0.2.1",
            "name": "edge1",
            "interfaces": {1: {"name": "a", "speed": 5}, 2: "b"},
        }
    )
    told = [(EDGE, 1, 100), (EDGE, 2, 100), (EDGE, 2, 200), (EDGE, 3, 0), (OTHER, 1, 300)]
    assert known_speeds([device], told, format_address) == {
        ("edge1", 1): 5,
        ("edge1", 2): 200,
        ("192.0.2.2", 1): 300,
    }


class Inserted:
    def __init__(self) -> None:
        self.rows: list[Sequence[Any]] = []

    def insert(
        self, table: str, data: Sequence[Sequence[Any]], column_names: Sequence[str]
    ) -> None:
        self.rows += [row[:3] for row in data]


def test_only_speeds_that_changed_are_written() -> None:
    speeds = {("edge1", 1): 100, ("edge1", 2): 100}
    keeper, client = SpeedKeeper(lambda: speeds), Inserted()
    keeper.store(client)
    speeds["edge1", 2] = 200
    keeper.store(client)
    keeper.store(client)
    assert client.rows == [("edge1", 1, 100), ("edge1", 2, 100), ("edge1", 2, 200)]
