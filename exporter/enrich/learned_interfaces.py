"""What devices told of their interfaces by SNMP."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LearnedInterface:
    """IF-MIB (RFC 2863): ifName, ifAlias, and ifHighSpeed as bits per second; 0: not told."""

    name: str
    alias: str = ""
    speed: int = 0


class LearnedInterfaces:
    """Interfaces by ifIndex, by address of the device. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: dict[bytes, Mapping[int, LearnedInterface]] = {}
        self._changes = 0

    @property
    def changes(self) -> int:
        """How often something changed."""
        return self._changes

    def of(self, device: bytes) -> Mapping[int, LearnedInterface]:
        """The interfaces of the device with this address."""
        return self._devices.get(device, {})

    def put(self, device: bytes, interfaces: Mapping[int, LearnedInterface]) -> None:
        """Take over all interfaces of a device."""
        with self._lock:
            if self._devices.get(device) != interfaces:
                self._devices[device] = interfaces
                self._changes += 1

    def keep_only(self, devices: set[bytes]) -> None:
        """Forget all other devices."""
        with self._lock:
            for gone in self._devices.keys() - devices:
                del self._devices[gone]
                self._changes += 1

    def snapshot(self) -> dict[bytes, Mapping[int, LearnedInterface]]:
        """All that is known now."""
        with self._lock:
            return dict(self._devices)
