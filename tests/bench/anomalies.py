"""Labelled anomalies in normal traffic, and how well alerts find them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.support.quiet_weeks import DAY
from tests.support.tracked import Key

#: Minutes after an anomaly's end in which an alert still belongs to it: values and rules look back.
AFTER = 20
#: A level that stays is an anomaly for a day; what alarms later is neither right nor wrong.
SHIFT_MINUTES = DAY

#: Kind, factor at its height, minutes.
SHAPES = (
    ("spike", 1.5, 30), ("spike", 2.0, 30), ("spike", 3.0, 30), ("spike", 6.0, 30),
    ("burst", 3.0, 5), ("burst", 6.0, 5),
    ("slow ramp", 2.0, 120), ("slow ramp", 4.0, 120),
    ("dip", 0.5, 40), ("dip", 0.3, 40), ("dip", 0.1, 40),
    ("outage", 0.0, 30),
    ("level shift", 0.4, 0), ("level shift", 2.5, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Anomaly:
    """``minutes`` from ``start`` on in which the key ``key`` (its place) is not as usual."""

    key: int
    kind: str
    factor: float
    start: int
    minutes: int

    @property
    def name(self) -> str:
        """Kind and size."""
        return self.kind if self.factor == 0 else f"{self.kind} x {self.factor:g}"

    @property
    def end(self) -> int:
        """The minute after the last that an alert may belong to it."""
        return self.start + self.minutes + AFTER


def insert(keys: list[Key], first: int, last: int, seed: int) -> list[Anomaly]:
    """Put anomalies into the keys' values from minute ``first`` to ``last``; what was put where.

    Each key above its policy's minimum gets one in every four days, of shapes in turn, at a minute
    at which it usually has a good part of its traffic. A level shift stays until ``last`` and is
    the key's last.
    """
    random = np.random.default_rng(seed)
    found = []
    turn = 0
    for place, key in enumerate(keys):
        if key.usual.max() < key.policy.minimum:
            continue
        shifts = random.random() < 0.4
        for day in range(first, last - 4 * DAY + 1, 4 * DAY):
            is_last = day + 8 * DAY > last
            shapes = [s for s in SHAPES if (s[0] == "level shift") == (is_last and shifts)]
            kind, factor, minutes = shapes[turn % len(shapes)]
            busy = key.usual[day + DAY : day + 3 * DAY]
            starts = np.flatnonzero(busy > 0.4 * key.usual.max())
            if not starts.size:
                continue
            turn += 1
            start = day + DAY + int(random.choice(starts))
            _change(key.values, kind, factor, start, minutes or last - start)
            found.append(Anomaly(place, kind, factor, start, minutes or SHIFT_MINUTES))
            if kind == "level shift":
                break
    return found


def _change(
    values: NDArray[np.float64], kind: str, factor: float, start: int, minutes: int
) -> None:
    height = np.full(minutes, factor)
    if kind == "slow ramp":
        height = np.linspace(1, factor, minutes)
    values[start : start + minutes] *= height


@dataclass(frozen=True)
class Score:
    """What one way of alerting found.

    ``delays`` in minutes, by anomaly, of those that it found. ``false_alerts`` and their minutes by
    key. ``minutes`` without an anomaly, of all keys.
    """

    anomalies: list[Anomaly]
    delays: dict[Anomaly, int]
    false_alerts: dict[int, int]
    false_minutes: dict[int, int]
    minutes: int

    @property
    def recall(self) -> float:
        """Of the anomalies, how many were found."""
        return len(self.delays) / len(self.anomalies)

    @property
    def precision(self) -> float:
        """Of the anomalies found and the alerts of nothing, how many were anomalies."""
        return len(self.delays) / max(len(self.delays) + sum(self.false_alerts.values()), 1)

    @property
    def delay(self) -> float:
        """The median of the delays."""
        return float(np.median([*map(float, self.delays.values())] or [np.nan]))

    def of(self, name: str = "", keys: Collection[int] | None = None) -> Score:
        """Of the anomalies of one name, or of some keys, only."""

        def chosen(key: int) -> bool:
            return keys is None or key in keys

        some = [a for a in self.anomalies if name in ("", a.name) and chosen(a.key)]
        return Score(
            some,
            {a: self.delays[a] for a in some if a in self.delays},
            {key: count for key, count in self.false_alerts.items() if chosen(key)},
            {key: count for key, count in self.false_minutes.items() if chosen(key)},
            self.minutes,
        )


def score(
    firing: dict[int, NDArray[np.bool_]], anomalies: Iterable[Anomaly], first: int, last: int,
    last_counted: dict[int, int],
) -> Score:  # fmt: skip
    """Compare the minutes from ``first`` on in which each key's alert fired with what is there.

    From ``last_counted`` of a key on nothing counts.
    """
    anomalies = list(anomalies)
    delays = {}
    false_alerts: dict[int, int] = {}
    false_minutes: dict[int, int] = {}
    counted = 0
    none = np.zeros(last - first, np.bool_)
    for key, end in last_counted.items():
        fired = firing.get(key, none).copy()
        own = [anomaly for anomaly in anomalies if anomaly.key == key]
        expected = np.zeros_like(fired)
        for anomaly in own:
            window = slice(anomaly.start - first, anomaly.end - first)
            expected[window] = True
            minutes = np.flatnonzero(fired[window])
            if minutes.size:
                delays[anomaly] = int(minutes[0])
        counted += int((~expected[: end - first]).sum())
        false = fired & ~expected
        false[end - first :] = False
        false_minutes[key] = int(false.sum())
        # An alert that goes on after its anomaly is late, not another one.
        begins = np.flatnonzero(np.diff(fired.astype(np.int8), prepend=0) == 1)
        ends = np.flatnonzero(np.diff(fired.astype(np.int8), append=0) == -1) + 1
        false_alerts[key] = sum(
            bool(begin < end - first and not expected[begin:stop].any())
            for begin, stop in zip(begins, ends, strict=True)
        )
    return Score(anomalies, delays, false_alerts, false_minutes, counted)
