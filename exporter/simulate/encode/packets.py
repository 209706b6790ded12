"""The first octets of the packets that flows are made of, as a switch would copy them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, FlowBatch
from exporter.simulate.encode.columns import octets

_ETHERTYPES: Final = {4: 0x0800, 6: 0x86DD}
_IP_OCTETS: Final = {4: 20, 6: 40}
_TCP: Final = 6
_UDP: Final = 17
_ICMP: Final = {4: 1, 6: 58}
#: Shortest transport header of the protocols that get one.
_TRANSPORT_OCTETS: Final = {_TCP: 20, _UDP: 8, 1: 8, 58: 8}


def packet_headers(
    family: int, batch: FlowBatch, lengths: NDArray[np.int64], icmp: Array, limit: int
) -> NDArray[np.uint8]:
    """Ethernet (no VLAN tag), IPv4 (RFC 791) or IPv6 (RFC 8200) and TCP, UDP or ICMP headers.

    ``lengths`` are whole IP packets in octets; the result is ``(n, limit)``, zeros behind each
    header. The IPv4 header checksum is right; checksums over the payload are 0.

    Raises:
        ValueError: a length is too short for its own headers or over 65535.
    """
    proto = batch.array("proto")
    ip_octets = _IP_OCTETS[family]
    least = np.full(256, ip_octets, np.int64)
    for number, size in _TRANSPORT_OCTETS.items():
        least[number] += size
    if (lengths < least[proto]).any() or (lengths > 0xFFFF).any():
        raise ValueError("a packet's length does not hold its headers, or is over 65535")

    out = np.zeros((len(batch), limit), np.uint8)
    out[:, 0:6] = octets(batch.array("dst_mac"), 6)
    out[:, 6:12] = octets(batch.array("src_mac"), 6)
    out[:, 12:14] = np.array([_ETHERTYPES[family]], ">u2").view(np.uint8)
    ip = out[:, 14 : 14 + ip_octets]
    if family == 4:
        _ipv4(ip, batch, lengths)
    else:
        _ipv6(ip, batch, lengths)
    transport = out[:, 14 + ip_octets :]
    _transport(transport, batch, lengths - ip_octets, icmp, _ICMP[family])
    return out


def _ipv4(ip: NDArray[np.uint8], batch: FlowBatch, lengths: NDArray[np.int64]) -> None:
    ip[:, 0] = 0x45
    ip[:, 1] = batch.array("tos")
    ip[:, 2:4] = octets(lengths, 2)
    ip[:, 6] = 0x40  # don't fragment
    ip[:, 8] = _hops(batch)
    ip[:, 9] = batch.array("proto")
    ip[:, 12:16] = batch.array("src_addr")[:, 12:]
    ip[:, 16:20] = batch.array("dst_addr")[:, 12:]
    total = ip[:, 0::2].astype(np.uint32).sum(axis=1) * 256 + ip[:, 1::2].sum(axis=1)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    ip[:, 10:12] = octets(0xFFFF - total, 2)


def _ipv6(ip: NDArray[np.uint8], batch: FlowBatch, lengths: NDArray[np.int64]) -> None:
    first = (
        np.uint32(6 << 28)
        | batch.array("tos").astype(np.uint32) << 20
        | batch.array("flow_label") & 0xFFFFF
    )
    ip[:, 0:4] = octets(first, 4)
    ip[:, 4:6] = octets(lengths - 40, 2)
    ip[:, 6] = batch.array("proto")
    ip[:, 7] = _hops(batch)
    ip[:, 8:24] = batch.array("src_addr")
    ip[:, 24:40] = batch.array("dst_addr")


def _hops(batch: FlowBatch) -> Array:
    ttl = batch.array("ttl")
    return np.where(ttl == 0, 64, ttl)


def _transport(
    out: NDArray[np.uint8], batch: FlowBatch, lengths: NDArray[np.int64], icmp: Array, icmp_is: int
) -> None:
    proto = batch.array("proto")
    ported = np.isin(proto, (_TCP, _UDP))
    out[:, 0:2] = np.where(ported[:, None], octets(batch.array("src_port"), 2), 0)
    out[:, 2:4] = np.where(ported[:, None], octets(batch.array("dst_port"), 2), 0)
    tcp = proto == _TCP
    out[:, 12] = np.where(tcp, 0x50, 0)
    out[:, 13] = np.where(tcp, batch.array("tcp_flags") & 0xFF, 0)
    udp = proto == _UDP
    out[:, 4:6] = np.where(udp[:, None], octets(lengths, 2), 0)
    is_icmp = proto == icmp_is
    out[:, 0:2] = np.where(is_icmp[:, None], octets(icmp, 2), out[:, 0:2])
