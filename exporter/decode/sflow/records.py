"""Flow records of sFlow samples (a sampled packet and what the device knows of it) as columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode import framing, packet
from exporter.decode.sflow import extended, transactions
from exporter.decode.sflow.packets import Packets, Rows, all_rows, chosen_rows, put_ends
from exporter.decode.sflow.walk import Buffer, Index, Parts

RAW_HEADER: Final = 1

#: Words of an Ethernet frame record whose MACs are padded to two words each, as XDR has it.
_PADDED_FRAME: Final = 6

_HEADER_RECORD: Final = np.dtype(
    [("protocol", ">u4"), ("size", ">u4"), ("stripped", ">u4"), ("length", ">u4")]
)


def _ethertypes() -> NDArray[np.uint16]:
    table = np.zeros(19, np.uint16)
    # Subframes of an aggregated 802.11 frame (17) look like those of Ethernet.
    table[[1, 17]] = packet.ETHERNET
    table[[7, 14]] = framing.PPP
    table[[11, 12, 13]] = packet.IPV4, packet.IPV6, packet.MPLS
    table[15] = framing.WIRELESS
    return table


#: What a raw header begins with, as an EtherType, by sFlow's header_protocol.
_ETHERTYPES: Final = _ethertypes()

#: Reads packets: their octets, beginnings, ends, and what they begin with.
Dissect = Callable[
    [NDArray[np.uint8], Index, Index, NDArray[np.uint16]], dict[str, Array | DictColumn]
]


def read_packets(buffer: Buffer, records: Parts, length: int, dissect: Dissect) -> Packets:
    """The columns that the records give for ``length`` samples (their owners).

    ``dissect`` reads raw headers.
    """
    present = records.by_kind([RAW_HEADER, *(kind for kind, _, _ in _READERS)])
    packets = _raw_headers(buffer, present.get(RAW_HEADER), length, dissect)
    for kind, size, read in _READERS:
        if kind not in present:
            continue
        owner, body, end = present[kind]
        whole = body + size <= end
        if not whole.all():
            packets.bad[owner[~whole]] = True
            owner, body, end = owner[whole], body[whole], end[whole]
        read(packets, buffer, all_rows(owner, length), body, end)
    return packets


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
    if isinstance(all_rows(owner, length), slice):
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
    rows, body = chosen_rows(rows, fresh), body[fresh]
    unsized = ~packets.seen[rows]
    packets.size[rows[unsized]] = buffer.words[body[unsized]]
    packets.seen[rows] = True
    return rows, body


def _ethernet_frames(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    # length, source and destination MAC (two words each, six bytes used), type; agents exist (and
    # InMon's tools expect them) that put both MACs into three words
    words = buffer.words
    packed = end - body < _PADDED_FRAME
    for some in (packed, ~packed):
        if not some.any():
            continue
        chosen, begin = _describe(packets, buffer, chosen_rows(rows, some), body[some])
        first, second, third = (words[begin + n].astype(np.uint64) for n in (1, 2, 3))
        packets.put("src_mac", chosen, first << 16 | second >> 16)
        if some is packed:
            packets.put("dst_mac", chosen, (second & 0xFFFF) << 32 | third)
            packets.put("etype", chosen, words[begin + 4].astype(np.uint16))
        else:
            fourth = words[begin + 4].astype(np.uint64)
            packets.put("dst_mac", chosen, third << 16 | fourth >> 16)
            packets.put("etype", chosen, words[begin + 5].astype(np.uint16))


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
    put_ends(packets, buffer, rows, body + 1, address_words=address_words, etype=etype)
    rest = body + 4 + 2 * address_words
    packets.put("tcp_flags", rows, words[rest].astype(np.uint16))
    packets.put("tos", rows, words[rest + 1].astype(np.uint8))


#: Reads records of one kind: into packets, out of a buffer, of rows, from words to words.
Read = Callable[[Packets, Buffer, Rows, Index, Index], None]

#: Kinds of records (all of enterprise 0), the fewest words that they have, and how to read them:
#: in this order, for what one tells may stand in for what another one does not.
_READERS: Final[tuple[tuple[int, int, Read], ...]] = (
    (2, 5, _ethernet_frames),
    (3, 8, _ipv4_packets),
    (4, 14, _ipv6_packets),
    (1001, 4, extended.switch),
    (1012, 1, extended.vlan_tunnel),
    (1002, 3, extended.router),
    (1003, 6, extended.gateway),
    (1006, 3, extended.mpls),
    (1007, 2, extended.nat),
    (1020, 2, extended.nat_port),
    (1043, 2, extended.timestamp),
    (2209, 12, extended.tcp_info),
    (1005, 3, transactions.url),
    (2100, 5, transactions.socket4),
    (2101, 11, transactions.socket6),
    (2201, 12, transactions.old_http),
    (2206, 15, transactions.http),
    (2202, 10, transactions.operation),
)
