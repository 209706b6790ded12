"""The past of a story as stored flows: fewer and larger records than live, the same traffic.

What a minute carries to an address is told by a handful of records instead of hundreds. Bits and
packets per minute and host, and the different addresses that a host hears from within five
minutes, are those that live sending would give; the number of records is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.address import pack_address
from exporter.batch import FlowBatch, concat
from exporter.schema import SamplingSource, Source
from exporter.simulate.devices import DEVICES, SimulatedDevice
from exporter.simulate.drawing import (
    FLOW_MEAN,
    FLOW_SPREAD,
    HISTORY,
    MINUTE_NOISE,
    day_noise,
    generator,
    rounded,
)
from exporter.simulate.encode.columns import of_ipv4
from exporter.simulate.records import Drawn, packet_sizes, records
from exporter.simulate.scenarios import Story
from exporter.simulate.site import OUR_AS
from exporter.simulate.streams import Floats, Stream

Integers = NDArray[np.int64]

_MINUTE: Final = 60_000
_DAY: Final = 86_400_000
#: What is drawn at once; chunks begin at multiples of it, so that any part of the past is the same
#: however much of it is written.
CHUNK: Final = 6 * 60 * _MINUTE
#: Every peer of an address comes within so many minutes, the window in which policies count them.
_ROUND_MINUTES: Final = 5
#: Up to so many addresses on our side hear from all of their peers in a round, in answers too.
_FEW: Final = 8
#: Volumes of single flows around their mean: nine that stand for the log-normal distribution.
_TYPICAL: Final = np.array(
    [math.exp(FLOW_MEAN + FLOW_SPREAD * NormalDist().inv_cdf((n + 0.5) / 9)) for n in range(9)]
)


@dataclass(frozen=True, slots=True)
class History:
    """The flows of ``story`` before now.

    ``origin`` is the moment (milliseconds since the epoch) that the story's windows count from.
    """

    story: Story
    origin: int
    seed: int = 1

    def chunks(self, begin: int, end: int) -> Iterator[tuple[int, FlowBatch]]:
        """The flows that end from ``begin`` up to ``end``, some hours at a time.

        Times are in milliseconds since the epoch. Each part comes with the time until which the
        past is then told. The columns are those of decoded flows, without any names.
        """
        for start in range(begin // CHUNK * CHUNK, end, CHUNK):
            flows = self._chunk(start)
            if start < begin or start + CHUNK > end:
                times = flows.array("time_received")
                flows = flows.take((times >= begin) & (times < end))
            yield min(start + CHUNK, end), flows

    def _chunk(self, start: int) -> FlowBatch:
        parts = []
        for stream in self.story.streams:
            rng = generator(self.seed, stream.name, HISTORY, start // CHUNK)
            drawn = self._draw(stream, start, rng)
            if drawn is not None:
                parts += [
                    _decoded(DEVICES[name], batch)
                    for name, batch in records(stream, drawn, rng).items()
                ]
        return concat(parts)

    def _draw(self, stream: Stream, start: int, rng: np.random.Generator) -> Drawn | None:
        minutes = start + np.arange(0, CHUNK, _MINUTE, dtype=np.int64)
        times = minutes + _MINUTE // 2
        levels = stream.levels(times, (times - self.origin) / 1000.0)
        if not levels.any():
            return None
        noise = np.exp(rng.normal(0, MINUTE_NOISE, len(minutes)))
        levels *= noise * day_noise(self.seed, stream, start // _DAY)

        pairs = _pairs(stream, minutes // _MINUTE)
        octets = stream.bits_per_second * levels * _MINUTE / 8000
        flows, packets_each = _as_live(stream, octets, levels)
        # As likely as live has a flow of the pair that is seen, over the minutes of a round.
        expected = (flows * _seen(packets_each))[pairs.minute] * pairs.share
        chance = -np.expm1(-expected)
        told = np.flatnonzero(rng.random(len(chance)) < chance)
        pairs, expected, chance = pairs.take(told), expected[told], chance[told]
        spread = np.sqrt(np.log1p(np.expm1(FLOW_SPREAD**2) / np.maximum(expected, 1.0)))
        around = np.exp(spread * rng.standard_normal(len(told)) - spread**2 / 2)
        volume = octets[pairs.minute] * pairs.share / chance * around
        sizes = packet_sizes(stream, rng, len(told))
        packets = rounded(volume / sizes / stream.sampling_rate, rng)
        kept = np.flatnonzero(packets)
        pairs, packets, sizes = pairs.take(kept), packets[kept], sizes[kept]
        began = minutes[pairs.minute]
        ends = began + (rng.random(len(kept)) * _MINUTE).astype(np.int64)
        durations = (rng.random(len(kept)) * (ends - began)).astype(np.int64)
        if stream.is_sampled_packets:
            durations[:] = 0
        return Drawn(pairs.sources, pairs.destinations, packets, sizes, ends, durations)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of hosts that a minute may tell a flow of, and their share of the minute's volume.

    ``minute`` counts from the first one; hosts are rows of the stream's pools.
    """

    minute: Integers
    sources: Integers
    destinations: Integers
    share: Floats

    def take(self, rows: Integers) -> _Pairs:
        """Those rows of all columns."""
        return _Pairs(
            self.minute[rows], self.sources[rows], self.destinations[rows], self.share[rows]
        )


