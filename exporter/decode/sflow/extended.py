"""Records of sFlow samples about what the device knows of a packet, as columns.

Sources: sflow.org, "sFlow Version 5" (sflow_version_5.txt); for translated ports, TCP and the time
the list of structures at https://sflow.org/developers/structures.php.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import DictColumn
from exporter.decode import values
from exporter.decode.sflow.packets import Packets, Rows, addressed, chosen_rows
from exporter.decode.sflow.walk import Buffer, Index, Words

_MAX_SEGMENTS: Final = 16
_MAX_LABELS: Final = 8
_LONGEST_PREFIX: Final = 128


def switch(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """VLANs by which the frame came and goes."""
    # source VLAN and priority, destination VLAN and priority
    del end
    for name, position in (("src_vlan", body), ("dst_vlan", body + 2)):
        vlan = buffer.words[position].astype(np.uint32)
        known = vlan <= 4095  # 0xFFFFFFFF: unknown
        if known.all():
            packets.put(name, rows, vlan.astype(np.uint16))
        else:
            packets.put(name, chosen_rows(rows, known), vlan[known].astype(np.uint16))


def vlan_tunnel(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """VLAN tags that the device took off before it sampled, the outermost first."""
    # number of tags, each 16 bits of protocol and 16 of control information
    depth = buffer.words[body].astype(np.int64)
    packets.bad[chosen_rows(rows, body + 1 + depth > end)] = True
    tagged = (depth > 0) & (body + 1 + depth <= end)
    tag = buffer.words[body[tagged] + 1].astype(np.uint32)
    packets.put_missing("src_vlan", chosen_rows(rows, tagged), (tag & 0xFFF).astype(np.uint16))


def router(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """Next hop, and the lengths of the prefixes in the routing table."""
    # next hop, prefix lengths of source and destination
    for hops in addressed(packets, buffer, rows, body, end, 2):
        packets.put("next_hop", hops.rows, hops.address)
        packets.put("src_prefix_len", hops.rows, _prefix_lengths(hops.rest[:, 0]))
        packets.put("dst_prefix_len", hops.rows, _prefix_lengths(hops.rest[:, 1]))


def _prefix_lengths(told: Words) -> NDArray[np.uint8]:
    """Lengths in bits; agents exist that tell the mask instead, 255.255.255.0 for 24."""
    if told.max(initial=0) > _LONGEST_PREFIX:
        told = np.where(told > _LONGEST_PREFIX, np.bitwise_count(told), told)
    return told.astype(np.uint8)


def gateway(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """What BGP knows of source and destination."""
    # next hop, own AS, source AS, source peer AS, number of path segments and these, communities,
    # local preference
    for hops in addressed(packets, buffer, rows, body, end, 4):
        # The router's next hop is where the packet went; BGP's stands in for it.
        packets.put_missing("next_hop", hops.rows, hops.address)
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


def mpls(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """The labels that a packet came with, else those that it leaves with, and its next hop."""
    # next hop, number of labels and these, the same of those it leaves with
    words = buffer.words
    for hops in addressed(packets, buffer, rows, body, end, 2):
        packets.put_missing("next_hop", hops.rows, hops.address)
        depth = hops.rest[:, 0].astype(np.int64)
        first = hops.after + 1
        last = np.minimum(first + depth, hops.end)
        leaving = words[last].astype(np.int64)
        whole = first + depth + 1 + leaving <= hops.end
        packets.bad[chosen_rows(hops.rows, ~whole)] = True
        begin = np.where(depth > 0, first, last + 1)
        told = np.where(whole, np.where(depth > 0, depth, leaving), 0)
        packets.put_dictionary("mpls_labels", hops.rows, _labels(words, begin, told), ())


def _labels(words: Words, begin: Index, depth: Index) -> DictColumn:
    """Stacks of ``depth`` entries as RFC 3032 draws them; the label is the upper 20 bits."""
    stacks = np.zeros((len(begin), _MAX_LABELS), np.uint32)
    for level in range(_MAX_LABELS):
        inside = np.flatnonzero(depth > level)
        stacks[inside, level] = words[begin[inside] + level] >> 12
    return values.label_stacks(stacks, depth)


def nat(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """Translated addresses."""
    # source, destination
    for source in addressed(packets, buffer, rows, body, end, 1):
        packets.put("nat_src_addr", source.rows, source.address)
        for target in addressed(packets, buffer, source.rows, source.after, source.end, 0):
            packets.put("nat_dst_addr", target.rows, target.address)


def nat_port(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """Translated ports."""
    # source, destination
    del end
    packets.put("nat_src_port", rows, buffer.words[body].astype(np.uint16))
    packets.put("nat_dst_port", rows, buffer.words[body + 1].astype(np.uint16))


def tcp_info(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """The smoothed round-trip time of a host's connection."""
    # direction, segment sizes of both sides, packets in flight, lost, sent again, path MTU,
    # round-trip time in microseconds, …
    del end
    packets.put("rtt", rows, (buffer.words[body + 7] / 1e6).astype(np.float32))


def timestamp(packets: Packets, buffer: Buffer, rows: Rows, body: Index, end: Index) -> None:
    """When the device saw the packet."""
    # nanoseconds since the epoch, 64 bits
    del end
    words: NDArray[np.uint32] = buffer.words
    nanoseconds = words[body].astype(np.uint64) << np.uint64(32) | words[body + 1]
    if packets.observed is None:
        packets.observed = np.zeros(packets.length, np.int64)
    packets.observed[rows] = (nanoseconds // np.uint64(1_000_000)).astype(np.int64)
