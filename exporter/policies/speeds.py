"""Speeds of interfaces, as table ``interface_speeds`` tells them to queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from exporter.address import pack_address
from exporter.config import Device
from exporter.store.session import Client

#: Bits per second by name of the device and ifIndex.
Speeds = Mapping[tuple[str, int], int]

_COLUMNS: Final = ("device", "interface", "speed", "stored_at")


def known_speeds(
    devices: Iterable[Device],
    told: Iterable[tuple[bytes, int, int]],
    name_of: Callable[[bytes], str],
) -> dict[tuple[str, int], int]:
    """What is ``told`` (address of the device, ifIndex, bits per second; 0: not known), the later
    the better, unless the configuration says otherwise."""
    given = list(devices)
    names = {pack_address(device.address): device.name or device.address for device in given}
    speeds = {
        (names.get(address) or name_of(address), index): speed
        for address, index, speed in told
        if speed
    }
    for device in given:
        for index, interface in device.interfaces.items():
            if interface.speed:
                speeds[device.name or device.address, index] = interface.speed
    return speeds


class SpeedKeeper:
    """Brings the speeds that ``speeds`` tells to ClickHouse, as far as they have changed."""

    def __init__(
        self, speeds: Callable[[], Speeds], clock: Callable[[], float] = time.time
    ) -> None:
        self._speeds = speeds
        self._clock = clock
        self._stored: dict[tuple[str, int], int] = {}

    def store(self, client: Client) -> None:
        """Write what is not there yet.

        Raises:
            clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
        """
        now = datetime.fromtimestamp(int(self._clock()), UTC)
        speeds = dict(self._speeds())
        rows = [
            (*key, speed, now) for key, speed in speeds.items() if self._stored.get(key) != speed
        ]
        if rows:
            client.insert("interface_speeds", rows, column_names=_COLUMNS)
        self._stored = speeds
