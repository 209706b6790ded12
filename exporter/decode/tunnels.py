"""Packets inside of tunnels, of sampled headers: the inner packet in place of the tunnel's.

Read are IP in IP (RFC 2003, 4213, 2473), GRE (RFC 2784, 2890) with IP, Ethernet frames (NVGRE, RFC
7637) or ERSPAN, VXLAN (RFC 7348) and Geneve (RFC 8926). One tunnel is left, not those inside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode.gather import Index, rows_at
from exporter.decode.packet import ETHERNET, IPV4, IPV6, LARGEST_LENGTH, dissect, layers

_UDP: Final = 17
_GRE: Final = 47
_IP_IN_IP: Final = {4: IPV4, 41: IPV6}
_ERSPAN: Final = 0x88BE

_UDP_HEADER: Final = 8
_VXLAN_PORTS: Final = (4789, 8472)  # IANA's, and the one that Linux had before
_VXLAN_HEADER: Final = 8
_VXLAN_FLAGS: Final = 0x08  # the network identifier is there; all other bits are reserved
_GENEVE_PORT: Final = 6081
_GENEVE_HEADER: Final = 8

#: Flags of GRE: what is there takes four octets each; the rest must be zero.
_GRE_WORDS: Final = (0x8000, 0x2000, 0x1000)
_GRE_SEQUENCE: Final = 0x1000
_GRE_KNOWN: Final = 0xB000
_ERSPAN_HEADER: Final = 8

#: What of a flow is the inner packet's. MAC addresses, VLAN and labels are those of the wire.
_INNER: Final = (
    "src_addr", "dst_addr", "etype", "proto", "tos", "ttl", "flow_label", "src_port", "dst_port",
    "tcp_flags", "icmp_type", "icmp_code",
)  # fmt: skip


def dissect_inner(
    data: NDArray[np.uint8], starts: Index, ends: Index, first: NDArray[np.uint16]
) -> dict[str, Array | DictColumn]:
    """As :func:`dissect`, with packets inside of tunnels in place of these.

    A tunnel whose packet was cut off before its addresses, or is no IP, stays what it is.
    """
    columns, transport = layers(data, starts, ends, first)
    kind, begin = _inside(data, transport, ends, columns)
    rows = np.flatnonzero(kind)
    if not len(rows):
        return columns
    inner = dissect(data, begin[rows], ends[rows], kind[rows])
    known = np.asarray(inner["ttl"] if "ttl" in inner else np.zeros(len(rows))) != 0
    known |= np.asarray(inner["proto"]) != 0
    rows = rows[known]
    for name in _INNER:
        found = inner.get(name)
        column = columns.get(name)
        assert not isinstance(found, DictColumn)
        assert not isinstance(column, DictColumn)
        if found is None:
            if column is not None:
                column[rows] = 0
            continue
        if column is None:
            column = columns[name] = np.zeros((len(starts), *found.shape[1:]), found.dtype)
        column[rows] = found[known]
    return columns


def _inside(
    data: NDArray[np.uint8], position: Index, ends: Index,
    columns: dict[str, Array | DictColumn],
) -> tuple[NDArray[np.uint16], Index]:  # fmt: skip
    """What there is inside of each packet, as an EtherType, and where; 0 where there is no tunnel.

    ``position`` is where the transport header begins.
    """
    proto = np.asarray(columns["proto"])
    kind = np.zeros(len(position), np.uint16)
    begin = position.copy()
    for number, etype in _IP_IN_IP.items():
        kind[proto == number] = etype
    gre = np.flatnonzero((proto == _GRE) & (ends - position >= 4))
    if len(gre):
        kind[gre], begin[gre] = _gre(data, position[gre])
    udp = np.flatnonzero((proto == _UDP) & (ends - position >= _UDP_HEADER + _VXLAN_HEADER))
    port = np.asarray(columns["dst_port"])[udp]
    vxlan = udp[np.isin(port, _VXLAN_PORTS)]
    vxlan = vxlan[data[position[vxlan] + _UDP_HEADER] == _VXLAN_FLAGS]
    kind[vxlan] = ETHERNET
    begin[vxlan] += _UDP_HEADER + _VXLAN_HEADER
    geneve = udp[port == _GENEVE_PORT]
    head = position[geneve] + _UDP_HEADER
    # version (2 bits), length of options in words (6 bits), flags, protocol
    options = data[head].astype(np.int64)
    kind[geneve] = np.where(options < 1 << 6, rows_at(data, head + 2, np.dtype(">u2")), 0)
    begin[geneve] = head + _GENEVE_HEADER + (options & 0x3F) * 4
    # Below EtherTypes there are lengths, and what else this package begins packets with.
    kind[(kind <= LARGEST_LENGTH) | (begin >= ends)] = 0
    return kind, np.minimum(begin, ends)


def _gre(data: NDArray[np.uint8], position: Index) -> tuple[NDArray[np.uint16], Index]:
    head = rows_at(data, position, np.dtype([("flags", ">u2"), ("kind", ">u2")]))
    flags = head["flags"].astype(np.int64)
    kind = head["kind"].astype(np.uint16)
    begin = position + 4 + 4 * sum((flags & flag != 0).astype(np.int64) for flag in _GRE_WORDS)
    # Type II of ERSPAN has a sequence number in GRE and a header, type I neither.
    erspan = kind == _ERSPAN
    begin += np.where(erspan & (flags & _GRE_SEQUENCE != 0), _ERSPAN_HEADER, 0)
    kind[erspan] = ETHERNET
    kind[flags & ~_GRE_KNOWN != 0] = 0
    return kind, begin
