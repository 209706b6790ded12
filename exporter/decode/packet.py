"""Packet headers as columns: many sampled packets dissected at once.

Every step handles all packets that have the header in question: rows of bytes are gathered from
one buffer by their offsets and read as big-endian structures, so the cost of Python is paid per
header type and not per packet.

Read are Ethernet II and SNAP, IEEE 802.11, PPP, 802.1Q and 802.1ad tags, PPPoE sessions, MPLS and
Ethernet pseudowires in it (RFC 4448, with control word), IPv4 (RFC 791), IPv6 (RFC 8200) with
extension headers, TCP, UDP, SCTP, DCCP, UDP-Lite, ICMP and ICMPv6. A header that is not wholly
there leaves its columns, and those of the headers after it, at zero.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode.framing import unframe
from exporter.decode.gather import Index, rows_at
from exporter.decode.values import label_stacks
from exporter.receive.datagrams import SPARE_BYTES

#: Bytes that must follow the last packet in the buffer, so that no gather leaves it.
PADDING: Final = SPARE_BYTES

#: What a packet begins with, given as an EtherType.
ETHERNET: Final = 0x6558  # Transparent Ethernet Bridging: an Ethernet frame
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
MPLS: Final = 0x8847
_MPLS_UPSTREAM: Final = 0x8848
_PPPOE: Final = 0x8864
_VLAN_TAGS: Final = (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300)  # the last three before 802.1ad
LARGEST_LENGTH: Final = 1500  # smaller values in an EtherType's place are 802.3 lengths

_MAX_TAGS: Final = 4
_MAX_LABELS: Final = 8
_MAX_EXTENSIONS: Final = 8

_ETHERNET_HEADER: Final = np.dtype(
    {"names": ["dst", "src"], "formats": [">u8", ">u8"], "offsets": [0, 6], "itemsize": 14}
)
_IPV4_HEADER: Final = np.dtype(
    {
        "names": ["version", "tos", "length", "fragment", "ttl", "proto", "src", "dst"],
        "formats": ["u1", "u1", ">u2", ">u2", "u1", "u1", "=u4", "=u4"],
        "offsets": [0, 1, 2, 6, 8, 9, 12, 16],
        "itemsize": 20,
    }
)
_IPV6_HEADER: Final = np.dtype(
    {
        "names": ["first", "length", "following", "hops", "src", "dst"],
        "formats": [">u4", ">u2", "u1", "u1", ("=u4", 4), ("=u4", 4)],
        "offsets": [0, 4, 6, 7, 8, 24],
        "itemsize": 40,
    }
)
_TRANSPORT_HEADER: Final = np.dtype(
    {
        "names": ["src_port", "dst_port", "type", "code", "flags"],
        "formats": [">u2", ">u2", "u1", "u1", ">u2"],
        "offsets": [0, 2, 0, 1, 12],
        "itemsize": 14,
    }
)

_ICMP: Final = 1
_TCP: Final = 6
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_ICMP6: Final = 58


def _flags(*protocols: int) -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[list(protocols)] = True
    return table


_HAS_PORTS: Final = _flags(_TCP, 17, 33, 132, 136)
_HAS_ICMP: Final = _flags(_ICMP, _ICMP6)
_IS_EXTENSION: Final = _flags(0, 43, 60, 135, 139, 140, _FRAGMENT, _AUTHENTICATION)

_MAPPED_WORD: Final = np.frombuffer(b"\0\0\xff\xff", np.uint32)[0]


def mapped_address(words: Array) -> NDArray[np.uint8]:
    """IPv4 addresses, four bytes each in the order of the wire, as ``(n, 16)`` mapped ones."""
    address = np.zeros((len(words), 4), np.uint32)
    address[:, 2] = _MAPPED_WORD
    address[:, 3] = words
    return address.view(np.uint8)


def dissect(
    data: NDArray[np.uint8], starts: Index, ends: Index, first: NDArray[np.uint16]
) -> dict[str, Array | DictColumn]:
    """The flow columns that the headers of ``n`` packets give.

    Args:
        data: All packets; at least :data:`PADDING` more bytes follow the last.
        starts: Where each packet begins, shape ``(n,)``.
        ends: Where what was captured of it ends, shape ``(n,)``.
        first: What each packet begins with, as an EtherType (:data:`ETHERNET`, :data:`IPV4`, …) or
            as :mod:`exporter.decode.framing` has it; 0 for what is not known, which is not looked
            into.

    Returns:
        ``src_mac``, ``dst_mac``, ``etype``, ``src_vlan`` (of the outer tag), ``mpls_labels`` (only
        if there are any), addresses, ``proto``, ``tos``, ``ttl``, ``flow_label``, ports,
        ``tcp_flags``, ``icmp_type``, ``icmp_code``; zero where a packet has no such header.
    """
    return layers(data, starts, ends, first)[0]


def layers(
    data: NDArray[np.uint8], starts: Index, ends: Index, first: NDArray[np.uint16]
) -> tuple[dict[str, Array | DictColumn], Index]:
    """As :func:`dissect`, and where transport headers begin: at the end where there is none."""
    columns: dict[str, Array | DictColumn] = {}
    etype, network = _link(data, starts, ends, first, columns)
    proto, transport = _network(data, network, ends, etype, columns)
    _transport(data, transport, ends, proto, columns)
    columns["etype"] = etype
    columns["proto"] = proto
    return columns, transport


def _select(condition: NDArray[np.bool_]) -> slice | Index:
    """Rows where ``condition`` holds; all of them as a slice, which makes no copies."""
    return slice(None) if condition.all() else np.flatnonzero(condition)


def _put(length: int, rows: slice | Index, values: Array, dtype: type[Any]) -> Array:
    """A column with ``values`` in ``rows`` and zero elsewhere."""
    if isinstance(rows, slice):
        return values.astype(dtype)
    column = np.zeros(length, dtype)
    column[rows] = values
    return column


def _ip_type(
    v4: NDArray[np.bool_], v6: NDArray[np.bool_], others: NDArray[np.uint16]
) -> NDArray[np.uint16]:
    """EtherTypes of IPv4 and IPv6 where these are said to be, those of ``others`` elsewhere."""
    return np.where(v4, np.uint16(IPV4), np.where(v6, np.uint16(IPV6), others))


def _link(
    data: NDArray[np.uint8], starts: Index, ends: Index, first: NDArray[np.uint16],
    columns: dict[str, Array | DictColumn],
) -> tuple[NDArray[np.uint16], Index]:  # fmt: skip
    """EtherType and beginning of what follows the link layer, tags and labels."""
    length = len(starts)
    etype = first.astype(np.uint16)
    position = starts.copy()
    rows = _select((etype == ETHERNET) & (ends - starts >= 14))
    head = rows_at(data, position[rows], _ETHERNET_HEADER)
    columns["dst_mac"] = _put(length, rows, head["dst"] >> 16, np.uint64)
    columns["src_mac"] = _put(length, rows, head["src"] >> 16, np.uint64)
    etype[rows] = head["src"] & 0xFFFF
    position[rows] += 14
    # Nearly all traffic is plain IP: look for the rest only if there is any.
    others = np.flatnonzero((etype != IPV4) & (etype != IPV6) & (first != 0))
    if len(others):
        unframe(data, others, first, position, ends, etype, columns)
        _unwrap(data, others, position, ends, etype, columns)
    return etype, position


def _unwrap(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index,
    etype: NDArray[np.uint16], columns: dict[str, Array | DictColumn],
) -> None:  # fmt: skip
    """Move ``position`` and ``etype`` of ``rows`` behind SNAP, VLAN tags, PPPoE and labels."""
    _snap(data, rows, position, ends, etype)
    tagged, vlan = _tags(data, rows, position, ends, etype)
    if len(tagged):
        columns["src_vlan"] = _put(len(position), tagged, vlan, np.uint16)
        _snap(data, tagged, position, ends, etype)

    session = rows[(etype[rows] == _PPPOE) & (ends[rows] - position[rows] >= 8)]
    if len(session):
        protocol = rows_at(data, position[session] + 6, np.dtype(">u2"))
        position[session] += 8
        etype[session] = _ip_type(protocol == 0x21, protocol == 0x57, etype[session])

    labelled = rows[(etype[rows] == MPLS) | (etype[rows] == _MPLS_UPSTREAM)]
    if len(labelled):
        _labels(data, labelled, position, ends, etype, columns)


def _snap(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index, etype: NDArray[np.uint16]
) -> None:
    """Move ``position`` and ``etype`` of ``rows`` behind LLC and SNAP; without, it is 0."""
    rows = rows[etype[rows] <= LARGEST_LENGTH]
    if not len(rows):
        return
    head = rows_at(data, position[rows], np.dtype(">u8"))
    is_snap = (head >> 16 == 0xAAAA03000000) & (ends[rows] - position[rows] >= 8)
    etype[rows] = np.where(is_snap, head & 0xFFFF, 0)
    position[rows[is_snap]] += 8


def _tags(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index, etype: NDArray[np.uint16]
) -> tuple[Index, Array]:
    """Move ``position`` and ``etype`` of ``rows`` behind VLAN tags; gives rows and outer VLANs."""
    outer, vlan = rows[:0], np.zeros(0, np.int64)
    for depth in range(_MAX_TAGS):
        rows = rows[np.isin(etype[rows], _VLAN_TAGS) & (ends[rows] - position[rows] >= 4)]
        if not len(rows):
            break
        tag = rows_at(data, position[rows], np.dtype(">u4"))
        if depth == 0:
            outer, vlan = rows, tag >> 16 & 0xFFF
        etype[rows] = tag & 0xFFFF
        position[rows] += 4
    return outer, vlan


def _labels(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index,
    etype: NDArray[np.uint16], columns: dict[str, Array | DictColumn],
) -> None:  # fmt: skip
    """Read label stacks (RFC 3032); what follows the bottom tells by its first half byte."""
    stacks = np.zeros((len(position), _MAX_LABELS), np.uint32)
    depth = np.zeros(len(position), np.int64)
    inside, bottoms = rows, [rows[:0]]
    for level in range(_MAX_LABELS):
        inside = inside[ends[inside] - position[inside] >= 4]
        if not len(inside):
            break
        entry = rows_at(data, position[inside], np.dtype(">u4"))
        stacks[inside, level] = entry >> 12
        depth[inside] += 1
        position[inside] += 4
        last = entry & 0x100 != 0
        bottoms.append(inside[last])
        inside = inside[~last]
    bottom = np.concatenate(bottoms)
    below = bottom[position[bottom] < ends[bottom]]
    version = data[position[below]] >> 4
    etype[below] = _ip_type(version == 4, version == 6, etype[below])
    _pseudowires(data, below[version == 0], position, ends, etype)
    columns["mpls_labels"] = label_stacks(stacks, depth)


def _pseudowires(
    data: NDArray[np.uint8], rows: Index, position: Index, ends: Index, etype: NDArray[np.uint16]
) -> None:
    """Ethernet frames behind a control word of 0 (RFC 4448): go on with what these carry.

    MAC addresses and VLAN stay those of the outer frame. Without a control word nothing tells a
    frame from what else may follow labels.
    """
    rows = rows[ends[rows] - position[rows] >= 4 + 14]
    rows = rows[rows_at(data, position[rows], np.dtype(">u4")) == 0]
    etype[rows] = rows_at(data, position[rows] + 4 + 12, np.dtype(">u2"))
    etype[rows[etype[rows] <= LARGEST_LENGTH]] = 0
    position[rows] += 4 + 14
    _tags(data, rows, position, ends, etype)


def _network(
    data: NDArray[np.uint8], starts: Index, ends: Index, etype: NDArray[np.uint16],
    columns: dict[str, Array | DictColumn],
) -> tuple[NDArray[np.uint8], Index]:  # fmt: skip
    """Protocol and beginning of the transport header; the beginning is the end where none is."""
    length = len(starts)
    available = ends - starts
    version = data[starts] >> 4
    v4 = (etype == IPV4) & (version == 4) & (available >= 20)
    rows = _select(v4)
    if isinstance(rows, slice):
        return _ipv4(data, starts, ends, columns)
    parts: dict[str, Array] = {
        "src_addr": np.zeros((length, 16), np.uint8),
        "dst_addr": np.zeros((length, 16), np.uint8),
        "tos": np.zeros(length, np.uint8),
        "ttl": np.zeros(length, np.uint8),
    }
    proto = np.zeros(length, np.uint8)
    transport = ends.copy()
    v6 = np.flatnonzero((etype == IPV6) & (version == 6) & (available >= 40))
    for chosen, read in ((rows, _ipv4), (v6, _ipv6)):
        if not len(chosen):
            continue
        found: dict[str, Array | DictColumn] = {}
        proto[chosen], transport[chosen] = read(data, starts[chosen], ends[chosen], found)
        for name, values in found.items():
            assert not isinstance(values, DictColumn)
            if name not in parts:
                parts[name] = np.zeros(length, values.dtype)
            parts[name][chosen] = values
    columns.update(parts)
    return proto, transport


def _ipv4(
    data: NDArray[np.uint8], starts: Index, ends: Index, columns: dict[str, Array | DictColumn]
) -> tuple[NDArray[np.uint8], Index]:
    head = rows_at(data, starts, _IPV4_HEADER)
    columns["src_addr"] = mapped_address(head["src"])
    columns["dst_addr"] = mapped_address(head["dst"])
    columns["tos"] = head["tos"].copy()
    columns["ttl"] = head["ttl"].copy()
    size = (head["version"] & 15).astype(np.int64) << 2
    # Only a first fragment has the transport header.
    whole = (size >= 20) & (head["fragment"] & 0x1FFF == 0)
    return head["proto"].copy(), np.where(whole, starts + size, ends)


def _ipv6(
    data: NDArray[np.uint8], starts: Index, ends: Index, columns: dict[str, Array | DictColumn]
) -> tuple[NDArray[np.uint8], Index]:
    head = rows_at(data, starts, _IPV6_HEADER)
    columns["src_addr"] = np.ascontiguousarray(head["src"]).view(np.uint8)
    columns["dst_addr"] = np.ascontiguousarray(head["dst"]).view(np.uint8)
    columns["tos"] = (head["first"] >> 20 & 0xFF).astype(np.uint8)
    columns["flow_label"] = (head["first"] & 0xFFFFF).astype(np.uint32)
    columns["ttl"] = head["hops"].copy()
    proto = head["following"].copy()
    position = starts + 40
    rows = np.flatnonzero(_IS_EXTENSION[proto])
    for _ in range(_MAX_EXTENSIONS):
        if not len(rows):
            break
        at = position[rows]
        kind = proto[rows]
        cut = ends[rows] - at < 4
        units = data[at + 1].astype(np.int64)
        size = np.select(
            [kind == _FRAGMENT, kind == _AUTHENTICATION], [8, (units + 2) * 4], (units + 1) * 8
        )
        fragment = rows_at(data, at + 2, np.dtype(">u2"))
        later = (kind == _FRAGMENT) & (fragment & 0xFFF8 != 0)
        proto[rows] = np.where(cut, kind, data[at])
        position[rows] = np.where(cut | later, ends[rows], np.minimum(at + size, ends[rows]))
        rows = rows[~cut & ~later & _IS_EXTENSION[proto[rows]]]
    return proto, position


def _transport(
    data: NDArray[np.uint8], starts: Index, ends: Index, proto: NDArray[np.uint8],
    columns: dict[str, Array | DictColumn],
) -> None:  # fmt: skip
    length = len(starts)
    available = ends - starts
    head = rows_at(data, starts, _TRANSPORT_HEADER)
    rows = _select(_HAS_PORTS[proto] & (available >= 4))
    columns["src_port"] = _put(length, rows, head["src_port"][rows], np.uint16)
    columns["dst_port"] = _put(length, rows, head["dst_port"][rows], np.uint16)
    rows = _select((proto == _TCP) & (available >= 14))
    columns["tcp_flags"] = _put(length, rows, head["flags"][rows] & 0xFFF, np.uint16)
    rows = np.flatnonzero(_HAS_ICMP[proto] & (available >= 2))
    if len(rows):
        columns["icmp_type"] = _put(length, rows, head["type"][rows], np.uint8)
        columns["icmp_code"] = _put(length, rows, head["code"][rows], np.uint8)
