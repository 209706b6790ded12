"""Columns that follow from others: EtherType, prefixes, ICMP, labels, DNS, latency, tunnels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from exporter.address import is_ipv4
from exporter.batch import DTYPES, Array
from exporter.decode import values
from exporter.decode.layout import Layout
from exporter.schema import BY_NAME

_ICMP: Final = 1
_ICMPV6: Final = 58
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_LONGEST_IPV4: Final = 32
_DNS: Final = 53
_NO_ERROR: Final = "NOERROR"
_CODES: Final = 256
_ICMP_COLUMNS: Final = ("icmp_type", "icmp_code")
_PORTS: Final = {"src_port", "dst_port"}
_SERVER: Final = "SERVER_IS_LOCAL"
_CLIENT: Final = "CLIENT_IS_LOCAL"

#: Columns of a packet in a tunnel.
_INNER: Final = ("src_addr", "dst_addr", "proto", "src_port", "dst_port")


def ether_type(columns: dict[str, Any], count: int, layout: Layout) -> bool:
    """``etype`` from the addresses, or the IP version, where the record does not tell it.

    Returns:
        Whether it is plain that none of sources and destinations is IPv4.
    """
    version = columns.pop("ip_version", None)
    told = columns.get("etype")
    present = [columns[name] for name in ("src_addr", "dst_addr") if name in columns]
    if not present:
        if told is None and version is not None:
            columns["etype"] = np.select([version == 4, version == 6], [_IPV4, _IPV6], 0).astype(
                np.uint16
            )
        return True
    first, second = present[0], present[-1]
    only_ipv6 = not layout.ipv4 and values.no_ipv4(first) and values.no_ipv4(second)
    if layout.ipv4 or only_ipv6:
        derived = np.broadcast_to(np.uint16(_IPV4 if layout.ipv4 else _IPV6), count)
    else:
        ipv4, other = is_ipv4(first), is_ipv4(second)
        # An address of 0 has no family of its own; two of them have that of the IP version, if it
        # is told, and may be no addresses at all.
        empty = [values.no_address(addresses) for addresses in (first, second)]
        none = empty[0] & empty[1]
        known = np.zeros(count, np.uint8) if version is None else version
        ipv4 = np.where(none, known == 4, np.where(empty[0], other, ipv4))
        derived = np.select([ipv4, ~none | (known == 6)], [_IPV4, _IPV6], 0).astype(np.uint16)
        for addresses in present:
            addresses[values.no_address(addresses) & ~ipv4] = 0
    columns["etype"] = derived if told is None else values.fill(told, derived)
    return only_ipv6


def prefix_lengths(columns: dict[str, Any]) -> None:
    """No length of an IPv6 prefix for an IPv4 address.

    Records of a packet in a tunnel tell addresses of both headers and perhaps lengths of one.
    """
    for side in ("src", "dst"):
        addresses, lengths = columns.get(f"{side}_addr"), columns.get(f"{side}_prefix_len")
        if addresses is None or lengths is None or values.no_ipv4(addresses):
            continue
        wrong = (lengths > _LONGEST_IPV4) & is_ipv4(addresses)
        if wrong.any():
            columns[f"{side}_prefix_len"] = np.where(wrong, np.uint8(0), lengths)


def firewall(columns: dict[str, Any]) -> None:
    """``forwarding_status`` from a firewall's event, where nothing else tells it."""
    event = columns.pop("firewall_event", None)
    if event is not None:
        status = values.firewall_event(event)
        told = columns.get("forwarding_status")
        columns["forwarding_status"] = status if told is None else values.fill(told, status)


def icmp(columns: dict[str, Any]) -> None:
    """ICMP type and code from their common element, or else from the destination port.

    Devices with NetFlow v5 habits put type * 256 + code there and leave the source port 0. Where
    type and code are zero and that port is not, it is what tells them. Type 0 has no codes: a port
    below 256 is a type (Procera).
    """
    both = columns.pop("icmp", None)
    if both is not None:
        _fill_icmp(columns, both)
    if "proto" not in columns or "dst_port" not in columns:
        return
    proto = columns["proto"]
    rows = (proto == _ICMP) | (proto == _ICMPV6)
    if not rows.any():
        return
    for name in ("src_port", *_ICMP_COLUMNS):
        if name in columns:
            rows &= columns[name] == 0
    if rows.any() or "icmp_type" not in columns:
        port = columns["dst_port"]
        both = np.where(port < _CODES, port * np.uint16(_CODES), port)
        _fill_icmp(columns, np.where(rows, both, np.uint16(0)))


