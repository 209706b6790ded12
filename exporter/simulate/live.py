"""Telling a story live, second by second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from exporter.simulate.drawing import Traffic
from exporter.simulate.senders import Sender, Target, Totals, open_senders

#: How long devices have been up when sending begins.
_UPTIME: Final = 3 * 86_400_000
_COUNTER_SECONDS: Final = 20
#: A sender that is this far behind (the machine slept) leaves out what it missed.
_LAG_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Second:
    """A second that has just passed.

    ``start`` is its begin in milliseconds since the epoch, ``elapsed`` in seconds since the story's
    origin, and ``rhythm_time`` the time (milliseconds since the epoch) whose rhythm applies.
    """

    start: int
    elapsed: float
    rhythm_time: int


class Teller(Protocol):
    """Something that tells a part of the story each second."""

    def tell(self, second: Second) -> None:
        """Send what happened in that second."""


def seconds(
    origin: int, *, speed: float, duration: float | None, stop: threading.Event
) -> Iterator[Second]:
    """The seconds from now on, each as it has passed, for ``duration`` or until ``stop`` is set.

    ``origin`` is what the story counts from (milliseconds since the epoch); ``speed`` is how much
    faster than the clock the story's own time and the daily rhythm pass from now on.
    """
    begin = int(time.time())
    number = 0
    while duration is None or number < duration:
        if stop.wait(max(0.0, begin + number + 1 - time.time())):
            return
        behind = int(time.time()) - begin - number
        if behind > _LAG_SECONDS:
            number += behind
        story_time = int((begin + number * speed) * 1000)
        yield Second((begin + number) * 1000, (story_time - origin) / 1000, story_time)
        number += 1


class FlowTeller:
    """Sends each second the flows that ended in it, stamped with the real time."""

    def __init__(self, traffic: Traffic, senders: dict[str, Sender]) -> None:
        self._traffic = traffic
        self._senders = senders
        self._told = 0

    def tell(self, second: Second) -> None:
        """Raises OSError when the collector's machine cannot be sent to."""
        now = second.start + 1000
        flows = self._traffic.flows(
            second.start, second.elapsed, rhythm_time=second.rhythm_time, seconds=1.0
        )
        for name, batch in flows.items():
            if name in self._senders:
                self._senders[name].send(batch, now)
        if self._told % _COUNTER_SECONDS == 0:
            for sender in self._senders.values():
                sender.send_counters(now)
        self._told += 1


def tell_live(
    traffic: Traffic,
    target: Target,
    agents_target: Target | None,
    passing: Iterator[Second],
    others: Sequence[Teller] = (),
) -> dict[str, Totals]:
    """Send flows, and what ``others`` tell, for each second that passes; what each device sent.

    Raises:
        OSError: the target cannot be sent to.
    """
    boot = int(time.time()) * 1000 - _UPTIME
    with open_senders(target, agents_target, boot=boot) as senders:
        tellers = [FlowTeller(traffic, senders), *others]
        for second in passing:
            for teller in tellers:
                teller.tell(second)
        return {name: sender.totals for name, sender in senders.items()}