def _pairs(stream: Stream, minutes: Integers) -> _Pairs:
    """The pairs of each of ``minutes``, numbers since the epoch.

    Each address on our side has a pair in every minute, with another peer each time.
    """
    ours_receive = bool(stream.destinations.asn[0] == OUR_AS)
    near, far = len(stream.sources), len(stream.destinations)
    if ours_receive:
        near, far = far, near
    asked = ours_receive and not stream.reply
    each = math.ceil(far / _ROUND_MINUTES) if asked or near <= _FEW else 1
    turns = math.ceil(far / each)
    minute, host, number = np.indices((len(minutes), near, each))
    peer: Integers = (minutes[minute] + host) % turns + number * turns
    present = peer < far
    share = np.broadcast_to(1.0 / near / present.sum(axis=2, keepdims=True), peer.shape)
    hosts, peers = host[present], peer[present]
    sources, destinations = (peers, hosts) if ours_receive else (hosts, peers)
    return _Pairs(minute[present], sources, destinations, share[present])


def _as_live(stream: Stream, octets: Floats, levels: Floats) -> tuple[Floats, Floats]:
    """How many flows live sending would have told in each minute, and packets seen of each."""
    packets = octets / stream.packet_size / stream.sampling_rate
    if stream.is_sampled_packets:
        return packets, np.ones(len(packets))
    flows = stream.flows_per_second * levels * _MINUTE / 1000
    return flows, packets / np.maximum(flows, 1e-9)


def _seen(packets: Floats) -> Floats:
    """The part of flows that sampling sees, by the packets that it sees of each on average."""
    seen: Floats = np.minimum(packets[:, None] * _TYPICAL, 1.0).mean(axis=1)
    return seen


def _decoded(device: SimulatedDevice, batch: FlowBatch) -> FlowBatch:
    """The records with what the collector adds when it decodes them."""
    count = len(batch)
    told = SamplingSource.OPTIONS if device.sampling_rate > 1 else SamplingSource.UNKNOWN
    if device.protocol in ("sflow5", "ebpf"):
        told = SamplingSource.RECORD
    batch.columns |= {
        "time_received": batch.array("time_flow_end"),
        "device_addr": np.tile(np.frombuffer(pack_address(device.address), np.uint8), (count, 1)),
        "observation_domain": np.full(count, device.observation_domain, np.uint32),
        "source": np.full(count, Source[device.protocol.upper()], np.int8),
        "sampling_rate": np.full(count, device.sampling_rate, np.uint32),
        "sampling_source": np.full(count, told, np.int8),
        "etype": np.where(of_ipv4(batch.array("src_addr")), 0x0800, 0x86DD).astype(np.uint16),
    }
    return batch
