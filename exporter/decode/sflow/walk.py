"""Where the parts of many sFlow datagrams are, found in lockstep.

sFlow version 5 (sflow.org, "sFlow Version 5", July 2004) is XDR: everything is words of four
bytes, and every sample and record tells its length. The first samples of all datagrams are found
together, then the second ones, and so on; the same for the records of all samples. So the number
of numpy calls follows the longest datagram, not the number of samples.

All positions are indices into one array of words; every datagram's end is known, and nothing
that lies beyond it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array
from exporter.decode import values
from exporter.decode.gather import rows_at
from exporter.receive.datagrams import DatagramBatch

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
#: Addresses as :func:`exporter.decode.values.addresses` takes them.
IPV4_ADDRESS: Final = np.dtype("u4")
IPV6_ADDRESS: Final = np.dtype("V16")


@dataclass(slots=True)
class Buffer:
    """Datagrams in one buffer: ``data`` as bytes, ``words`` as big-endian numbers.

    Swapping all words would cost more than swapping those that are read.
    ``starts`` and ``ends`` of the datagrams are in words; a last incomplete word does not count.
    """

    data: NDArray[np.uint8]
    words: Words
    starts: Index
    ends: Index

    @classmethod
    def of(cls, batch: DatagramBatch) -> Buffer:
        """Of a batch, whose datagrams all begin at a multiple of four bytes."""
        data = batch.buffer
        starts = batch.starts >> 2
        words = data[: len(data) & ~3].view(">u4")
        return cls(data, words, starts, starts + (batch.lengths >> 2))

    def rows(self, position: Index, layout: np.dtype[Any]) -> Array:
        """A structure of ``layout`` (in bytes of the wire) at each ``position`` (in words)."""
        return rows_at(self.data, position << 2, layout)

    def content(self, start: int, end: int) -> bytes:
        """The bytes between two words."""
        return self.data[start << 2 : end << 2].tobytes()


def addresses(buffer: Buffer, kinds: Words, position: Index) -> NDArray[np.uint8]:
    """Addresses of type 1 (IPv4) or 2 (IPv6) at ``position``, ``(n, 16)``; others are zero."""
    found = np.zeros((len(position), 16), np.uint8)
    for kind, layout in ((1, IPV4_ADDRESS), (2, IPV6_ADDRESS)):
        chosen = kinds == kind
        if chosen.all():
            return values.addresses(buffer.rows(position, layout))
        if chosen.any():
            found[chosen] = values.addresses(buffer.rows(position[chosen], layout))
    return found


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
    kind = words[starts + 1].astype(np.uint32)
    valid = (room >= 6) & (words[starts] == VERSION) & (kind <= 2)
    after = starts + 2 + _ADDRESS_WORDS[np.where(valid, kind, 0)]
    valid &= after + 4 <= buffer.ends
    sub_agent, sequence, uptime, samples = (
        words[after + place].astype(np.uint32) for place in range(4)
    )
    return Headers(valid, kind, starts + 2, sub_agent, sequence, uptime, samples, after + 4)


#: Parts found together: their owners, kinds, and where their contents begin and end.
_Found = tuple[Index, Words, Index, Index]


@dataclass(slots=True)
class Parts:
    """Samples of datagrams, or records of samples.

    Each has an owner (the row of the datagram or sample), a kind (its enterprise << 12 | format)
    and content. ``broken`` are owners that end within a part.
    """

    found: list[_Found]
    broken: Index

    def __len__(self) -> int:
        return sum(len(owner) for owner, _, _, _ in self.found)

    def by_kind(self, wanted: Iterable[int]) -> dict[int, tuple[Index, Index, Index]]:
        """Owners, beginnings and ends of the parts of each kind that there is of those ``wanted``.

        An owner's parts of one kind stay in their order.
        """
        pieces: dict[int, list[tuple[Index, Index, Index]]] = {kind: [] for kind in wanted}
        for owner, kinds, body, end in self.found:
            first = int(kinds[0])
            # Agents are regular: most often the n-th parts are all of one kind.
            if (kinds == first).all():
                if first in pieces:
                    pieces[first].append((owner, body, end))
                continue
            left = len(kinds)
            for kind, some in pieces.items():
                rows = np.flatnonzero(kinds == kind)
                if len(rows):
                    some.append((owner[rows], body[rows], end[rows]))
                    left -= len(rows)
                    if not left:
                        break
        return {kind: _joined(some) for kind, some in pieces.items() if some}


def _joined(pieces: list[tuple[Index, Index, Index]]) -> tuple[Index, Index, Index]:
    if len(pieces) == 1:
        return pieces[0]
    owner, body, end = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return owner, body, end


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
                if len(parts[0]):
                    found.append(parts)
            break
        body = position + 2
        kind = words[position].astype(np.uint32)
        after = body + ((words[position + 1].astype(np.int64) + 3) >> 2)
        fits = after <= limit
        if not fits.all():
            broken.append(owner[~fits])
            owner, kind, body = owner[fits], kind[fits], body[fits]
            after, limit, left = after[fits], limit[fits], left[fits]
            if not len(owner):
                break
        found.append((owner, kind, body, after))
        left = left - 1
        more = left > 0
        if more.all():
            position = after
        else:
            owner, position, limit, left = owner[more], after[more], limit[more], left[more]
    broken.append(owner)
    return Parts(found, np.concatenate(broken))


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
