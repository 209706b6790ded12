"""Counting of what streams send: datagrams, clock skew, sequence numbers, restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.datagrams import Datagrams
from exporter.decode.devices import Stream
from exporter.decode.grouping import ByStream
from exporter.decode.records import Offsets

#: A device whose start moved by more than this, in milliseconds, was started again.
_BOOT_MOVED: Final = 30_000
#: A device that is up for longer, in milliseconds, was not just started.
_JUST_STARTED: Final = 600_000
_WRAP: Final = 1 << 32


def count_received(datagrams: Datagrams, groups: ByStream, streams: Sequence[Stream]) -> None:
    """Datagrams and octets per stream, and how far the device's clock is ahead of ours."""
    packets = (groups.last - groups.first + 1).tolist()
    length = groups.sort(datagrams.end - datagrams.start)
    octets = np.add.reduceat(length, groups.first).tolist()
    last = groups.order[groups.last]
    skew = (datagrams.exported[last] - datagrams.received[last]).tolist()
    for number, *values in zip(groups.numbers, packets, octets, skew, strict=True):
        owner = streams[number]
        owner.packets += values[0]
        owner.bytes += values[1]
        owner.device.clock_skew = values[2] / 1000


def restarted(datagrams: Datagrams, groups: ByStream, streams: Sequence[Stream]) -> list[Stream]:
    """Streams whose device started again: uptime and sequence number both begin anew.

    Templates from before are void then (RFC 3954, section 7). Cards of one device that share an
    observation domain, with starts and numbers of their own, must not look like that.
    """
    last = groups.order[groups.last]
    uptimes = datagrams.uptime[last]
    boots = (datagrams.exported[last] - uptimes).tolist()
    sequences = datagrams.sequence[last].tolist()
    found = []
    for number, now, uptime, sequence in zip(
        groups.numbers, boots, uptimes.tolist(), sequences, strict=True
    ):
        owner = streams[number]
        # An uptime that wraps moves the start ahead by 49.7 days.
        moved = (now - owner.boot) % _WRAP
        started = owner.boot and min(moved, _WRAP - moved) > _BOOT_MOVED
        if started and uptime < _JUST_STARTED and 0 <= sequence < owner.sequence.expected:
            found.append(owner)
        owner.boot = now
    return found


def check_sequences(
    datagrams: Datagrams, groups: ByStream, streams: Sequence[Stream], steps: Offsets,
    complete: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Compare sequence numbers with what is expected of each stream.

    ``steps`` is what each datagram adds to its stream's sequence number; where ``complete`` is
    false that is not known, and the next datagram is taken as it comes.
    """
    if not len(datagrams):
        return
    order, first = groups.order, groups.first
    sequence = groups.sort(datagrams.sequence)
    following = groups.sort(np.where(complete, (datagrams.sequence + steps) & 0xFFFFFFFF, -1))
    expected = np.empty_like(sequence)
    expected[1:] = following[:-1]
    expected[first] = [streams[number].sequence.expected for number in groups.numbers]
    odd = (expected >= 0) & (expected != sequence)
    some_odd = bool(odd.any())
    now = datagrams.received[order[groups.last]].tolist()
    after = following[groups.last].tolist()
    places = zip(first.tolist(), (groups.last + 1).tolist(), strict=True)
    for place, (number, (start, end)) in enumerate(zip(groups.numbers, places, strict=True)):
        state = streams[number].sequence
        if some_odd and odd[start:end].any():
            rows = order[start:end]
            for row in rows.tolist():
                at, step = int(datagrams.sequence[row]), int(steps[row])
                ahead = state.expected < 0 or at == state.expected
                if not ahead:
                    ahead = state.jump(at, state.expected, step, int(datagrams.received[row]))
                if ahead:
                    state.resume(at, step)
                    if not complete[row]:
                        state.expected = -1
        else:
            state.expected = after[place]
        if state.waiting:
            state.settle(now[place])
