"""Streams: who sends how much to whom through which device, drawn as flows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, FlowBatch, concat
from exporter.schema import Direction
from exporter.simulate.site import DEVICES, SERVICES, Pool, packed

_PROTOCOLS: Final = {"tcp": 6, "udp": 17}
_TCP_FLAGS: Final = 0x1B  # FIN, SYN, PSH, ACK: a connection from begin to end
_FORWARDED: Final = 64
_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How a level changes over day and week, 1 at its highest.

    ``night`` is the level at the lowest hour, ``weekend`` multiplies Saturday and Sunday, and
    ``peak_hour`` (UTC) is when it is highest.
    """

    night: float = 0.45
    weekend: float = 0.6
    peak_hour: float = 19.0

    def level(self, time: int) -> float:
        """The level at ``time``, milliseconds since the epoch."""
        hour = time % (24 * _HOUR) / _HOUR
        wave = 0.5 + 0.5 * math.cos((hour - self.peak_hour) / 24 * 2 * math.pi)
        level = self.night + (1 - self.night) * wave
        if datetime.fromtimestamp(time / 1000, UTC).weekday() >= 5:
            level *= self.weekend
        return level


#: The same at every hour.
STEADY: Final = Rhythm(night=1.0, weekend=1.0)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a scenario during which a stream's volume is multiplied.

    ``start`` and ``end`` are seconds from the scenario's begin.
    """

    start: float
    end: float = math.inf
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Stream:
    """Traffic of one kind in one direction.

    ``bits_per_second`` is the volume at the rhythm's highest level; ``flows_per_second`` says in
    how many flows it is reported, for devices that report flows (an sFlow switch reports one per
    sampled packet). ``reply`` says that the service's port is the sender's.
    ``only_in_windows`` says that there is nothing outside of the windows.
    """

    name: str
    device: str
    sources: Pool
    destinations: Pool
    service: str
    bits_per_second: float
    flows_per_second: float = 5.0
    packet_size: int = 700
    reply: bool = False
    inbound: bool = True
    nat_address: str = ""
    rhythm: Rhythm = Rhythm()
    windows: tuple[Window, ...] = ()
    only_in_windows: bool = False

    def level(self, time: int, elapsed: float) -> float:
        """The share of ``bits_per_second`` at ``time``, ``elapsed`` seconds into the scenario."""
        level = 0.0 if self.only_in_windows else 1.0
        for window in self.windows:
            if window.start <= elapsed < window.end:
                level = window.factor
        return level * self.rhythm.level(time)


class Traffic:
    """Flows of a set of streams, the same for the same seed, streams and steps.

    Args:
        streams: what is sent.
        seed: for everything that is drawn.
        flows_per_second: all devices' flow records together at the highest level, sFlow apart;
            the volume does not depend on it. 0: as the streams say.
    """

    def __init__(
        self, streams: Sequence[Stream], *, seed: int, flows_per_second: float = 0.0
    ) -> None:
        self._streams = list(streams)
        self._seed = seed
        usual = sum(
            s.flows_per_second
            for s in streams
            if DEVICES[s.device].protocol != "sflow5" and not s.only_in_windows
        )
        self._scale = flows_per_second / usual if flows_per_second else 1.0

    def flows(
        self, time: int, elapsed: float, *, rhythm_time: int | None = None, seconds: float = 1.0
    ) -> dict[str, FlowBatch]:
        """Flows that ended in the ``seconds`` from ``time`` on, by device.

        ``time`` is in milliseconds since the epoch, ``elapsed`` in seconds of the scenario, and
        ``rhythm_time`` the time whose rhythm applies where the scenario runs faster than the
        clock. The columns are those that devices report; bytes and packets are estimates.
        """
        rhythm_time = time if rhythm_time is None else rhythm_time
        parts: dict[str, list[FlowBatch]] = {}
        step = round(elapsed * 1000)
        for number, stream in enumerate(self._streams):
            level = stream.level(rhythm_time, elapsed) * self._noise(number, step)
            if level <= 0:
                continue
            rng = np.random.default_rng((self._seed, number, step))
            batch = self._draw(stream, level, rng, time, seconds)
            if len(batch):
                parts.setdefault(stream.device, []).append(batch)
        return {device: concat(batches) for device, batches in parts.items()}

    def _noise(self, stream: int, step: int) -> float:
        """Slow noise: a factor around 1 that goes from one minute's value to the next one's."""
        minute, rest = divmod(step, 60_000)
        here, there = (
            np.random.default_rng((self._seed, stream, minute + k, 7)).normal(0, 0.08)
            for k in (0, 1)
        )
        return math.exp(here + (there - here) * rest / 60_000)

    def _draw(
        self, stream: Stream, level: float, rng: np.random.Generator, time: int, seconds: float
    ) -> FlowBatch:
        device = DEVICES[stream.device]
        rate = device.sampling_rate
        octets = stream.bits_per_second * level * seconds / 8
        if device.protocol == "sflow5":
            count = int(rng.poisson(octets / stream.packet_size / rate))
            sizes = _packet_sizes(stream, rng, count)
            packets = np.ones(count, np.int64)
        else:
            expected = stream.flows_per_second * self._scale * level * seconds
            count = int(rng.poisson(expected))
            sizes = _packet_sizes(stream, rng, count)
            # Log-normal with the mean that gives the stream its volume.
            mean = octets / expected if expected else 0.0
            volume = mean * rng.lognormal(-0.32, 0.8, count)
            exact = volume / sizes / rate
            packets = np.floor(exact + rng.random(count)).astype(np.int64)
        seen = np.flatnonzero(packets > 0)
        return _batch(stream, rng, packets[seen], sizes[seen], rate, time, seconds)


def _packet_sizes(stream: Stream, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    spread = stream.packet_size / 8
    sizes = rng.normal(stream.packet_size, spread, count)
    return np.clip(sizes, 78, 1500).astype(np.int64)


def _batch(
    stream: Stream,
    rng: np.random.Generator,
    packets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rate: int,
    time: int,
    seconds: float,
) -> FlowBatch:
    count = len(packets)
    transport, port = SERVICES[stream.service]
    proto = _PROTOCOLS[transport]
    service_port = np.full(count, port, np.uint16)
    other_port = rng.integers(32768, 61000, count).astype(np.uint16)
    src = rng.integers(0, len(stream.sources), count)
    dst = rng.integers(0, len(stream.destinations), count)
    end = time + (rng.random(count) * seconds * 1000).astype(np.int64)
    duration = np.minimum(rng.exponential(2_000.0, count), 30_000.0).astype(np.int64)
    sfl = DEVICES[stream.device].protocol == "sflow5"
    inside, outside = 2, 1
    in_if = stream.sources.port[src] if sfl else _full(count, outside if stream.inbound else inside)
    out_if = (
        stream.destinations.port[dst]
        if sfl
        else _full(count, inside if stream.inbound else outside)
    )
    src_addr = stream.sources.addresses[src]
    columns: dict[str, Array] = {
        "time_flow_start": end if sfl else end - duration,
        "time_flow_end": end,
        "bytes": (packets * sizes * rate).astype(np.uint64),
        "packets": (packets * rate).astype(np.uint64),
        "src_addr": src_addr,
        "dst_addr": stream.destinations.addresses[dst],
        "proto": np.full(count, proto, np.uint8),
        "src_port": service_port if stream.reply else other_port,
        "dst_port": other_port if stream.reply else service_port,
        "tcp_flags": np.full(count, _TCP_FLAGS if proto == 6 else 0, np.uint16),
        "in_if": in_if,
        "out_if": out_if,
        "src_as": stream.sources.asn[src],
        "dst_as": stream.destinations.asn[dst],
        "src_prefix_len": stream.sources.prefix_len[src],
        "dst_prefix_len": stream.destinations.prefix_len[dst],
        "src_mac": _macs(src_addr),
        "dst_mac": _macs(stream.destinations.addresses[dst]),
        "direction": np.full(count, Direction.INGRESS, np.int8),
        "forwarding_status": np.full(count, _FORWARDED, np.uint8),
    }
    if stream.nat_address:
        side = "dst" if stream.inbound else "src"
        address = np.frombuffer(packed(stream.nat_address), np.uint8)
        columns[f"nat_{side}_addr"] = np.tile(address, (count, 1))
        columns[f"nat_{side}_port"] = rng.integers(1024, 65536, count).astype(np.uint16)
    return FlowBatch(count, dict(columns))


def _full(count: int, value: int) -> NDArray[np.uint32]:
    return np.full(count, value, np.uint32)


def _macs(addresses: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Locally administered MAC addresses that repeat the last four octets of the address."""
    low = np.ascontiguousarray(addresses[:, 12:]).view(">u4").astype(np.uint64)
    return low.reshape(-1) | np.uint64(0x02_00 << 32)