def _fill_icmp(columns: dict[str, Any], both: Array) -> None:
    for name, part in zip(_ICMP_COLUMNS, (both >> 8, both & 0xFF), strict=True):
        part = part.astype(np.uint8)
        known = columns.get(name)
        columns[name] = part if known is None else values.fill(known, part)


def subscriber(columns: dict[str, Any], count: int) -> None:
    """Both directions of a flow whose counters are those to and from a subscriber.

    The source is the client. Where nothing tells which end the subscriber is and nothing went out,
    what came in is the direction of the record.
    """
    behavior = columns.pop("behavior", None)
    counters = {}
    for name in ("bytes", "packets"):
        both = [columns.pop(f"{way}_{name}", None) for way in ("incoming", "outgoing")]
        if name not in columns and any(counter is not None for counter in both):
            none = np.zeros(count, np.uint64)
            counters[name] = [none if counter is None else counter for counter in both]
    if not counters:
        return
    inward = ~np.logical_or.reduce([outgoing != 0 for _, outgoing in counters.values()])
    if behavior is not None:
        ends = [(_SERVER in text, _CLIENT in text) for text in behavior.values]
        server, client = np.array(ends, bool)[behavior.codes].T
        inward = server | (inward & ~client)
    for name, (incoming, outgoing) in counters.items():
        columns[name] = np.where(inward, incoming, outgoing)
        columns[f"reverse_{name}"] = np.where(inward, outgoing, incoming)


def dns(columns: dict[str, Any]) -> None:
    """No ``dns_rcode`` where nothing but a code of 0, NOERROR, speaks for DNS.

    Probes export all fields of a template for all flows, with 0 where there was no response.
    """
    told = columns.get("dns_rcode")
    if told is None or _NO_ERROR not in told.values or not columns.keys() >= _PORTS:
        return
    rows = told.codes == told.values.index(_NO_ERROR)
    for port in _PORTS:
        rows &= columns[port] != _DNS
    names = columns.get("dns_name")
    if names is not None:
        rows &= np.array([not name for name in names.values], np.bool_)[names.codes]
    if rows.any():
        codes = np.where(rows, np.uint32(len(told.values)), told.codes)
        columns["dns_rcode"] = values.texts(codes, [*told.values, ""])


def round_trip(columns: dict[str, Any]) -> None:
    """``rtt`` from the half round trips to client and server that a probe between them saw."""
    sides = [columns.pop(name, None) for name in ("client_latency", "server_latency")]
    told = [side for side in sides if side is not None]
    if told and "rtt" not in columns:
        columns["rtt"] = (2 * sum(side.astype(np.float32) for side in told) / 1e3).astype(
            np.float32
        )


def inner_packets(columns: dict[str, Any], *, wanted: bool) -> None:
    """The packet in a tunnel in place of the tunnel's, where it is told and ``wanted``."""
    told = {name: columns.pop(f"inner_{name}", None) for name in _INNER}
    source = told["src_addr"]
    if source is None or not wanted:
        return
    rows = ~values.no_address(source)
    for name, inner in told.items():
        outer = columns.get(name)
        if outer is None and inner is not None:
            outer = np.zeros(inner.shape, DTYPES[BY_NAME[name].kind])
        if outer is not None:
            columns[name] = changed = outer.copy()
            changed[rows] = 0 if inner is None else inner[rows]
    if "etype" in columns:  # told of the tunnel
        columns["etype"] = np.where(rows, np.uint16(0), columns["etype"])


def mpls(columns: dict[str, Any]) -> None:
    """``mpls_labels`` from the entries of each depth, 20 bits of label and 4 of the rest.

    Those of 0 are not told; a label of 0 (IPv4 explicit null) marks the bottom of its stack.
    """
    depths = [columns.pop(f"mpls_label_{depth}", None) for depth in range(1, 11)]
    told = [label for label in depths if label is not None]
    if not told:
        return
    stacks = np.stack(told, axis=1).astype(np.uint32)
    lacking = stacks == 0
    told_first = np.argsort(lacking, axis=1, kind="stable")
    stacks = np.take_along_axis(stacks, told_first, axis=1) >> np.uint32(4)
    columns["mpls_labels"] = values.label_stacks(stacks, (~lacking).sum(axis=1))
