"""Where the parts of many sFlow datagrams are, found in lockstep.

sFlow version 5 (sflow.org, "sFlow Version 5", July 2004) is XDR: everything is words of four
bytes, and every sample and record tells its length. The first samples of all datagrams are found
together, then the second ones, and so on; the same for the records of all samples. So the number
of numpy calls follows the longest datagram, not the number of samples.

All positions are indices into one array of words; every datagram's end is known, and nothing
is read beyond it (but into zeros that pad the array).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.decode.packet import PADDING

Words = NDArray[np.uint32]
Index = NDArray[np.int64]

VERSION: Final = 5

FLOW_SAMPLE: Final = 1
COUNTERS_SAMPLE: Final = 2
EXPANDED_FLOW_SAMPLE: Final = 3
EXPANDED_COUNTERS_SAMPLE: Final = 4
DISCARDED_PACKET: Final = 5

#: Bounds on the steps of a walk; real agents stay far below them.
MAX_SAMPLES: Final = 512
MAX_RECORDS: Final = 64

#: With fewer owners than this, going through their parts one by one is cheaper.
_FEW: Final = 16

_ADDRESS_WORDS: Final = np.array([0, 1, 4], np.int64)  # unknown, IPv4, IPv6


@dataclass(slots=True)
class Buffer:
    """Datagrams joined and padded: as bytes in wire order and as words in the machine's."""

    raw: bytes
    data: NDArray[np.uint8]
    words: Words
    starts: Index
    ends: Index

    @classmethod
    def join(cls, payloads: Sequence[bytes | memoryview]) -> Buffer:
        """Copies of ``payloads``, each moved to a multiple of four bytes.

        ``starts`` and ``ends`` are in words; a last incomplete word does not count.
        """
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        odd = lengths & 3
        if odd.any():
            payloads = [part[: len(part) & ~3] for part in payloads]
            lengths -= odd
        raw = b"".join([*payloads, bytes(PADDING)])
        data = np.frombuffer(raw, np.uint8)
        ends = np.cumsum(lengths >> 2)
        return cls(raw, data, data.view(">u4").astype(np.uint32), ends - (lengths >> 2), ends)


@dataclass(slots=True)
class Headers:
    """One row per datagram; ``valid`` where it is sFlow version 5 and has its whole header."""

    valid: NDArray[np.bool_]
    address_type: Words
    address: Index
    sub_agent: Words
    sequence: Words
    uptime: Words
    samples: Words
    body: Index

    def take(self, rows: Index) -> Headers:
        """Only these datagrams."""
        return Headers(*(getattr(self, field.name)[rows] for field in fields(self)))


def read_headers(buffer: Buffer) -> Headers:
    """The headers of all datagrams; those that are not valid have worthless values."""
    words, starts = buffer.words, buffer.starts
    room = buffer.ends - starts
    kind = words[starts + 1]
    valid = (room >= 6) & (words[starts] == VERSION) & (kind <= 2)
    after = starts + 2 + _ADDRESS_WORDS[np.where(valid, kind, 0)]
    valid &= after + 4 <= buffer.ends
    return Headers(
        valid, kind, starts + 2,
        words[after], words[after + 1], words[after + 2], words[after + 3], after + 4,
    )  # fmt: skip


@dataclass(slots=True)
class Parts:
    """Samples of datagrams, or records of samples, ``n`` of them in no particular order.

    ``owner`` is the row of the datagram or sample, ``kind`` its enterprise << 12 | format, and
    ``body`` to ``end`` its content. ``broken`` are owners that end within a part.
    """

    owner: Index
    kind: Words
    body: Index
    end: Index
    broken: Index


_Found = tuple[Index, Words, Index, Index]


def walk(words: Words, start: Index, end: Index, count: Words, most: int) -> Parts:
    """The ``count`` parts between ``start`` and ``end`` of each owner, at most ``most`` each.

    A part that claims to go beyond its owner's end, and all after it, are left out, and the owner
    is named in ``broken``; so are owners with more than ``most`` parts.
    """
    owner = np.flatnonzero(count)
    if len(owner) == len(count):
        position, limit, left = start, end, count.astype(np.int64)
    else:
        position, limit, left = start[owner], end[owner], count[owner].astype(np.int64)
    found: list[_Found] = []
    broken: list[Index] = []
    for done in range(most):
        if len(owner) < _FEW:
            if len(owner):
                parts, owner = _walk_few(words, owner, position, limit, left, most - done)
                found.append(parts)
            break
        body = position + 2
        kind = words[position]
        after = body + ((words[position + 1].astype(np.int64) + 3) >> 2)
        fits = after <= limit
        if not fits.all():
            broken.append(owner[~fits])
            owner, kind, body = owner[fits], kind[fits], body[fits]
            after, limit, left = after[fits], limit[fits], left[fits]
        found.append((owner, kind, body, after))
        left = left - 1
        more = left > 0
        if more.all():
            position = after
        else:
            owner, position, limit, left = owner[more], after[more], limit[more], left[more]
    broken.append(owner)
    if not found:
        none = np.zeros(0, np.int64)
        return Parts(none, np.zeros(0, np.uint32), none, none, np.concatenate(broken))
    if len(found) == 1:
        return Parts(*found[0], np.concatenate(broken))
    owners, kinds, bodies, ends = zip(*found, strict=True)
    return Parts(
        np.concatenate(owners), np.concatenate(kinds), np.concatenate(bodies),
        np.concatenate(ends), np.concatenate(broken),
    )  # fmt: skip


def _walk_few(
    words: Words, owner: Index, position: Index, limit: Index, left: Index, most: int
) -> tuple[_Found, Index]:
    """The remaining parts of a few owners, and which of these are broken."""
    found: list[tuple[int, int, int, int]] = []
    broken = []
    rows = zip(owner.tolist(), position.tolist(), limit.tolist(), left.tolist(), strict=True)
    for row, begin, end, count in rows:
        for _ in range(min(count, most)):
            after = begin + 2 + (int(words[begin + 1]) + 3 >> 2)
            if after > end:
                broken.append(row)
                break
            found.append((row, int(words[begin]), begin + 2, after))
            begin = after
        else:
            if count > most:
                broken.append(row)
    table = np.array(found, np.int64).reshape(-1, 4)
    parts = table[:, 0], table[:, 1].astype(np.uint32), table[:, 2], table[:, 3]
    return parts, np.array(broken, np.int64)
