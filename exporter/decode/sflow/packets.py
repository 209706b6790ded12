"""The packets of sFlow samples as columns that records fill, and what reading records needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode import values
from exporter.decode.sflow.walk import IPV4_ADDRESS, IPV6_ADDRESS, Buffer, Index, Words, addresses
from exporter.decode.slices import sliced_bytes

#: Words and layout of an address by its type: unknown, IPv4, IPv6.
_ADDRESS_LAYOUTS: Final = ((0, np.dtype("V0")), (1, IPV4_ADDRESS), (4, IPV6_ADDRESS))

#: Octets of a text that are looked at: as many as a character has at most, for each that is kept.
_MOST_OCTETS: Final = 4 * values.MAX_TEXT

#: Rows of samples; all of them as a slice.
Rows = slice | Index


@dataclass(slots=True)
class Packets:
    """The packets of ``length`` samples.

    ``size`` are their bytes as the device counts them, ``raw`` says which samples have a packet's
    header, ``seen`` which have that or a description of the packet, ``counted`` which tell of a
    packet and not of what an application did, ``bad`` which had a record that was too short for
    its kind. ``observed`` is when the devices saw them, in milliseconds since the epoch, 0 where
    they do not tell; None where no device does.
    """

    length: int
    columns: dict[str, Array | DictColumn]
    size: Words
    raw: NDArray[np.bool_]
    seen: NDArray[np.bool_] = field(init=False)
    counted: NDArray[np.bool_] = field(init=False)
    bad: NDArray[np.bool_] = field(init=False)
    observed: Index | None = None

    def __post_init__(self) -> None:
        self.seen = self.raw.copy()
        self.counted = np.ones(self.length, bool)
        self.bad = np.zeros(self.length, bool)

    def put(self, name: str, rows: Rows, found: Array) -> None:
        """Set a column in some rows; the rest keeps what it has, or zero."""
        if isinstance(rows, slice):
            self.columns[name] = found
            return
        column = self.columns.get(name)
        if column is None:
            shape = (self.length, *found.shape[1:])
            column = self.columns[name] = np.zeros(shape, found.dtype)
        assert not isinstance(column, DictColumn)
        column[rows] = found

    def put_missing(self, name: str, rows: Rows, found: Array) -> None:
        """Set a column in those of some rows where it is zero, or no address, so far."""
        known = self.columns.get(name)
        if known is None:
            self.put(name, rows, found)
            return
        told = np.asarray(known)[rows]
        lacking = values.no_address(told) if told.ndim == 2 else np.asarray(told == 0)
        if lacking.any():
            self.put(name, chosen_rows(rows, lacking), found[lacking])

    def put_dictionary(self, name: str, rows: Rows, found: DictColumn, empty: object) -> None:
        """Set a column of repeated values in those of some rows where it is ``empty`` so far."""
        known = self.columns.get(name)
        if known is None:
            known = DictColumn.constant(empty, self.length)
        assert isinstance(known, DictColumn)
        index = {value: code for code, value in enumerate(known.values)}
        mapping = [index.setdefault(value, len(index)) for value in found.values]
        lacking = known.codes[rows] == index.get(empty, len(index))
        codes = known.codes.copy()
        codes[rows] = np.where(
            lacking, np.array(mapping, np.uint32)[found.codes], known.codes[rows]
        )
        self.columns[name] = DictColumn(codes, list(index))

    def put_text(self, name: str, rows: Rows, buffer: Buffer, text: tuple[Index, Index]) -> None:
        """Set a column of text in some rows, by where its octets begin and end."""
        begin, end = text
        end = np.minimum(end, begin + _MOST_OCTETS)
        ((codes, found),) = sliced_bytes(buffer.data.data, [(begin, end)])
        self.put_dictionary(name, rows, values.texts(codes, values.clean_texts(found)), "")


def put_ends(
    packets: Packets, buffer: Buffer, rows: Index, at: Index, *, address_words: int, etype: int
) -> None:
    """The ends that records describe from ``at`` on: protocol, source, destination, their ports."""
    words = buffer.words
    packets.put("etype", rows, np.full(len(rows), etype, np.uint16))
    packets.put("proto", rows, words[at].astype(np.uint8))
    kinds = np.full(len(rows), 1 if address_words == 1 else 2, np.uint32)
    packets.put("src_addr", rows, addresses(buffer, kinds, at + 1))
    packets.put("dst_addr", rows, addresses(buffer, kinds, at + 1 + address_words))
    ports = at + 1 + 2 * address_words
    packets.put("src_port", rows, words[ports].astype(np.uint16))
    packets.put("dst_port", rows, words[ports + 1].astype(np.uint16))


def all_rows(owner: Index, length: int) -> Rows:
    """Rows as a slice where they are all of ``length``, in order, as nearly always."""
    if len(owner) == length and bool((owner == np.arange(length)).all()):
        return slice(None)
    return owner


def chosen_rows(rows: Rows, chosen: NDArray[np.bool_]) -> Index:
    """Those of ``rows`` that are chosen."""
    return np.flatnonzero(chosen) if isinstance(rows, slice) else rows[chosen]


@dataclass(slots=True)
class Addressed:
    """Records that begin with an address of the same type.

    ``rest`` are words that follow the address, big-endian, and ``after`` is where they begin.
    """

    rows: Rows
    end: Index
    address: NDArray[np.uint8]
    rest: Array
    after: Index


def addressed(
    packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index, rest: int
) -> Iterator[Addressed]:
    """Records that begin with an address and have ``rest`` words after it, by address type."""
    kinds = buffer.words[body].astype(np.uint32)
    left = len(kinds)
    for kind, (size, layout) in enumerate(_ADDRESS_LAYOUTS):
        chosen = kinds == kind
        count = int(np.count_nonzero(chosen))
        if not count:
            continue
        left -= count
        some, start, stop = rows, body, end
        if count < len(kinds):
            some, start, stop = chosen_rows(rows, chosen), body[chosen], end[chosen]
        whole = start + (1 + size + rest) <= stop
        if not whole.all():
            packets.bad[chosen_rows(some, ~whole)] = True
            some, start, stop = chosen_rows(some, whole), start[whole], stop[whole]
        fields = [("kind", ">u4"), ("address", layout), ("rest", ">u4", (rest,))]
        head = buffer.rows(start, np.dtype(fields))
        address = values.addresses(head["address"]) if size else np.zeros((len(head), 16), np.uint8)
        yield Addressed(some, stop, address, head["rest"], start + (1 + size))
    if left:
        packets.bad[chosen_rows(rows, kinds >= len(_ADDRESS_LAYOUTS))] = True


@dataclass(slots=True)
class Strings:
    """Records of which the next thing is a number of strings.

    ``texts`` has, per string, where its octets begin and end in the buffer; ``after`` is the word
    behind the last one.
    """

    rows: Rows
    body: Index
    texts: list[tuple[Index, Index]]
    after: Index


def strings(
    packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index,
    *, before: int, count: int, rest: int,
) -> Strings:  # fmt: skip
    """Records that have ``before`` words, ``count`` strings and ``rest`` words, at least.

    Those that lead beyond their end are bad, and left out.
    """
    position = body + before
    fits = np.ones(len(body), bool)
    texts = []
    for _ in range(count):
        position = np.minimum(position, end)
        length = buffer.words[position].astype(np.int64)
        begin = position + 1 << 2
        texts.append((begin, begin + length))
        position = position + 1 + (length + 3 >> 2)
        fits &= position <= end
    fits &= position + rest <= end
    if not fits.all():
        packets.bad[chosen_rows(rows, ~fits)] = True
        rows, body, position = chosen_rows(rows, fits), body[fits], position[fits]
        texts = [(begin[fits], stop[fits]) for begin, stop in texts]
    return Strings(rows, body, texts, position)
