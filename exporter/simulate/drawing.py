"""Drawing the flows of streams, second by second: the same for the same seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import FlowBatch, concat
from exporter.simulate.records import Drawn, packet_sizes, records
from exporter.simulate.streams import Stream

_DAY: Final = 86_400_000
#: Kinds of things that are drawn, so that no two of them share their random numbers.
FLOWS, MINUTES, DAYS, HISTORY, TELEMETRY = range(5)
#: How much a stream's volume differs from minute to minute and from day to day (log-normal).
MINUTE_NOISE: Final = 0.08
DAY_NOISE: Final = 0.04
#: Log-normal volumes of single flows: spread, and the mean that makes them 1 on average.
FLOW_SPREAD: Final = 0.8
FLOW_MEAN: Final = -(FLOW_SPREAD**2) / 2


def generator(seed: int, name: str, kind: int, number: int) -> np.random.Generator:
    """Random numbers of one stream (its name) for one step; other streams do not change them."""
    return np.random.default_rng((seed, zlib.crc32(name.encode()), kind, number))


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
            if not s.is_sampled_packets and not s.only_in_windows
        )
        self._scale = flows_per_second / usual if flows_per_second else 1.0

    def flows(
        self, time: int, elapsed: float, *, rhythm_time: int | None = None, seconds: float = 1.0
    ) -> dict[str, FlowBatch]:
        """Flows that ended in the ``seconds`` from ``time`` on, by device.

        ``time`` is in milliseconds since the epoch, ``elapsed`` in seconds of the story, and
        ``rhythm_time`` the time whose rhythm applies where the story runs faster than the
        clock. The columns are those that devices report; bytes and packets are estimates.
        """
        rhythm_time = time if rhythm_time is None else rhythm_time
        parts: dict[str, list[FlowBatch]] = {}
        step = round(elapsed * 1000)
        for stream in self._streams:
            level = float(stream.levels(np.array([rhythm_time]), np.array([elapsed]))[0])
            if level <= 0:
                continue
            level *= self._noise(stream, step) * day_noise(self._seed, stream, rhythm_time // _DAY)
            rng = generator(self._seed, stream.name, FLOWS, step % (1 << 64))
            drawn = self._draw(stream, level, rng, time, seconds)
            for device, batch in records(stream, drawn, rng).items():
                parts.setdefault(device, []).append(batch)
        return {device: concat(batches) for device, batches in parts.items()}

    def _noise(self, stream: Stream, step: int) -> float:
        """Slow noise: a factor around 1 that goes from one minute's value to the next one's."""
        minute, rest = divmod(step, 60_000)
        here, there = (
            generator(self._seed, stream.name, MINUTES, (minute + k) % (1 << 64)).normal(
                0, MINUTE_NOISE
            )
            for k in (0, 1)
        )
        return math.exp(here + (there - here) * rest / 60_000)

    def _draw(
        self, stream: Stream, level: float, rng: np.random.Generator, time: int, seconds: float
    ) -> Drawn:
        octets = stream.bits_per_second * level * seconds / 8
        if stream.is_sampled_packets:
            count = int(rng.poisson(octets / stream.packet_size / stream.sampling_rate))
            sizes = packet_sizes(stream, rng, count)
            packets = np.ones(count, np.int64)
        else:
            expected = stream.flows_per_second * self._scale * level * seconds
            count = int(rng.poisson(expected))
            sizes = packet_sizes(stream, rng, count)
            mean = octets / expected if expected else 0.0
            volume = mean * rng.lognormal(FLOW_MEAN, FLOW_SPREAD, count)
            packets = rounded(volume / sizes / stream.sampling_rate, rng)
        seen = np.flatnonzero(packets > 0)
        count = len(seen)
        ends = time + (rng.random(count) * seconds * 1000).astype(np.int64)
        durations = np.minimum(rng.exponential(2_000.0, count), 30_000.0).astype(np.int64)
        if stream.is_sampled_packets:
            durations[:] = 0
        return Drawn(
            rng.integers(0, len(stream.sources), count),
            rng.integers(0, len(stream.destinations), count),
            packets[seen],
            sizes[seen],
            ends,
            durations,
        )


def day_noise(seed: int, stream: Stream, day: int) -> float:
    """A factor around 1 for a day (number since the epoch): no two days are alike."""
    return math.exp(float(generator(seed, stream.name, DAYS, day).normal(0, DAY_NOISE)))


def rounded(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers that are right on average."""
    return np.floor(values + rng.random(len(values))).astype(np.int64)
