"""Interface counters that devices send in sFlow counter samples, for Prometheus."""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from exporter.batch import format_address

GENERIC_COUNTERS: Final = 1
PORT_NAME: Final = 1005

#: Interfaces kept of all configured devices together; each has ten series.
MAX_INTERFACES: Final = 20_000
#: And of all others, whose addresses anybody can forge.
MAX_OF_OTHERS: Final = 2_000
#: An interface that has not been heard of for this long is no longer exposed.
EXPIRE_MILLISECONDS: Final = 900_000

#: if_counters: ifIndex, type, speed, direction, status, then for input: octets, unicast,
#: multicast, broadcast packets, discards, errors, unknown protocols; for output: octets, unicast,
#: multicast, broadcast packets, discards, errors; promiscuous mode.
_GENERIC: Final = struct.Struct("!IIQIIQIIIIIIQIIIIII")

#: Agents send all ones for what they do not count.
UNKNOWN: Final = (2**32 - 1, 2**64 - 1)

_COUNTERS: Final = (
    ("in_bytes", "Bytes received by the interface.", (5,)),
    ("in_packets", "Packets received by the interface.", (6, 7, 8)),
    ("in_discards", "Received packets that the device discarded.", (9,)),
    ("in_errors", "Received packets with errors.", (10,)),
    ("out_bytes", "Bytes sent by the interface.", (12,)),
    ("out_packets", "Packets sent by the interface.", (13, 14, 15)),
    ("out_discards", "Packets to send that the device discarded.", (16,)),
    ("out_errors", "Packets that could not be sent for errors.", (17,)),
)


@dataclass(slots=True)
class _Interface:
    values: tuple[int, ...]
    name: str
    time: int


_Known = OrderedDict[tuple[bytes, int], _Interface]


class InterfaceCounters:
    """The last counters of each interface by agent address and ifIndex, bounded."""

    def __init__(self) -> None:
        self._configured: _Known = OrderedDict()
        self._others: _Known = OrderedDict()

    def __len__(self) -> int:
        return len(self._configured) + len(self._others)

    def update(
        self, agent: bytes, body: bytes, name: str, now: int, *, configured: bool = True
    ) -> str | None:
        """Keep a generic counters record of ``agent`` (16 bytes); ``now`` in milliseconds.

        ``configured``: whether the configuration names the device. Returns why not, if so: it is
        too short, or there are too many interfaces and none of them has been silent for long.
        """
        if len(body) < _GENERIC.size:
            return "short_record"
        values = _GENERIC.unpack_from(body)
        key = (agent, values[0])
        kept, other, limit = self._others, self._configured, MAX_OF_OTHERS
        if configured:
            kept, other, limit = self._configured, self._others, MAX_INTERFACES
        other.pop(key, None)  # of a device that was configured meanwhile, or is no more
        known = kept.get(key)
        if known is not None:
            kept.move_to_end(key)
            known.values, known.time = values, now
            known.name = name or known.name
            return None
        if len(kept) >= limit:
            if now - next(iter(kept.values())).time <= EXPIRE_MILLISECONDS:
                return "too_many_interfaces"
            kept.popitem(last=False)
        kept[key] = _Interface(values, name, now)
        return None

    def recent(self, now: int) -> list[tuple[bytes, int, str, tuple[int, ...]]]:
        """Agent, ifIndex, name and values of the interfaces heard of lately."""
        others = [item for item in list(self._others.items()) if item[0] not in self._configured]
        return [
            (agent, index, found.name, found.values)
            for (agent, index), found in (*list(self._configured.items()), *others)
            if now - found.time <= EXPIRE_MILLISECONDS
        ]


class InterfaceCollector(Collector):
    """``flow_sflow_interface_*{device,if_index,if_name}``: what devices count themselves."""

    def __init__(
        self, counters: InterfaceCounters, device_name: Callable[[bytes], str] | None = None
    ) -> None:
        self._counters = counters
        self._device_name = device_name or format_address

    def collect(self) -> Iterator[Metric]:
        """The metrics of all interfaces heard of lately."""
        labels = ["device", "if_index", "if_name"]
        prefix = "flow_sflow_interface_"
        families = [
            (CounterMetricFamily(prefix + name, text, labels=labels), fields)
            for name, text, fields in _COUNTERS
        ]
        speed = GaugeMetricFamily(
            prefix + "speed_bits_per_second", "Speed of the interface.", labels=labels
        )
        up = GaugeMetricFamily(
            prefix + "up", "1 while the interface is operationally up.", labels=labels
        )
        for agent, index, name, values in self._counters.recent(time.time_ns() // 1_000_000):
            label = [self._device_name(agent), str(index), name]
            for family, fields in families:
                known = [values[i] for i in fields if values[i] not in UNKNOWN]
                if known:
                    family.add_metric(label, sum(known))
            if values[2] not in UNKNOWN:
                speed.add_metric(label, values[2])
            up.add_metric(label, values[4] >> 1 & 1)
        yield from (family for family, _ in families)
        yield speed
        yield up
