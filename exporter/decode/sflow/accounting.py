"""Who sent sFlow datagrams, what was lost on the way, and what the agents say of their sampling."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from exporter.batch import Array, format_address
from exporter.decode.devices import OTHER, Device, Stream
from exporter.decode.sflow.samples import Samples
from exporter.decode.sflow.walk import Buffer, Headers, Index, addresses
from exporter.decode.state import MAX_TOLD, LimitError, State
from exporter.decode.values import fixed_bytes
from exporter.schema import Source

#: Data sources (interfaces that are sampled) whose pools are kept, over all agents together.
MAX_SOURCES: Final = 100_000
#: Devices that are not configured and yet are counted by themselves, those that have gone included.
_MAX_LABELS: Final = 2 * MAX_TOLD

_UNKNOWN: Final = (bytes(16), bytes(10) + b"\xff\xff" + bytes(4))
_RESTART_MILLISECONDS: Final = 5_000
_SOURCES_MILLISECONDS: Final = 1_000
_ROW_BITS: Final = 20


@dataclass(frozen=True, slots=True)
class Agent:
    """A sender of datagrams: its address (16 bytes), sub-agent, and what is kept of it.

    ``stream`` is None while there is no room for one more device.
    """

    address: bytes
    sub_agent: int
    stream: Stream | None

    @property
    def device(self) -> Device | None:
        """What is kept of the device."""
        return self.stream.device if self.stream is not None else None


@dataclass(slots=True)
class Agents:
    """The agents of a batch; ``of`` gives each datagram's by its place in ``agents``."""

    agents: list[Agent]
    of: Index

    def addresses(self) -> NDArray[np.uint8]:
        """Their addresses, ``(n, 16)``."""
        joined = b"".join(agent.address for agent in self.agents)
        return np.frombuffer(joined, np.uint8).reshape(-1, 16)

    def sub_agents(self) -> NDArray[np.uint32]:
        """Their sub-agents."""
        return np.array([agent.sub_agent for agent in self.agents], np.uint32)


