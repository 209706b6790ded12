"""Flow records of sFlow samples (a sampled packet and what the device knows of it) as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode import packet, values
from exporter.decode.sflow.walk import (
    IPV4_ADDRESS,
    IPV6_ADDRESS,
    Buffer,
    Index,
    Parts,
    Words,
    addresses,
)

RAW_HEADER: Final = 1
ETHERNET_FRAME: Final = 2
IPV4_PACKET: Final = 3
IPV6_PACKET: Final = 4
EXTENDED_SWITCH: Final = 1001
EXTENDED_ROUTER: Final = 1002
EXTENDED_GATEWAY: Final = 1003
EXTENDED_NAT: Final = 1007
EXTENDED_NAT_PORT: Final = 1020

#: Words and layout of an address by its type: unknown, IPv4, IPv6.
_ADDRESS_LAYOUTS: Final = ((0, np.dtype("V0")), (1, IPV4_ADDRESS), (4, IPV6_ADDRESS))
_MAX_SEGMENTS: Final = 16

_HEADER_RECORD: Final = np.dtype(
    [("protocol", ">u4"), ("size", ">u4"), ("stripped", ">u4"), ("length", ">u4")]
)


def _ethertypes() -> NDArray[np.uint16]:
    table = np.zeros(15, np.uint16)
    table[[1, 11, 12, 13]] = packet.ETHERNET, packet.IPV4, packet.IPV6, packet.MPLS
    return table


#: What a raw header begins with, as an EtherType, by sFlow's header_protocol.
_ETHERTYPES: Final = _ethertypes()

#: Reads packets: their octets, beginnings, ends, and what they begin with.
Dissect = Callable[
    [NDArray[np.uint8], Index, Index, NDArray[np.uint16]], dict[str, Array | DictColumn]
]

#: Rows of samples; all of them as a slice.
Rows = slice | Index


@dataclass(slots=True)
class Packets:
    """The packets of ``length`` samples.

    ``size`` are their bytes as the device counts them, ``raw`` says which samples have a packet's
    header, ``seen`` which have that or a description of the packet, ``bad`` which had a record
    that was too short for its kind.
    """

    length: int
    columns: dict[str, Array | DictColumn]
    size: Words
    raw: NDArray[np.bool_]
    seen: NDArray[np.bool_] = field(init=False)
    bad: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.seen = self.raw.copy()
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


def read_packets(buffer: Buffer, records: Parts, length: int, dissect: Dissect) -> Packets:
    """The columns that the records give for ``length`` samples (their owners).

    ``dissect`` reads raw headers.
    """
    readers: tuple[tuple[int, int, Callable[[Packets, Buffer, Rows, Index, Index], None]], ...]
    readers = (
        (ETHERNET_FRAME, 6, _ethernet_frames),
        (IPV4_PACKET, 8, _ipv4_packets),
        (IPV6_PACKET, 14, _ipv6_packets),
        (EXTENDED_SWITCH, 4, _switch),
        (EXTENDED_ROUTER, 3, _router),
        (EXTENDED_GATEWAY, 6, _gateway),
        (EXTENDED_NAT, 2, _nat),
        (EXTENDED_NAT_PORT, 2, _nat_port),
    )
    present = records.by_kind([RAW_HEADER, *(kind for kind, _, _ in readers)])
    packets = _raw_headers(buffer, present.get(RAW_HEADER), length, dissect)
    for kind, size, read in readers:
        if kind not in present:
            continue
        owner, body, end = present[kind]
        whole = body + size <= end
        if not whole.all():
            packets.bad[owner[~whole]] = True
            owner, body, end = owner[whole], body[whole], end[whole]
        read(packets, buffer, _rows(owner, length), body, end)
    return packets


def _rows(owner: Index, length: int) -> Rows:
    """Rows as a slice where they are all of ``length``, in order, as nearly always."""
    if len(owner) == length and bool((owner == np.arange(length)).all()):
        return slice(None)
    return owner


def _chosen(rows: Rows, chosen: NDArray[np.bool_]) -> Index:
    """Those of ``rows`` that are chosen."""
    return np.flatnonzero(chosen) if isinstance(rows, slice) else rows[chosen]


def _raw_headers(
    buffer: Buffer, records: tuple[Index, Index, Index] | None, length: int, dissect: Dissect
) -> Packets:
    """The packets by their headers; samples without one have packets of which nothing is known."""
    none = np.zeros(0, np.int64)
    owner, body, end = records or (none, none, none)
    whole = body + 4 <= end
    short = owner[~whole]
    if len(short):
        owner, body, end = owner[whole], body[whole], end[whole]
    # what the header begins with, the frame's size, octets stripped, the header's length
    head = buffer.rows(body, _HEADER_RECORD)
    starts = (body + 4) << 2
    ends = np.minimum(starts + head["length"], end << 2)
    first = _ETHERTYPES[np.minimum(head["protocol"], len(_ETHERTYPES) - 1)]
    size = head["size"].astype(np.uint32)
    if isinstance(_rows(owner, length), slice):
        raw = np.ones(length, bool)
    else:
        raw = np.zeros(length, bool)
        raw[owner] = True
        starts, ends = _spread(length, owner, starts), _spread(length, owner, ends)
        first, size = _spread(length, owner, first), _spread(length, owner, size)
    packets = Packets(length, dissect(buffer.data, starts, ends, first), size, raw)
    packets.bad[short] = True
    return packets


def _spread(length: int, rows: Index, found: Array) -> Array:
    column = np.zeros(length, found.dtype)
    column[rows] = found
    return column


def _describe(packets: Packets, buffer: Buffer, rows: Rows, body: Index) -> tuple[Index, Index]:
    """Those rows without a raw header, which tells more; their records begin with a length."""
    fresh = ~packets.raw[rows]
    rows, body = _chosen(rows, fresh), body[fresh]
    unsized = ~packets.seen[rows]
    packets.size[rows[unsized]] = buffer.words[body[unsized]]
    packets.seen[rows] = True
    return rows, body


def _ethernet_frames(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    # length, source and destination MAC (two words each, six bytes used), type
    del end
    words = buffer.words
    rows, body = _describe(packets, buffer, rows, body)
    for name, position in (("src_mac", body + 1), ("dst_mac", body + 3)):
        high, low = words[position].astype(np.uint64), words[position + 1].astype(np.uint64)
        packets.put(name, rows, high << 16 | low >> 16)
    packets.put("etype", rows, words[body + 5].astype(np.uint16))


def _ipv4_packets(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    _ip_packets(packets, buffer, rows, body, end, address_words=1, etype=packet.IPV4)


def _ipv6_packets(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    _ip_packets(packets, buffer, rows, body, end, address_words=4, etype=packet.IPV6)


def _ip_packets(
    packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index,
    *, address_words: int, etype: int,
) -> None:  # fmt: skip
    # length, protocol, source, destination, source port, destination port, TCP flags, TOS
    del end
    words = buffer.words
    rows, body = _describe(packets, buffer, rows, body)
    packets.put("etype", rows, np.full(len(rows), etype, np.uint16))
    packets.put("proto", rows, words[body + 1].astype(np.uint8))
    kinds = np.full(len(rows), 1 if address_words == 1 else 2, np.uint32)
    packets.put("src_addr", rows, addresses(buffer, kinds, body + 2))
    packets.put("dst_addr", rows, addresses(buffer, kinds, body + 2 + address_words))
    rest = body + 2 + 2 * address_words
    packets.put("src_port", rows, words[rest].astype(np.uint16))
    packets.put("dst_port", rows, words[rest + 1].astype(np.uint16))
    packets.put("tcp_flags", rows, words[rest + 2].astype(np.uint16))
    packets.put("tos", rows, words[rest + 3].astype(np.uint8))


def _switch(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    # source VLAN and priority, destination VLAN and priority
    del end
    for name, position in (("src_vlan", body), ("dst_vlan", body + 2)):
        vlan = buffer.words[position].astype(np.uint32)
        known = vlan <= 4095  # 0xFFFFFFFF: unknown
        if known.all():
            packets.put(name, rows, vlan.astype(np.uint16))
        else:
            packets.put(name, _chosen(rows, known), vlan[known].astype(np.uint16))


@dataclass(slots=True)
class _Addressed:
    """Records that begin with an address of the same type.

    ``rest`` are words that follow the address, big-endian, and ``after`` is where they begin.
    """

    rows: Rows
    end: Index
    address: NDArray[np.uint8]
    rest: Array
    after: Index


def _addressed(
    packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index, rest: int
) -> Iterator[_Addressed]:
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
            some, start, stop = _chosen(rows, chosen), body[chosen], end[chosen]
        whole = start + (1 + size + rest) <= stop
        if not whole.all():
            packets.bad[_chosen(some, ~whole)] = True
            some, start, stop = _chosen(some, whole), start[whole], stop[whole]
        fields = [("kind", ">u4"), ("address", layout), ("rest", ">u4", (rest,))]
        head = buffer.rows(start, np.dtype(fields))
        address = values.addresses(head["address"]) if size else np.zeros((len(head), 16), np.uint8)
        yield _Addressed(some, stop, address, head["rest"], start + (1 + size))
    if left:
        packets.bad[_chosen(rows, kinds >= len(_ADDRESS_LAYOUTS))] = True


def _router(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    # next hop, prefix lengths of source and destination
    for hops in _addressed(packets, buffer, rows, body, end, 2):
        packets.put("next_hop", hops.rows, hops.address)
        packets.put("src_prefix_len", hops.rows, hops.rest[:, 0].astype(np.uint8))
        packets.put("dst_prefix_len", hops.rows, hops.rest[:, 1].astype(np.uint8))


def _gateway(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    # next hop, own AS, source AS, source peer AS, number of path segments and these, communities,
    # local preference
    for hops in _addressed(packets, buffer, rows, body, end, 4):
        known = packets.columns.get("next_hop")
        # The router's next hop is where the packet went; BGP's stands in for it.
        if known is None:
            packets.put("next_hop", hops.rows, hops.address)
        else:
            halves = np.asarray(known)[hops.rows].view(np.uint64)
            lacking = np.asarray((halves[:, 0] | halves[:, 1]) == 0)
            if lacking.any():
                packets.put("next_hop", _chosen(hops.rows, lacking), hops.address[lacking])
        packets.put("src_as", hops.rows, hops.rest[:, 1].astype(np.uint32))
        segments = hops.rest[:, 3].astype(np.int64)
        last, bad = _last_as(buffer.words, hops.after + 4, hops.end, segments)
        if len(bad):
            packets.bad[bad if isinstance(hops.rows, slice) else hops.rows[bad]] = True
        packets.put("dst_as", hops.rows, last)


def _last_as(words: Words, position: Index, end: Index, segments: Index) -> tuple[Words, Index]:
    """The last AS of each path, and which paths lead beyond their record.

    A path has ``segments`` segments from ``position`` on, each a type, a number of ASes and these.
    """
    last = np.zeros(len(position), np.uint32)
    bad = [np.zeros(0, np.int64)]
    inside = np.flatnonzero(segments)
    position, end, segments = position[inside], end[inside], segments[inside]
    for _ in range(_MAX_SEGMENTS):
        if not len(inside):
            break
        ases = words[np.minimum(position + 1, end)].astype(np.int64)
        position = position + 2 + ases
        fits = position <= end
        if not fits.all():
            bad.append(inside[~fits])
            inside, position, end = inside[fits], position[fits], end[fits]
            ases, segments = ases[fits], segments[fits]
        final = words[position - 1]
        last[inside] = final if ases.all() else np.where(ases > 0, final, last[inside])
        more = segments > 1
        inside, position, end = inside[more], position[more], end[more]
        segments = segments[more] - 1
    return last, np.concatenate(bad)


def _nat(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    # translated source address, translated destination address
    for source in _addressed(packets, buffer, rows, body, end, 1):
        packets.put("nat_src_addr", source.rows, source.address)
        for target in _addressed(packets, buffer, source.rows, source.after, source.end, 0):
            packets.put("nat_dst_addr", target.rows, target.address)


def _nat_port(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    del end
    packets.put("nat_src_port", rows, buffer.words[body].astype(np.uint16))
    packets.put("nat_dst_port", rows, buffer.words[body + 1].astype(np.uint16))
