"""Dissecting packet headers into columns."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.batch import FlowBatch
from exporter.decode.packet import ETHERNET, IPV4, IPV6, MPLS, PADDING, dissect
from tests.support import frames as f


def dissected(packets: Sequence[bytes], first: int = ETHERNET) -> list[dict[str, Any]]:
    """One dict of all columns per packet."""
    data = np.frombuffer(b"".join(packets) + bytes(PADDING), np.uint8)
    ends = np.cumsum([len(packet) for packet in packets])
    starts = ends - [len(packet) for packet in packets]
    columns = dissect(data, starts, ends, np.full(len(packets), first, np.uint16))
    return list(FlowBatch(len(packets), columns).rows())


def tcp(flags: int = 0x12) -> bytes:
    return struct.pack("!HHIIHHHH", 443, 50000, 1, 2, 0x5000 | flags, 100, 0, 0)


UDP = f.udp(b"payload", 53, 5353)


def test_a_tcp_packet_gives_all_columns() -> None:
    packet = f.ethernet(f.ipv4(tcp(0x112), "192.0.2.1", "198.51.100.2", 6, ttl=61, tos=0xB8))
    assert dissected([packet]) == [
        {
            "src_mac": "02:00:00:00:00:01", "dst_mac": "02:00:00:00:00:02", "etype": 0x0800,
            "src_addr": "192.0.2.1", "dst_addr": "198.51.100.2", "proto": 6, "tos": 0xB8,
            "ttl": 61, "src_port": 443, "dst_port": 50000, "tcp_flags": 0x112,
        }
    ]  # fmt: skip


def test_an_ipv6_packet_gives_its_class_and_label() -> None:
    packet = f.ipv6(UDP, "2001:db8::a", "2001:db8::b", 17, 3, 0x2E, 0xABCDE)
    (row,) = dissected([packet], IPV6)
    assert row["src_addr"] == "2001:db8::a"
    assert row["dst_addr"] == "2001:db8::b"
    assert (row["ttl"], row["tos"], row["flow_label"]) == (3, 0x2E, 0xABCDE)
    assert (row["proto"], row["src_port"], row["dst_port"]) == (17, 53, 5353)


@pytest.mark.parametrize(("proto", "make"), [(1, f.ipv4), (58, f.ipv6)])
def test_icmp_gives_type_and_code_and_no_ports(proto: int, make: Any) -> None:
    packet = make(bytes([3, 13]) + bytes(6), **{"proto" if make is f.ipv4 else "following": proto})
    (row,) = dissected([packet], IPV4 if make is f.ipv4 else IPV6)
    assert (row["icmp_type"], row["icmp_code"]) == (3, 13)
    assert (row["src_port"], row["dst_port"], row["tcp_flags"]) == (0, 0, 0)


def test_the_outer_vlan_tag_is_taken_and_all_are_passed() -> None:
    tags = [(0x88A8, 0xE000 | 100), (0x8100, 200)]
    rows = dissected([f.ethernet(f.ipv4(UDP), tags), f.ethernet(f.ipv6(UDP), tags[1:])])
    assert [(r["src_vlan"], r["etype"], r["dst_port"]) for r in rows] == [
        (100, 0x0800, 5353),
        (200, 0x86DD, 5353),
    ]


def test_mpls_labels_come_from_the_top() -> None:
    stack = struct.pack("!III", 1000 << 12 | 64, 2000 << 12 | 64, 3000 << 12 | 0x100 | 64)
    rows = dissected([f.ethernet(stack + f.ipv6(UDP), ethertype=0x8847), f.ethernet(f.ipv4(UDP))])
    assert [r["mpls_labels"] for r in rows] == [[1000, 2000, 3000], []]
    assert [(r["etype"], r["dst_port"]) for r in rows] == [(0x86DD, 5353), (0x0800, 5353)]
    (row,) = dissected([stack + f.ipv4(UDP)], MPLS)
    assert row["mpls_labels"] == [1000, 2000, 3000]
    assert row["proto"] == 17


def test_a_frame_in_a_pseudowire_is_looked_into() -> None:
    labels = struct.pack("!II", 300012 << 12 | 64, 17 << 12 | 0x100 | 64)
    inner = [f.ethernet(f.ipv4(UDP), [(0x8100, 55)]), f.ethernet(f.ipv6(UDP))]
    wires = [f.ethernet(labels + bytes(4) + frame, [(0x8100, 9)], 0x8847) for frame in inner]
    rows = dissected([*wires, f.ethernet(f.ipv4(UDP))])
    assert [(r["etype"], r["dst_port"]) for r in rows] == [
        (0x0800, 5353), (0x86DD, 5353), (0x0800, 5353),
    ]  # fmt: skip
    assert [r["mpls_labels"] for r in rows] == [[300012, 17], [300012, 17], []]
    assert [r["src_vlan"] for r in rows] == [9, 9, 0]


def test_what_follows_labels_without_a_control_word_is_not_guessed_at() -> None:
    label = struct.pack("!I", 17 << 12 | 0x100 | 64)
    for follows in (f.ethernet(f.ipv4(UDP)), bytes(4), bytes(17), b"\0\0\0\1" + bytes(40)):
        (row,) = dissected([f.ethernet(label + follows, ethertype=0x8847)])
        assert (row["etype"], row["proto"], row["src_addr"]) == (0x8847, 0, "::")


def test_pppoe_and_snap_are_passed() -> None:
    pppoe = struct.pack("!BBHHH", 0x11, 0, 1, 0, 0x57) + f.ipv6(UDP)
    snap = bytes.fromhex("aaaa03000000") + b"\x08\x00" + f.ipv4(UDP)
    rows = dissected([f.ethernet(pppoe, ethertype=0x8864), f.ethernet(snap, ethertype=len(snap))])
    assert [(r["etype"], r["dst_port"]) for r in rows] == [(0x86DD, 5353), (0x0800, 5353)]


def test_snap_is_passed_behind_a_tag_and_before_it() -> None:
    """IEEE 802.1Q has both: the tag before a length and LLC, and in the place of SNAP's type."""
    snap = bytes.fromhex("aaaa03000000")
    inner = snap + b"\x08\x00" + f.ipv4(UDP)
    tagged = f.ethernet(inner, [(0x8100, 7)], len(inner))
    inside = snap + struct.pack("!HHH", 0x8100, 7, 0x0800) + f.ipv4(UDP)
    rows = dissected([tagged, f.ethernet(inside, ethertype=len(inside))])
    assert [(r["etype"], r["src_vlan"], r["dst_port"]) for r in rows] == [(0x0800, 7, 5353)] * 2


