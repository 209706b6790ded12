"""Weeks of normal traffic: the values of many keys, minute by minute, with a daily and a weekly
rhythm and noise. The same seed makes the same weeks.

Every key has a factor for each day (6 %), a slow growth (up to 3 % a week), and one of these
habits:

=========  ======================================================================================
steady     the same day and night, hardly varying
evening    lowest before dawn, highest in the evening; a little less on weekends
office     weekdays from eight to six with a dip at noon; next to nothing else
bursty     a mild rhythm, a quarter more or less for minutes, bursts of half as much again
lumpy      each minute by itself: long flows whose bytes are told when they end
batch      forty minutes each night, up to ten minutes earlier or later; nothing else
hourly     a job of ten minutes each hour, on a quiet ground
weekend    Saturdays and Sundays by day; next to nothing else
few        a handful of packets now and then
sources    a count: integers with an evening rhythm
=========  ======================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY = 1440
WEEK = 7 * DAY
HABITS = (
    "steady", "evening", "office", "bursty", "lumpy", "batch", "hourly", "weekend", "few",
    "sources",
)  # fmt: skip

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """``values[key, minute]`` from a Monday, 00:00 UTC, on; in multiples of each key's peak.

    ``usual`` is the same without noise: what the key's habit is at that minute.
    """

    habits: tuple[str, ...]
    values: Values
    usual: Values


def quiet_weeks(keys: int, weeks: int, seed: int) -> Traffic:
    """The traffic of ``keys``; habits take turns."""
    random = np.random.default_rng(seed)
    minutes = weeks * WEEK
    habits = tuple(HABITS[key % len(HABITS)] for key in range(keys))
    usual = np.stack([_usual(habit, minutes, random) for habit in habits])
    return Traffic(habits, np.stack([
        _noisy(habit, row, random) for habit, row in zip(habits, usual, strict=True)
    ]), usual)  # fmt: skip


def _usual(habit: str, minutes: int, random: np.random.Generator) -> Values:
    time = np.arange(minutes)
    hour = time % DAY / 60
    weekend = time // DAY % 7 >= 5
    shift = random.normal(0, 0.5)
    evening = 0.55 - 0.45 * np.cos((hour - 5 - shift) / 24 * 2 * np.pi)
    by_day = _plateau(hour, 8 + shift, 18 + shift)
    match habit:
        case "steady":
            return 0.9 + 0.05 * evening
        case "evening" | "lumpy" | "sources":
            return evening * np.where(weekend, 0.8, 1.0)
        case "office":
            lunch = 1 - 0.3 * _plateau(hour, 12 + shift, 13 + shift)
            return 0.03 + 0.97 * by_day * lunch * np.where(weekend, 0.04, 1.0)
        case "bursty":
            return 0.2 + 0.3 * evening
        case "weekend":
            return 0.02 + 0.98 * _plateau(hour, 10 + shift, 22 + shift) * weekend
        case "hourly":
            return np.where(time % 60 < 10, 0.5, 0.1)
        case "batch":
            return np.where((hour >= 2) & (hour < 2 + 40 / 60), 0.8, 0.0)
        case _:
            return np.full(minutes, 0.2)


def _plateau(hour: Values, first: float, last: float) -> Values:
    """From 0 to 1 within an hour around ``first``, and back around ``last``."""
    return np.clip(hour - first + 0.5, 0, 1) * np.clip(last + 0.5 - hour, 0, 1)


def _noisy(habit: str, usual: Values, random: np.random.Generator) -> Values:
    minutes = len(usual)
    days = np.exp(random.normal(0, 0.06, minutes // DAY + 1))
    growth = 1 + random.uniform(-0.005, 0.03) * np.arange(minutes) / WEEK
    # The factor of a day passes into the next one's within the night.
    level = usual * growth * np.interp(np.arange(minutes) / DAY, np.arange(len(days)), days)
    match habit:
        case "steady":
            return level * np.exp(_wander(minutes, 0.03, 20, random))
        case "bursty":
            bursts = np.ones(minutes)
            for begin in np.flatnonzero(random.random(minutes) < 1 / 180):
                bursts[begin : begin + random.integers(1, 5)] *= random.uniform(1.2, 1.7)
            return level * np.exp(_wander(minutes, 0.25, 10, random)) * bursts
        case "lumpy":
            return level * random.gamma(8, 1 / 8, minutes)
        case "batch":
            shifts = random.integers(-10, 11, minutes // DAY + 1)
            moved = np.arange(minutes) - shifts[np.arange(minutes) // DAY]
            level = level[np.clip(moved, 0, minutes - 1)]
            return level * np.exp(_wander(minutes, 0.1, 5, random))
        case "few":
            return random.poisson(0.3, minutes) * 0.1
        case "sources":
            return random.poisson(level * 60) / 60
        case _:
            return level * np.exp(_wander(minutes, 0.12, 10, random))


def _wander(minutes: int, spread: float, correlated: int, random: np.random.Generator) -> Values:
    """Noise of standard deviation ``spread`` that forgets itself within ``correlated`` minutes."""
    kernel = np.exp(-np.arange(5 * correlated) / correlated)
    kernel *= spread / np.sqrt((kernel**2).sum())
    white = random.normal(0, 1, minutes + len(kernel) - 1)
    return np.convolve(white, kernel, "valid")
