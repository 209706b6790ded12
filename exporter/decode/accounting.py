"""Counting of what streams send: datagrams, clock skew, sequence numbers, restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.datagrams import Datagrams
from exporter.decode.records import Offsets
from exporter.decode.state import Stream

#: A device whose start moved by more than this, in milliseconds, was started again.
_BOOT_MOVED: Final = 30_000
#: A device that is up for longer, in milliseconds, was not just started.
_JUST_STARTED: Final = 600_000
_WRAP: Final = 1 << 32


def count_received(
    datagrams: Datagrams, stream: NDArray[np.intp], streams: Sequence[Stream]
) -> None:
    """Datagrams and octets per stream, and how far the device's clock is ahead of ours."""
    packets = np.bincount(stream, minlength=len(streams)).tolist()
    octets = np.bincount(stream, datagrams.end - datagrams.start, len(streams)).tolist()
    skew = np.zeros(len(streams), np.int64)
    skew[stream] = datagrams.exported - datagrams.received  # the last one of each stream stays
    for number, owner in enumerate(streams):
        owner.packets += packets[number]
        owner.bytes += int(octets[number])
        owner.device.clock_skew = skew[number] / 1000


def restarted(
    datagrams: Datagrams, stream: NDArray[np.intp], streams: Sequence[Stream]
) -> list[Stream]:
    """Streams whose device started again: uptime and sequence number both begin anew.

    Templates from before are void then (RFC 3954, section 7). Cards of one device that share an
    observation domain, with starts and numbers of their own, must not look like that.
    """
    boot = datagrams.exported - datagrams.uptime
    latest = np.zeros(len(streams), np.int64)
    latest[stream] = boot
    uptime = np.zeros(len(streams), np.int64)
    uptime[stream] = datagrams.uptime
    sequence = np.zeros(len(streams), np.int64)
    sequence[stream] = datagrams.sequence
    found = []
    for number, owner in enumerate(streams):
        now = int(latest[number])
        # An uptime that wraps moves the start ahead by 49.7 days.
        moved = (now - owner.boot) % _WRAP
        started = owner.boot and min(moved, _WRAP - moved) > _BOOT_MOVED
        if (
            started
            and uptime[number] < _JUST_STARTED
            and 0 <= sequence[number] < owner.sequence.expected
        ):
            found.append(owner)
        owner.boot = now
    return found


def check_sequences(
    datagrams: Datagrams, stream: NDArray[np.intp], streams: Sequence[Stream], steps: Offsets,
    complete: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Compare sequence numbers with what is expected of each stream.

    ``steps`` is what each datagram adds to its stream's sequence number; where ``complete`` is
    false that is not known, and the next datagram is taken as it comes.
    """
    if not len(datagrams):
        return
    order = np.argsort(stream, kind="stable")
    of = stream[order]
    sequence = datagrams.sequence[order]
    following = np.where(complete, (datagrams.sequence + steps) & 0xFFFFFFFF, -1)[order]
    first = np.ones(len(of), np.bool_)
    first[1:] = of[1:] != of[:-1]
    begin = np.flatnonzero(first)
    expected = np.empty_like(sequence)
    expected[1:] = following[:-1]
    expected[first] = [streams[number].sequence.expected for number in of[begin].tolist()]
    odd = (expected >= 0) & (expected != sequence)
    odd_streams = set(of[odd].tolist()) if odd.any() else set()
    ends = np.append(begin[1:], len(of)).tolist()
    for start, end in zip(begin.tolist(), ends, strict=True):
        number = int(of[start])
        state = streams[number].sequence
        now = int(datagrams.received[order[end - 1]])
        if number in odd_streams:
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
            state.expected = int(following[end - 1])
        if state.waiting:
            state.settle(now)
