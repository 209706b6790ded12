"""Connections of Cisco's firewalls (NSEL), whose octets must count once.

ASA and Firepower tell of a connection's octets in updates, each since the one before and the last
one when the connection ends, and then once more in total in the record of its end. Where updates
are not configured there is only that.

Source: Cisco Secure Firewall ASA NetFlow Implementation Guide, "Templates for Flow Update Events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.records import Records

if TYPE_CHECKING:
    from exporter.decode.flows import DataSets

#: Values of firewallEvent (IANA 233).
_END: Final = 2
_UPDATE: Final = 5

#: Connections that can be remembered at once, over all devices: 8 MiB.
_PLACES: Final = 1 << 20
#: Spreads streams over the places; the connections of one lie side by side, as they are numbered.
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
_COUNTERS: Final = ("bytes", "packets", "reverse_bytes", "reverse_packets")


class Connections:
    """Connections of all devices of which updates came.

    Each has one place; of those that share one the last is known, so memory is bounded and a
    connection that is updated every minute stays known.
    """

    def __init__(self) -> None:
        self._keys: NDArray[np.uint64] | None = None
        self._streams = 0

    def add_stream(self) -> int:
        """A number for a stream whose connections are told apart from all others."""
        self._streams += 1
        return self._streams & 0xFFFFFFFF

    def told_before(
        self, streams: NDArray[np.uint64], numbers: NDArray[np.uint64], events: NDArray[Any]
    ) -> NDArray[np.intp]:
        """Rows that are ends of connections whose octets updates told; they are forgotten then.

        Updates of the same rows count as well, wherever they stand.
        """
        keys = streams << np.uint64(32) | numbers & np.uint64(0xFFFFFFFF)
        places = (numbers + streams * _SPREAD) % np.uint64(_PLACES)
        updates = events == _UPDATE
        if self._keys is None:
            if not updates.any():
                return np.zeros(0, np.intp)
            self._keys = np.zeros(_PLACES, np.uint64)
        self._keys[places[updates]] = keys[updates]
        ends = np.flatnonzero(events == _END)
        told: NDArray[np.intp] = ends[self._keys[places[ends]] == keys[ends]]
        self._keys[places[told]] = 0
        return told

    def by_stream(self) -> dict[int, NDArray[np.uint32]]:
        """Numbers of the connections that updates told of, by the number of their stream."""
        if self._keys is None:
            return {}
        keys = np.sort(self._keys[self._keys != 0])
        streams, first = np.unique(keys >> np.uint64(32), return_index=True)
        numbers = np.split(keys.astype(np.uint32), first[1:])
        return dict(zip(streams.tolist(), numbers, strict=True)) if len(keys) else {}

    def remember(self, stream: int, numbers: NDArray[np.uint32]) -> None:
        """That updates told of these connections of a stream."""
        of_stream = np.full(len(numbers), stream, np.uint64)
        self.told_before(of_stream, numbers.astype(np.uint64), np.full(len(numbers), _UPDATE))


def count_once(columns: dict[str, Any], records: Records, sets: DataSets) -> None:
    """No counters at the end of connections that updates have told."""
    numbers = columns.pop("flow_id", None)
    events = columns.get("firewall_event")
    if numbers is None or events is None or "reverse_bytes" not in columns:
        return
    of_stream = np.array([stream.serial for stream in sets.streams], np.uint64)
    streams = records.spread(of_stream[sets.stream])
    told = sets.streams[0].connections.told_before(streams, numbers, events)
    for name in _COUNTERS:
        if len(told) and name in columns:
            columns[name][told] = 0