def test_a_length_is_no_ethertype_behind_a_tag_either() -> None:
    spanning_tree = bytes.fromhex("424203") + bytes(35)
    (row,) = dissected([f.ethernet(spanning_tree, [(0x8100, 7)], len(spanning_tree))])
    assert (row["etype"], row["src_vlan"], row["proto"]) == (0, 7, 0)


def test_what_follows_an_extension_header_that_is_cut_is_known() -> None:
    (row,) = dissected([f.ipv6(bytes([17, 3, 0, 0, 0]), following=43)], IPV6)
    assert (row["proto"], row["dst_port"]) == (17, 0)


def test_ipv6_extension_headers_are_passed() -> None:
    hop_by_hop = bytes([43, 0]) + bytes(6)
    routing = bytes([51, 1]) + bytes(14)
    authentication = bytes([60, 2]) + bytes(14)
    options = bytes([17, 1]) + bytes(14)
    packet = f.ipv6(hop_by_hop + routing + authentication + options + UDP, following=0)
    (row,) = dissected([packet], IPV6)
    assert (row["proto"], row["src_port"], row["dst_port"]) == (17, 53, 5353)


def test_only_a_first_fragment_has_ports() -> None:
    fragment = struct.pack("!BBHI", 17, 0, 1, 77)
    later = struct.pack("!BBHI", 17, 0, 1480 | 1, 77)
    v6 = [f.ipv6(head + UDP, following=44) for head in (fragment, later)]
    v4 = [f.ipv4(UDP, fragment=0x2000), f.ipv4(UDP, fragment=185)]
    for rows in (dissected(v6, IPV6), dissected(v4, IPV4)):
        assert [(r["proto"], r["dst_port"]) for r in rows] == [(17, 5353), (17, 0)]


def test_ipv4_options_are_passed() -> None:
    (row,) = dissected([f.ipv4(UDP, options=bytes(12))], IPV4)
    assert row["dst_port"] == 5353


@pytest.mark.parametrize("length", range(0, 54))
def test_a_cut_header_leaves_zeros_and_its_neighbours_alone(length: int) -> None:
    whole = f.ethernet(f.ipv4(tcp(), proto=6))
    before, cut, after = dissected([whole, whole[:length], whole])
    assert before == after
    assert before["tcp_flags"] == 0x12
    assert (cut["src_mac"] != "00:00:00:00:00:00") == (length >= 14)
    assert (cut["src_addr"] == "192.0.2.1") == (length >= 34)
    assert cut["src_port"] == (443 if length >= 38 else 0)
    assert cut["tcp_flags"] == (0x12 if length >= 48 else 0)


def test_what_is_not_ip_keeps_its_ethertype() -> None:
    arp, spanning_tree, unknown = (
        dissected([f.ethernet(bytes(46), ethertype=kind)])[0] for kind in (0x0806, 38, 0x88CC)
    )
    assert (arp["etype"], arp["proto"]) == (0x0806, 0)
    assert spanning_tree["etype"] == 0
    assert unknown["etype"] == 0x88CC


def test_bytes_of_unknown_beginning_are_not_looked_into() -> None:
    (row,) = dissected([f.ipv4(UDP)], 0)
    assert not any(v for k, v in row.items() if not k.endswith(("_mac", "_addr")))


PIECES = [
    f.ethernet(f.ipv4(tcp(), proto=6)),
    f.ethernet(f.ipv6(UDP), [(0x8100, 5)] * 6),
    f.ethernet(struct.pack("!I", 5 << 12) * 12, ethertype=0x8847),
    f.ethernet(f.ipv6(bytes([0, 0] + [0] * 6) * 12, following=0)),
]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=100),
            st.tuples(st.sampled_from(PIECES), st.integers(0, 120), st.binary(max_size=8)).map(
                lambda t: t[0][: t[1]] + t[2]
            ),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([ETHERNET, IPV4, IPV6, MPLS, 0, 0x8864, 0x8100]),
)
def test_any_bytes_give_what_they_give_alone(packets: list[bytes], first: int) -> None:
    together = dissected(packets, first)
    for packet, row in zip(packets, together, strict=True):
        alone = dissected([packet], first)[0]
        # A column that only others of the batch have is zero here.
        assert alone.items() <= row.items()
        assert not any(v for k, v in row.items() if k not in alone)
