"""Packets inside of tunnels as flows, where that is asked for."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import config
from exporter.batch import FlowBatch
from exporter.decode import Decoder
from exporter.decode.packet import ETHERNET, IPV4, IPV6, PADDING, dissect
from exporter.decode.tunnels import dissect_inner
from tests.support import frames as f
from tests.support import sflow as s
from tests.support.netflow import batch, ipfix, set_of, template10

UDP = f.udp(b"payload", 53, 5353)
INNER4 = f.ipv4(UDP, "10.0.0.1", "10.0.0.2", ttl=9, tos=4)
INNER6 = f.ipv6(UDP, "fd00::1", "fd00::2", hop_limit=8, label=77)
VXLAN = struct.pack("!II", 0x08000000, 42 << 8)


def gre(packet: bytes, kind: int, flags: int = 0) -> bytes:
    words = bytes(4 * bin(flags & 0xB000).count("1"))
    return f.ipv4(struct.pack("!HH", flags, kind) + words + packet, proto=47)


def udp(header: bytes, port: int, packet: bytes) -> bytes:
    return f.ipv4(f.udp(header + packet, 40000, port))


def geneve(packet: bytes, kind: int, options: int = 0) -> bytes:
    return udp(struct.pack("!BBHI", options, 0, kind, 42 << 8) + bytes(4 * options), 6081, packet)


def rows(packets: Sequence[bytes], read: Any = dissect_inner) -> list[dict[str, Any]]:
    data = np.frombuffer(b"".join(packets) + bytes(PADDING), np.uint8)
    ends = np.cumsum([len(packet) for packet in packets])
    starts = ends - [len(packet) for packet in packets]
    first = [ETHERNET if p[0] == 2 else IPV4 if p[0] >> 4 == 4 else IPV6 for p in packets]
    columns = read(data, starts, ends, np.array(first, np.uint16))
    return list(FlowBatch(len(packets), columns).rows())


TUNNELS = {
    "IPv4 in IPv4": f.ipv4(INNER4, proto=4),
    "IPv4 in IPv6": f.ipv6(INNER4, following=4),
    "GRE": gre(INNER4, 0x0800),
    "GRE with checksum, key and sequence": gre(INNER4, 0x0800, 0xB000),
    "NVGRE": gre(f.ethernet(INNER4, [(0x8100, 5)]), 0x6558, 0x2000),
    "ERSPAN I": gre(f.ethernet(INNER4), 0x88BE),
    "ERSPAN II": gre(bytes(8) + f.ethernet(INNER4), 0x88BE, 0x1000),
    "VXLAN": udp(VXLAN, 4789, f.ethernet(INNER4)),
    "VXLAN of Linux": udp(VXLAN, 8472, f.ethernet(INNER4)),
    "Geneve": geneve(f.ethernet(INNER4), 0x6558, 3),
    "Geneve of IP": geneve(INNER4, 0x0800),
}


@pytest.mark.parametrize("packet", TUNNELS.values(), ids=TUNNELS)
def test_the_packet_inside_is_the_flow(packet: bytes) -> None:
    frame = f.ethernet(packet, [(0x8100, 100)])
    plain, inner = rows([f.ethernet(INNER6), frame])
    assert (plain["src_addr"], plain["flow_label"], plain["ttl"]) == ("fd00::1", 77, 8)
    assert (inner["src_addr"], inner["dst_addr"]) == ("10.0.0.1", "10.0.0.2")
    assert (inner["etype"], inner["proto"]) == (0x0800, 17)
    assert (inner["src_port"], inner["dst_port"]) == (53, 5353)
    assert (inner["ttl"], inner["tos"], inner["flow_label"]) == (9, 4, 0)
    # What the wire carries stays.
    assert (inner["src_vlan"], inner["src_mac"]) == (100, "02:00:00:00:00:01")


def test_ipv6_inside_of_ipv4() -> None:
    for packet in (f.ipv4(INNER6, proto=41), gre(INNER6, 0x86DD)):
        (row,) = rows([packet])
        assert (row["src_addr"], row["etype"], row["dst_port"]) == ("fd00::1", 0x86DD, 5353)
        assert row["flow_label"] == 77


OTHERS = {
    "another port": udp(VXLAN, 4790, f.ethernet(INNER4)),
    "no VXLAN behind its port": udp(bytes(8), 4789, f.ethernet(INNER4)),
    "PPTP, version 1 of GRE": gre(INNER4, 0x0800, 0x2001),
    "GRE with routing": gre(INNER4, 0x0800, 0x4000),
    "ARP inside": udp(VXLAN, 4789, f.ethernet(bytes(28), ethertype=0x0806)),
    "cut before the addresses": udp(VXLAN, 4789, f.ethernet(INNER4))[: 20 + 16 + 14 + 19],
    "a protocol of GRE that is no EtherType": gre(
        b"\x08\0" + bytes(22) + b"\xaa\xaa\x03\0\0\0\x08\0" + INNER4, 1
    ),
    "cut in GRE": gre(INNER4, 0x0800)[:22],
    "a later fragment": f.ipv4(INNER4, proto=4, fragment=10),
    "no tunnel": INNER4,
}


@pytest.mark.parametrize("packet", OTHERS.values(), ids=OTHERS)
def test_what_has_no_packet_inside_stays_what_it_is(packet: bytes) -> None:
    others = [f.ethernet(INNER6), packet]
    assert rows(others) == rows(others, dissect)


def test_a_tunnel_is_the_flow_unless_told_otherwise() -> None:
    packet = TUNNELS["VXLAN"]
    sample = s.datagram([s.flow_sample([s.raw_header(f.ethernet(packet))])])
    section = ipfix(template10(256, [(313, len(packet))]), set_of(256, packet))
    for inner, expected in ((False, "192.0.2.1"), (True, "10.0.0.1")):
        decoder = Decoder(config.Decode(inner_packets=inner), [])
        found = [row for b in decoder.decode(batch(sample, section)) for row in b.rows()]
        assert [row["src_addr"] for row in found] == [expected] * 2
        # Counted is what the wire carried.
        assert {row["bytes"] for row in found} == {len(packet), 100 * (len(packet) + 14 + 4)}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*TUNNELS.values()]), st.binary(max_size=40), st.integers(0, 90)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_any_bytes_give_what_they_give_alone(parts: list[tuple[bytes, bytes, int]]) -> None:
    packets = [packet[:at] + junk + packet[at:][: len(junk)] for packet, junk, at in parts]
    packets = [packet or b"\0" for packet in packets]
    empty = (0, "::", "00:00:00:00:00:00", [])

    def filled(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if value not in empty}

    together = [filled(row) for row in rows(packets)]
    assert together == [filled(rows([packet])[0]) for packet in packets]