class Accounting:
    """Counters of the sFlow decoder.

    ``samples`` counts by what was in them, ``pool_packets`` and ``dropped_samples`` by device: the
    packets that agents chose samples from, and the samples that they could not send.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._sources: dict[tuple[bytes, int, int], tuple[int, int]] = {}
        self._sources_seen = 0
        self.samples: Counter[str] = Counter()
        self.pool_packets: Counter[str] = Counter()
        self.dropped_samples: Counter[str] = Counter()

    def error(self, device: Device | None, reason: str, count: int = 1) -> None:
        """Count a fault in what a device sent."""
        (device or self._state.elsewhere).errors[reason] += count

    def sender(self, address: bytes, now: int) -> Device | None:
        """The device of a datagram that names no agent."""
        try:
            return self._state.device(address, now)
        except LimitError as error:
            self.error(None, str(error))
            return None

    def agents(
        self, buffer: Buffer, headers: Headers, senders: NDArray[np.uint8], times: Index
    ) -> Agents:
        """Who sent the datagrams (all of them valid), which are counted."""
        of, keys = fixed_bytes(_keys(buffer, headers))
        first = np.empty(len(keys), np.int64)
        first[of[::-1]] = np.arange(len(of))[::-1]
        sizes = (buffer.ends - buffer.starts) << 2
        packets = np.bincount(of, minlength=len(keys)).tolist()
        octets = np.bincount(of, sizes, len(keys)).tolist()
        agents = []
        for index, (key, row) in enumerate(zip(keys, first.tolist(), strict=True)):
            agent = self._agent(key, senders[row].tobytes(), int(times[row]))
            agents.append(agent)
            if agent.stream is not None:
                agent.stream.packets += packets[index]
                agent.stream.bytes += int(octets[index])
        return Agents(agents, of.astype(np.int64))

    def sequences(self, headers: Headers, agents: Agents, times: Index) -> None:
        """Look at the sequence numbers of datagrams that did not come before."""
        for index, agent in enumerate(agents.agents):
            if agent.stream is None:
                continue
            if len(agents.agents) == 1:
                rows: slice | Index = slice(None)
            else:
                rows = np.flatnonzero(agents.of == index)
                if not len(rows):
                    continue
            self._sequence(agent.stream, headers, rows, int(times[rows][-1]))

    def _agent(self, key: bytes, sender: bytes, now: int) -> Agent:
        address = key[:16]
        if address in _UNKNOWN:
            # The agent does not know its address.
            address = sender
        sub_agent = int.from_bytes(key[16:], sys.byteorder)
        try:
            stream = self._state.stream(address, Source.SFLOW5, sub_agent, now)
        except LimitError as error:
            self.error(None, str(error))
            return Agent(address, sub_agent, None)
        return Agent(address, sub_agent, stream)

    @staticmethod
    def _sequence(stream: Stream, headers: Headers, rows: slice | Index, now: int) -> None:
        numbers = headers.sequence[rows]
        state = stream.sequence
        boot = now - int(headers.uptime[rows][-1])
        restarted = stream.boot != 0 and boot - stream.boot > _RESTART_MILLISECONDS
        stream.boot = boot
        in_order = len(numbers) == 1 or bool((np.diff(numbers) == 1).all())
        if in_order and state.expected in (-1, int(numbers[0])):
            state.resume(int(numbers[-1]), 1)
        else:
            for number in numbers.tolist():
                ahead = (number - state.expected + (1 << 31)) % (1 << 32) - (1 << 31)
                if state.expected < 0 or ahead == 0:
                    state.resume(number, 1)
                elif ahead < 0 and restarted:
                    restarted = False
                    state.restarts += 1
                    state.settle(now, everything=True)
                    state.resume(number, 1)
                elif state.jump(number, state.expected, 1, now):
                    state.resume(number, 1)
        if state.waiting:
            state.settle(now)

    def sources(self, samples: Samples, agents: Agents, now: int) -> None:
        """Keep what the last sample of each data source tells of its pool and its drops.

        These are running totals: at high rates it is enough to look at one batch a second.
        """
        if 0 <= now - self._sources_seen < _SOURCES_MILLISECONDS:
            return
        self._sources_seen = now
        rows = np.flatnonzero(samples.counted)[-(1 << _ROW_BITS) :]
        if not len(rows):
            return
        # Sorting one packed number is several times cheaper than sorting by several keys.
        place = np.arange(len(rows), dtype=np.uint64)
        owner = agents.of[samples.datagram[rows]].astype(np.uint64)
        source = samples.source[rows].astype(np.uint64)
        packed = np.sort(owner << (32 + _ROW_BITS) | source << _ROW_BITS | place)
        group = packed >> _ROW_BITS
        begins = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
        sorted_rows = rows[(packed & ((1 << _ROW_BITS) - 1)).astype(np.int64)]
        # Rows are in the order of samples within their datagrams, not in that of datagrams.
        when = samples.datagram[sorted_rows] << 32 | sorted_rows
        last = np.maximum.reduceat(when, begins) & 0xFFFFFFFF
        for agent, pool, drops, number in zip(
            agents.of[samples.datagram[last]].tolist(),
            samples.pool[last].tolist(), samples.drops[last].tolist(),
            samples.source[last].tolist(), strict=True,
        ):  # fmt: skip
            self._source(agents.agents[agent], number, pool, drops)

    def _source(self, agent: Agent, number: int, pool: int, drops: int) -> None:
        device = agent.device
        if device is None:
            return
        key = (agent.address, agent.sub_agent, number)
        known = self._sources.get(key)
        if known is None:
            if len(self._sources) >= MAX_SOURCES:
                self._sources.clear()
        else:
            for total, now, before in (
                (self.pool_packets, pool, known[0]),
                (self.dropped_samples, drops, known[1]),
            ):
                # Counters of 32 bits that wrap; one that went back belongs to a restarted agent.
                increase = (now - before) % 2**32
                if increase < 2**31:
                    room = device.configured or device.label in total or len(total) < _MAX_LABELS
                    total[device.label if room else OTHER] += increase
        self._sources[key] = pool, drops

    def device_name(self, address: bytes) -> str:
        """The device's name by its address (16 bytes)."""
        device = self._state.devices.get(address)
        return device.name if device is not None else format_address(address)


def _keys(buffer: Buffer, headers: Headers) -> Array:
    """Address (16 bytes) and sub-agent of each datagram's agent, as opaque rows."""
    keys = np.empty(len(headers.address), [("address", "V16"), ("sub_agent", np.uint32)])
    keys["address"] = addresses(buffer, headers.address_type, headers.address).view("V16")[:, 0]
    keys["sub_agent"] = headers.sub_agent
    return keys.view(f"V{keys.dtype.itemsize}")


class SflowCollector(Collector):
    """``flow_exporter_sflow_*``; packets, records, loss and errors are with all other decoders'."""

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting

    def collect(self) -> Iterator[Metric]:
        """The metrics of all agents."""
        prefix = "flow_exporter_sflow_"
        samples = CounterMetricFamily(
            prefix + "samples",
            "sFlow samples by kind; those of kind no_packet and unknown give no flows.",
            labels=["kind"],
        )
        for kind, count in list(self._accounting.samples.items()):
            samples.add_metric([kind], count)
        yield samples
        for name, text, totals in (
            (
                "pool_packets",
                "Packets that could have been sampled, as the devices count them.",
                self._accounting.pool_packets,
            ),
            (
                "dropped_samples",
                "Samples that devices took but could not send for lack of resources.",
                self._accounting.dropped_samples,
            ),
        ):
            family = CounterMetricFamily(prefix + name, text, labels=["device"])
            for device, count in list(totals.items()):
                family.add_metric([device], count)
            yield family
