"""Streams: who sends how much to whom, who reports it, and how that changes over time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.simulate.devices import DEVICES
from exporter.simulate.pools import Pool

Floats = NDArray[np.floating[Any]]

#: In place of a device: only agents on hosts report it, who do so whatever a stream's device is.
AGENTS: Final = "agents"

_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR
_THURSDAY: Final = 3  # the weekday of 1970-01-01, Monday being 0
_SATURDAY: Final = 5


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How a level changes over day and week, 1 at its highest.

    ``night`` is the level at the lowest hour, ``weekend`` multiplies Saturday and Sunday, and
    ``peak_hour`` (UTC) is when it is highest.
    """

    night: float = 0.45
    weekend: float = 0.6
    peak_hour: float = 19.0

    def levels(self, times: NDArray[np.int64]) -> Floats:
        """The levels at ``times``, milliseconds since the epoch."""
        hour = times % _DAY / _HOUR
        wave = 0.5 + 0.5 * np.cos((hour - self.peak_hour) / 24 * 2 * math.pi)
        weekday = (times // _DAY + _THURSDAY) % 7
        of_day: Floats = np.where(weekday >= _SATURDAY, self.weekend, 1.0)
        return (self.night + (1 - self.night) * wave) * of_day


#: The same at every hour.
STEADY: Final = Rhythm(night=1.0, weekend=1.0)
#: When people are at work.
OFFICE_HOURS: Final = Rhythm(night=0.05, weekend=0.15, peak_hour=13.0)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a story during which something is multiplied by ``factor``.

    ``start`` and ``end`` are seconds from the story's begin.
    """

    start: float
    end: float = math.inf
    factor: float = 1.0


def shifted(windows: tuple[Window, ...], seconds: float) -> tuple[Window, ...]:
    """The same, that much later."""
    return tuple(Window(w.start + seconds, w.end + seconds, w.factor) for w in windows)


def factors(windows: tuple[Window, ...], elapsed: Floats, outside: float) -> Floats:
    """The factor at each of ``elapsed`` (seconds): the last window's that covers it."""
    found = np.full(len(elapsed), outside)
    for window in windows:
        found[(elapsed >= window.start) & (elapsed < window.end)] = window.factor
    return found


@dataclass(frozen=True, slots=True)
class Stream:
    """Traffic of one kind in one direction.

    ``device`` is who reports it, :data:`AGENTS` or a name. ``bits_per_second`` is the volume at the
    rhythm's highest level; ``flows_per_second`` says in how many flows it is reported, for devices
    that report flows (an sFlow switch reports one per sampled packet). ``reply`` says that the
    service's port is the sender's. ``only_in_windows`` says that there is nothing outside of the
    windows. ``nat_address`` is what the outside sees in place of our address.
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

    @property
    def sampling_rate(self) -> int:
        """1 in N packets are seen by who reports the stream."""
        return 1 if self.device == AGENTS else DEVICES[self.device].sampling_rate

    @property
    def is_sampled_packets(self) -> bool:
        """Whether each record is one sampled packet (sFlow)."""
        return self.device != AGENTS and DEVICES[self.device].protocol == "sflow5"

    def levels(self, times: NDArray[np.int64], elapsed: Floats) -> Floats:
        """The shares of ``bits_per_second`` at ``times`` (milliseconds since the epoch).

        ``elapsed`` are the same moments in seconds since the story's begin.
        """
        outside = 0.0 if self.only_in_windows else 1.0
        return factors(self.windows, elapsed, outside) * self.rhythm.levels(times)
