"""Flow records of sFlow samples (a sampled packet and what the device knows of it) as columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode import packet
from exporter.decode.packet import mapped_address, rows_at
from exporter.decode.sflow.walk import Buffer, Index, Parts, Words

RAW_HEADER: Final = 1
ETHERNET_FRAME: Final = 2
IPV4_PACKET: Final = 3
IPV6_PACKET: Final = 4
EXTENDED_SWITCH: Final = 1001
EXTENDED_ROUTER: Final = 1002
EXTENDED_GATEWAY: Final = 1003
EXTENDED_NAT: Final = 1007
EXTENDED_NAT_PORT: Final = 1020

_ADDRESS_WORDS: Final = np.array([0, 1, 4], np.int64)
_MAX_SEGMENTS: Final = 16

#: What a raw header begins with, as an EtherType, by sFlow's header_protocol.
_PROTOCOLS: Final = {1: packet.ETHERNET, 11: packet.IPV4, 12: packet.IPV6, 13: packet.MPLS}


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

    def put(self, name: str, rows: Index, values: Array) -> None:
        """Set a column in some rows; the rest keeps what it has, or zero."""
        column = self.columns.get(name)
        if column is None:
            shape = (self.length, *values.shape[1:])
            column = self.columns[name] = np.zeros(shape, values.dtype)
        assert not isinstance(column, DictColumn)
        column[rows] = values


def read_packets(buffer: Buffer, records: Parts, length: int) -> Packets:
    """The columns that the records give for ``length`` samples (their owners)."""
    packets = _raw_headers(buffer, records, length)
    readers: tuple[tuple[int, int, Callable[[Packets, Buffer, Index, Index, Index], None]], ...]
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
    for kind, size, read in readers:
        chosen = np.flatnonzero(records.kind == kind)
        if not len(chosen):
            continue
        rows, body, end = records.owner[chosen], records.body[chosen], records.end[chosen]
        whole = body + size <= end
        if not whole.all():
            packets.bad[rows[~whole]] = True
            rows, body, end = rows[whole], body[whole], end[whole]
        read(packets, buffer, rows, body, end)
    return packets


def _raw_headers(buffer: Buffer, records: Parts, length: int) -> Packets:
    words = buffer.words
    chosen = records.kind == RAW_HEADER
    rows, body, end = records.owner[chosen], records.body[chosen], records.end[chosen]
    whole = body + 4 <= end
    short = rows[~whole]
    if len(short):
        rows, body, end = rows[whole], body[whole], end[whole]
    # Nearly always every sample has one, in order; then nothing needs to be put in its place.
    complete = len(rows) == length and bool((rows == np.arange(length)).all())
    starts = (body + 4) << 2
    ends = np.minimum(starts + words[body + 3], end << 2)
    protocol = words[body]
    first = np.zeros(len(rows), np.uint16)
    for number, ethertype in _PROTOCOLS.items():
        first[protocol == number] = ethertype
    size = words[body + 1]
    if complete:
        raw = np.ones(length, bool)
    else:
        raw = np.zeros(length, bool)
        raw[rows] = True
        starts, ends = _spread(length, rows, starts), _spread(length, rows, ends)
        first, size = _spread(length, rows, first), _spread(length, rows, size)
    packets = Packets(length, packet.dissect(buffer.data, starts, ends, first), size, raw)
    packets.bad[short] = True
    return packets


def _spread(length: int, rows: Index, values: Array) -> Array:
    column = np.zeros(length, values.dtype)
    column[rows] = values
    return column


def _describe(packets: Packets, buffer: Buffer, rows: Index, body: Index) -> tuple[Index, Index]:
    """Those rows without a raw header, which tells more; their records begin with a length."""
    fresh = ~packets.raw[rows]
    rows, body = rows[fresh], body[fresh]
    unsized = ~packets.seen[rows]
    packets.size[rows[unsized]] = buffer.words[body[unsized]]
    packets.seen[rows] = True
    return rows, body


def _ethernet_frames(
    packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index
) -> None:
    # length, source and destination MAC (two words each, six bytes used), type
    del end
    words = buffer.words
    rows, body = _describe(packets, buffer, rows, body)
    for name, position in (("src_mac", body + 1), ("dst_mac", body + 3)):
        high, low = words[position].astype(np.uint64), words[position + 1].astype(np.uint64)
        packets.put(name, rows, high << 16 | low >> 16)
    packets.put("etype", rows, words[body + 5].astype(np.uint16))


def _ipv4_packets(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    _ip_packets(packets, buffer, rows, body, end, address_words=1, etype=packet.IPV4)


def _ipv6_packets(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    _ip_packets(packets, buffer, rows, body, end, address_words=4, etype=packet.IPV6)


def _ip_packets(
    packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index,
    *, address_words: int, etype: int,
) -> None:  # fmt: skip
    # length, protocol, source, destination, source port, destination port, TCP flags, TOS
    del end
    words = buffer.words
    rows, body = _describe(packets, buffer, rows, body)
    packets.put("etype", rows, np.full(len(rows), etype, np.uint16))
    packets.put("proto", rows, words[body + 1].astype(np.uint8))
    kinds = np.full(len(rows), 1 if address_words == 1 else 2, np.uint32)
    packets.put("src_addr", rows, _addresses(buffer, kinds, body + 2))
    packets.put("dst_addr", rows, _addresses(buffer, kinds, body + 2 + address_words))
    rest = body + 2 + 2 * address_words
    packets.put("src_port", rows, words[rest].astype(np.uint16))
    packets.put("dst_port", rows, words[rest + 1].astype(np.uint16))
    packets.put("tcp_flags", rows, words[rest + 2].astype(np.uint16))
    packets.put("tos", rows, words[rest + 3].astype(np.uint8))


def _addresses(buffer: Buffer, kinds: Words, position: Index) -> NDArray[np.uint8]:
    """Addresses of type 1 (IPv4) or 2 (IPv6) at ``position``; others are zero."""
    found = np.zeros((len(position), 16), np.uint8)
    v4 = kinds == 1
    if v4.any():
        found[v4] = mapped_address(rows_at(buffer.data, position[v4] << 2, np.dtype("=u4")))
    v6 = kinds == 2
    if v6.any():
        sixteen = rows_at(buffer.data, position[v6] << 2, np.dtype("V16"))
        found[v6] = sixteen.view(np.uint8).reshape(-1, 16)
    return found


def _switch(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    # source VLAN and priority, destination VLAN and priority
    del end
    for name, position in (("src_vlan", body), ("dst_vlan", body + 2)):
        vlan = buffer.words[position]
        known = vlan <= 4095  # 0xFFFFFFFF: unknown
        packets.put(name, rows[known], vlan[known].astype(np.uint16))


def _address_sizes(
    packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index, rest: int
) -> tuple[Index, Index, Index, Words, Index]:
    """Records that begin with an address of known type and have ``rest`` words after it.

    Returns rows, bodies and ends of those, their address types, and where the rest begins.
    """
    kinds = buffer.words[body]
    after = body + 1 + _ADDRESS_WORDS[np.minimum(kinds, 2)]
    good = (kinds <= 2) & (after + rest <= end)
    if not good.all():
        packets.bad[rows[~good]] = True
    return rows[good], body[good], end[good], kinds[good], after[good]


def _router(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    # next hop, prefix lengths of source and destination
    rows, body, _, kinds, after = _address_sizes(packets, buffer, rows, body, end, 2)
    packets.put("next_hop", rows, _addresses(buffer, kinds, body + 1))
    for name, position in (("src_prefix_len", after), ("dst_prefix_len", after + 1)):
        packets.put(name, rows, buffer.words[position].astype(np.uint8))


def _gateway(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    # next hop, own AS, source AS, source peer AS, number of path segments and these (each a type,
    # a number of ASes and these), communities, local preference
    words = buffer.words
    rows, body, end, kinds, after = _address_sizes(packets, buffer, rows, body, end, 4)
    hops = _addresses(buffer, kinds, body + 1)
    known = packets.columns.get("next_hop")
    # The router's next hop is where the packet went; BGP's stands in for it.
    lacking = np.ones(len(rows), bool) if known is None else ~np.asarray(known)[rows].any(axis=1)
    packets.put("next_hop", rows[lacking], hops[lacking])
    packets.put("src_as", rows, words[after + 1])
    last = np.zeros(len(rows), np.uint32)
    position = after + 4
    left = words[after + 3].astype(np.int64)
    inside = np.flatnonzero(left)
    for _ in range(_MAX_SEGMENTS):
        if not len(inside):
            break
        ases = words[np.minimum(position[inside] + 1, end[inside])].astype(np.int64)
        next_segment = position[inside] + 2 + ases
        fits = next_segment <= end[inside]
        packets.bad[rows[inside[~fits]]] = True
        inside, ases, next_segment = inside[fits], ases[fits], next_segment[fits]
        filled = ases > 0
        last[inside[filled]] = words[next_segment[filled] - 1]
        position[inside] = next_segment
        left[inside] -= 1
        inside = inside[left[inside] > 0]
    packets.put("dst_as", rows, last)


def _nat(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    # translated source address, translated destination address
    rows, body, end, kinds, after = _address_sizes(packets, buffer, rows, body, end, 1)
    packets.put("nat_src_addr", rows, _addresses(buffer, kinds, body + 1))
    rows, body, _, kinds, _ = _address_sizes(packets, buffer, rows, after, end, 0)
    packets.put("nat_dst_addr", rows, _addresses(buffer, kinds, body + 1))


def _nat_port(packets: Packets, buffer: Buffer, rows: Index, body: Index, end: Index) -> None:
    del end
    packets.put("nat_src_port", rows, buffer.words[body].astype(np.uint16))
    packets.put("nat_dst_port", rows, buffer.words[body + 1].astype(np.uint16))
