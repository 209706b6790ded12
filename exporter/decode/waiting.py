"""Data sets that wait for their template, within bounds."""

from __future__ import annotations

from collections import OrderedDict, deque

from exporter import config
from exporter.decode.devices import Device, Stream, WaitingSet


class Waiting:
    """The sets of all devices that wait, ``size`` octets of memory together, more or less."""

    def __init__(self, settings: config.Decode) -> None:
        self._settings = settings
        self.size = 0
        #: Devices with sets that wait, those first that have some for longest.
        self._devices: OrderedDict[Device, None] = OrderedDict()

    def add(self, stream: Stream, number: int, waiting: WaitingSet) -> None:
        """Keep a data set until its template arrives; others make room.

        Of a device that has enough the oldest for the same template, else those that wait for
        longest: what never gets its template must not keep others from waiting.
        """
        device, settings = stream.device, self._settings
        size, key = waiting.size, (stream, number)
        if size > min(settings.max_waiting_bytes_per_device, settings.max_waiting_bytes):
            stream.waiting_dropped += 1
            return
        while device.waiting_bytes + size > settings.max_waiting_bytes_per_device:
            self._drop_oldest(device, key)
        while self.size + size > settings.max_waiting_bytes:
            self._drop_oldest(device if device.waiting else next(iter(self._devices)), key)
        device.waiting.setdefault(key, deque()).append(waiting)
        self._devices.setdefault(device)
        self._count(stream, 1, size)

    def take(self, stream: Stream, number: int) -> list[WaitingSet]:
        """The data sets that waited for a template."""
        waiting = stream.device.waiting.pop((stream, number), None)
        if waiting is None:
            return []
        taken = list(waiting)
        self._count(stream, -len(taken), -sum(waiting.size for waiting in taken))
        return taken

    def _drop_oldest(self, device: Device, key: tuple[Stream, int]) -> None:
        """Drop a set of a device that has some: of those by ``key``, if any."""
        if key not in device.waiting:
            key = next(iter(device.waiting))
        queue = device.waiting[key]
        size = queue.popleft().size
        if not queue:
            del device.waiting[key]
        key[0].waiting_dropped += 1
        self._count(key[0], -1, -size)

    def _count(self, stream: Stream, sets: int, size: int) -> None:
        device = stream.device
        stream.waiting_sets += sets
        device.waiting_bytes += size
        self.size += size
        if not device.waiting:
            self._devices.pop(device, None)
