"""The heads of sFlow samples as columns, whichever form they have."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.sflow.walk import (
    DISCARDED_PACKET,
    EXPANDED_FLOW_SAMPLE,
    FLOW_SAMPLE,
    Index,
    Parts,
    Words,
)

#: What an interface number means, by its upper two bits (or by itself in expanded samples).
_SINGLE: Final = 0
_DISCARDED: Final = 1

_FORMAT_BITS: Final = np.uint32(30)
_VALUE_MASK: Final = np.uint32(0x3FFFFFFF)
_CLASS_BITS: Final = np.uint32(24)
#: Stands for "no interface": the packet begins or ends in the device itself.
_NO_INTERFACE: Final = (0x3FFFFFFF, 0xFFFFFFFF)

# Reasons of discarding (sflow.org, sflow_drops.txt): below 256 they are codes of ICMP Destination
# Unreachable. Given as forwardingStatus (RFC 7270, section 4.12).
_DROPPED: Final = 128
_ACL_DENIED: Final = 129
_ACL_DROPPED: Final = 130
_UNROUTABLE: Final = 131
_ADJACENCY: Final = 132
_CANNOT_FRAGMENT: Final = 133
_BAD_CHECKSUM: Final = 134
_BAD_LENGTH: Final = 135
_BAD_TTL: Final = 137
_POLICED: Final = 138
_RANDOM_EARLY: Final = 139
_REVERSE_PATH: Final = 140
_HARDWARE: Final = 143


def _statuses() -> NDArray[np.uint8]:
    table = np.full(512, _DROPPED, np.uint8)
    # No route, also for a network, host, protocol or port; multicast as a source.
    table[[0, 1, 2, 3, 5, 6, 7, 11, 12, 263, 281]] = _UNROUTABLE
    table[[9, 10, 13]] = _ACL_DENIED
    table[[258, 269, 292, 306]] = _ACL_DROPPED  # lists, and routes into a black hole
    table[[8, 279]] = _ADJACENCY
    table[4] = _CANNOT_FRAGMENT
    table[[275, 329]] = _BAD_CHECKSUM
    table[262] = _BAD_LENGTH
    table[257] = _BAD_TTL
    table[261] = _POLICED
    table[260] = _RANDOM_EARLY
    table[[280, 302, 335]] = _REVERSE_PATH
    table[259] = _HARDWARE  # no buffer left
    return table


_STATUS_OF_REASON: Final = _statuses()


@dataclass(slots=True)
class Samples:
    """Packet samples, one row each; ``short`` datagrams had one without its whole head.

    ``datagram`` is the row of the datagram; ``status`` is a forwardingStatus, 0 unless dropped;
    ``counted`` is false for packets that other samples stand for already; ``records`` to ``end``
    are words.
    """

    datagram: Index
    source: Words
    rate: Words
    pool: Words
    drops: Words
    in_if: Words
    out_if: Words
    status: NDArray[np.uint8]
    counted: NDArray[np.bool_]
    records: Index
    end: Index
    count: Words
    short: Index


def read_samples(words: Words, parts: Parts) -> Samples:
    """Flow samples, expanded flow samples and discarded packets among ``parts``."""
    forms = (
        (FLOW_SAMPLE, 8, _flow_sample),
        (EXPANDED_FLOW_SAMPLE, 11, _expanded_flow_sample),
        (DISCARDED_PACKET, 8, _discarded_packet),
    )
    found = []
    present = parts.by_kind(kind for kind, _, _ in forms)
    for kind, size, read in forms:
        if kind not in present:
            continue
        owner, body, end = present[kind]
        whole = body + size <= end
        short = owner[~whole]
        if len(short):
            owner, body, end = owner[whole], body[whole], end[whole]
        row = np.dtype(f"V{4 * size}")
        view = np.ndarray((len(words) - size + 1,), row, words, strides=(4,))
        head = view[body].view(">u4").astype(np.uint32).reshape(-1, size)
        found.append(read(head, owner, body + size, end, short))
    if not found:
        return _flow_sample(np.zeros((0, 8), np.uint32), *[np.zeros(0, np.int64)] * 4)
    if len(found) == 1:
        return found[0]
    return Samples(*(np.concatenate([getattr(s, f.name) for s in found]) for f in fields(Samples)))


def _flow_sample(head: Words, owner: Index, records: Index, end: Index, short: Index) -> Samples:
    # sequence, source, rate, pool, drops, input, output, number of records
    inward, outward = head[:, 5], head[:, 6]
    return Samples(
        owner, head[:, 1], head[:, 2], head[:, 3], head[:, 4],
        _interface(*_split(inward)), _interface(*_split(outward)), _status(*_split(outward)),
        np.ones(len(owner), bool), records, end, head[:, 7], short,
    )  # fmt: skip


def _expanded_flow_sample(
    head: Words, owner: Index, records: Index, end: Index, short: Index
) -> Samples:
    # sequence, source class, source index, rate, pool, drops, input format and value, output
    # format and value, number of records
    return Samples(
        owner, _source(head[:, 1], head[:, 2]), head[:, 3], head[:, 4], head[:, 5],
        _interface(head[:, 6], head[:, 7]), _interface(head[:, 8], head[:, 9]),
        _status(head[:, 8], head[:, 9]),
        np.ones(len(owner), bool), records, end, head[:, 10], short,
    )  # fmt: skip


def _discarded_packet(
    head: Words, owner: Index, records: Index, end: Index, short: Index
) -> Samples:
    # sequence, source class, source index, drops, input, output, reason, number of records
    one = np.ones(len(owner), np.uint32)
    none = np.zeros(len(owner), np.uint32)
    return Samples(
        owner, _source(head[:, 1], head[:, 2]), one, none, none,
        _interface(none, head[:, 4]), _interface(none, head[:, 5]),
        _status(one, head[:, 6]),
        np.zeros(len(owner), bool), records, end, head[:, 7], short,
    )  # fmt: skip


def _split(interface: Words) -> tuple[Words, Words]:
    """Format and value of an interface in one word."""
    return interface >> _FORMAT_BITS, interface & _VALUE_MASK


def _source(kind: Words, index: Words) -> Words:
    """A data source in one word, as samples that are not expanded have it."""
    return kind << _CLASS_BITS ^ index


def _interface(form: Words, value: Words) -> Words:
    """The ifIndex, or 0 where there is none, several, or an unknown one."""
    none, unknown = _NO_INTERFACE
    return np.where((form == _SINGLE) & (value != none) & (value != unknown), value, np.uint32(0))


def _status(form: Words, reason: Words) -> NDArray[np.uint8]:
    discarded = form == _DISCARDED
    if not discarded.any():
        return np.zeros(len(form), np.uint8)
    return np.where(discarded, _STATUS_OF_REASON[np.minimum(reason, 511)], np.uint8(0))
