"""sFlow version 5: samples become flows, counters become metrics, faults cost only themselves."""

from __future__ import annotations

import functools
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from exporter import config
from exporter.decode.elements import ElementTable
from exporter.decode.sflow import SflowDecoder
from exporter.decode.sflow.accounting import SflowCollector
from exporter.decode.sflow.interfaces import (
    EXPIRE_MILLISECONDS,
    MAX_INTERFACES,
    MAX_OF_OTHERS,
    InterfaceCollector,
    InterfaceCounters,
)
from exporter.decode.state import State
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import Source
from tests.support import frames as f
from tests.support import sflow as s

SENDER = bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
AGENT = bytes(10) + b"\xff\xff\xc0\x00\x02\x09"

TCP = struct.pack("!HHIIHHHH", 443, 50000, 1, 2, 0x5012, 100, 0, 0)
FRAME = f.ethernet(f.ipv4(TCP, "192.0.2.1", "198.51.100.2", 6))


@functools.cache
def now() -> int:
    """When the first of these tests runs, milliseconds: perhaps long after they were collected."""
    return time.time_ns() // 1_000_000


class Decoding:
    """A decoder whose state is at hand."""

    def __init__(self, *devices: config.Device, **settings: int) -> None:
        decode = config.Decode.model_validate(settings)
        self.state = State(decode, devices, ElementTable(()))
        self.decoder = SflowDecoder(decode, devices, self.state)

    def rows(self, *payloads: bytes, later: int = 0) -> list[dict[str, Any]]:
        """Flows of datagrams received ``later`` seconds after the first."""
        count = len(payloads)
        senders = np.frombuffer(SENDER * count, np.uint8).reshape(count, 16)
        batch = DatagramBatch.of(
            payloads,
            senders,
            np.zeros(count, np.uint16),
            np.full(count, now() + later * 1000, np.int64),
        )
        return [row for flows in self.decoder.decode(batch) for row in flows.rows()]

    def errors(self) -> dict[str, int]:
        total = self.state.elsewhere.errors.copy()
        for device in self.state.devices.values():
            total += device.errors
        return dict(total)

    def stream(self, sub_agent: int = 7) -> Any:
        return self.state.devices[AGENT].streams[(Source.SFLOW5, sub_agent)]


@pytest.fixture
def sflow() -> Decoding:
    return Decoding()


def test_a_sample_is_a_flow_of_as_many_packets_as_it_stands_for(sflow: Decoding) -> None:
    sample = s.flow_sample([s.raw_header(FRAME, length=1000)], rate=512)
    (row,) = sflow.rows(s.datagram([sample], agent="192.0.2.9", sub_agent=7))
    assert row["device_addr"] == "192.0.2.9"
    assert row["observation_domain"] == 7
    assert row["source"] == "sflow5"
    assert (row["sampling_rate"], row["sampling_source"]) == (512, "record")
    assert (row["packets"], row["bytes"]) == (512, 512_000)
    assert row["time_received"] == row["time_flow_start"] == row["time_flow_end"]
    assert row["time_source"] == "received"
    assert (row["in_if"], row["out_if"], row["direction"]) == (3, 4, "ingress")
    assert (row["src_addr"], row["dst_addr"]) == ("192.0.2.1", "198.51.100.2")
    assert (row["proto"], row["src_port"], row["dst_port"]) == (6, 443, 50000)
    assert row["tcp_flags"] == 0x12
    assert row["src_mac"] == "02:00:00:00:00:01"
    assert sflow.errors() == {}
    assert sflow.stream().records == 1


def test_expanded_samples_have_interfaces_of_32_bits(sflow: Decoding) -> None:
    sample = s.expanded_flow_sample(
        [s.raw_header(FRAME)], source=(0, 2**31), in_if=(0, 2**30 + 5), out_if=(0, 2**31)
    )
    (row,) = sflow.rows(s.datagram([sample]))
    assert (row["in_if"], row["out_if"]) == (2**30 + 5, 2**31)
    assert row["direction"] == "egress"


def test_no_several_and_unknown_interfaces_read_zero(sflow: Decoding) -> None:
    plain = [s.flow_sample([s.raw_header(FRAME)], in_if=0x3FFFFFFF, out_if=2 << 30 | 5)]
    expanded = [s.expanded_flow_sample([s.raw_header(FRAME)], in_if=(0, 0xFFFFFFFF), out_if=(2, 5))]
    for row in sflow.rows(s.datagram(plain), s.datagram(expanded, sequence=2)):
        assert (row["in_if"], row["out_if"]) == (0, 0)
        assert "forwarding_status" not in row


#: By forwarding status, the reasons of sflow.org's sflow_drops.txt, and some that are not in there.
REASONS = {
    131: (0, 1, 2, 3, 5, 6, 7, 11, 12, 263, 281), 129: (9, 10, 13), 130: (258, 269, 292, 306),
    132: (8, 279), 133: (4,), 134: (275, 329), 135: (262,), 137: (257,), 138: (261,), 139: (260,),
    140: (280, 302, 335), 143: (259,), 128: (14, 15, 255, 256, 264, 303, 511, 512, 2**30 - 1),
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "status"),
    [(reason, status) for status, reasons in REASONS.items() for reason in reasons],
)
def test_a_dropped_packet_tells_why(sflow: Decoding, reason: int, status: int) -> None:
    raw = s.raw_header(FRAME, length=200)
    plain = s.flow_sample([raw], rate=10, out_if=1 << 30 | reason)
    expanded = s.expanded_flow_sample([raw], rate=10, out_if=(1, reason))
    rows = sflow.rows(s.datagram([plain, expanded]))
    for row in rows:
        assert row["forwarding_status"] == status
        assert (row["drop_packets"], row["drop_bytes"]) == (10, 2000)
        assert (row["packets"], row["bytes"]) == (10, 2000)
        assert row["out_if"] == 0
    (row,) = sflow.rows(s.datagram([s.discarded_packet([raw], reason=reason)], sequence=2))
    assert (row["forwarding_status"], row["drop_packets"], row["drop_bytes"]) == (status, 1, 200)
    # Its packet may have been sampled, too: as traffic it does not count again.
    assert (row["packets"], row["bytes"]) == (0, 0)
    assert (row["in_if"], row["out_if"]) == (3, 4)


def test_extended_records_fill_their_columns(sflow: Decoding) -> None:
    records = [
        s.raw_header(FRAME),
        s.switch(10, 20),
        s.gateway("203.0.113.1", 4_200_000_001, [[65001, 65002], [4_200_000_002]]),
        s.router("203.0.113.9", 24, 16),
        s.part(1007, s.address("203.0.113.5") + s.address("2001:db8::5")),
        s.part(1020, struct.pack("!II", 1024, 443)),
    ]
    bare = s.flow_sample([s.raw_header(FRAME)])
    row, other = sflow.rows(s.datagram([s.flow_sample(records), bare]))
    assert (row["src_vlan"], row["dst_vlan"]) == (10, 20)
    assert (row["src_as"], row["dst_as"]) == (4_200_000_001, 4_200_000_002)
    assert row["next_hop"] == "203.0.113.9"
    assert (row["src_prefix_len"], row["dst_prefix_len"]) == (24, 16)
    assert (row["nat_src_addr"], row["nat_dst_addr"]) == ("203.0.113.5", "2001:db8::5")
    assert (row["nat_src_port"], row["nat_dst_port"]) == (1024, 443)
    assert (other["src_vlan"], other["src_as"], other["next_hop"]) == (0, 0, "::")
    assert sflow.errors() == {}


def test_masks_of_prefixes_are_their_lengths(sflow: Decoding) -> None:
    """The sample in gopacket's tests has 255.255.255.255 and 255.255.255.128 in place of 32, 25."""
    masks = s.router("203.0.113.9", 0xFFFFFFFF, 0xFFFFFF80)
    lengths = s.router("203.0.113.9", 128, 0)
    samples = [s.flow_sample([s.raw_header(FRAME), told]) for told in (masks, lengths)]
    first, second = sflow.rows(s.datagram(samples))
    assert (first["src_prefix_len"], first["dst_prefix_len"]) == (32, 25)
    assert (second["src_prefix_len"], second["dst_prefix_len"]) == (128, 0)


def test_bgp_next_hop_stands_in_for_the_routers(sflow: Decoding) -> None:
    records = [s.raw_header(FRAME), s.gateway("2001:db8::1", 0, [])]
    (row,) = sflow.rows(s.datagram([s.flow_sample(records)]))
    assert row["next_hop"] == "2001:db8::1"
    assert row["dst_as"] == 0


def test_unknown_vlans_leave_the_tag_of_the_header(sflow: Decoding) -> None:
    tagged = f.ethernet(f.ipv4(TCP, proto=6), [(0x8100, 33)])
    records = [s.raw_header(tagged), s.switch(0xFFFFFFFF, 44)]
    (row,) = sflow.rows(s.datagram([s.flow_sample(records)]))
    assert (row["src_vlan"], row["dst_vlan"]) == (33, 44)


@pytest.mark.parametrize(
    ("protocol", "header", "source"),
    [(11, f.ipv4(TCP, "192.0.2.1", proto=6), "192.0.2.1"),
     (12, f.ipv6(TCP, "2001:db8::1", following=6), "2001:db8::1"),
     (13, struct.pack("!I", 16 << 12 | 0x100) + f.ipv4(TCP, "192.0.2.1", proto=6), "192.0.2.1")],
)  # fmt: skip
def test_headers_may_begin_with_other_layers(
    sflow: Decoding, protocol: int, header: bytes, source: str
) -> None:
    sample = s.flow_sample([s.raw_header(header, protocol=protocol)])
    (row,) = sflow.rows(s.datagram([sample]))
    assert (row["src_addr"], row["dst_port"]) == (source, 50000)


def test_a_header_of_an_unknown_layer_still_counts(sflow: Decoding) -> None:
    sample = s.flow_sample([s.raw_header(FRAME, length=100, protocol=4)])
    (row,) = sflow.rows(s.datagram([sample]))
    assert (row["bytes"], row["proto"], row["src_addr"]) == (10_000, 0, "::")


def test_packets_described_without_a_header_are_flows(sflow: Decoding) -> None:
    v4 = struct.pack("!II", 60, 6) + bytes([192, 0, 2, 1, 192, 0, 2, 2])
    v4 += struct.pack("!IIII", 443, 50000, 0x12, 0xB8)
    v6 = struct.pack("!II", 80, 17) + bytes(15) + b"\x01" + bytes(15) + b"\x02"
    v6 += struct.pack("!IIII", 53, 5353, 0, 0)
    macs = bytes.fromhex("02000000000100000200000000020000")
    frame = struct.pack("!I", 78) + macs + struct.pack("!I", 0x0800)
    samples = [
        s.flow_sample([s.part(3, v4)], rate=10),
        s.flow_sample([s.part(4, v6)], rate=10),
        s.flow_sample([s.part(2, frame), s.part(3, v4)], rate=10),
        s.flow_sample([s.raw_header(FRAME), s.part(3, v4)], rate=10),
    ]
    plain, six, both, raw = sorted(
        sflow.rows(s.datagram(samples)), key=lambda r: (r["src_mac"], r["bytes"])
    )[:4]
    assert (plain["bytes"], plain["src_addr"], plain["tos"]) == (600, "192.0.2.1", 0xB8)
    assert (plain["etype"], plain["proto"], plain["tcp_flags"]) == (0x0800, 6, 0x12)
    assert (six["bytes"], six["dst_addr"], six["dst_port"]) == (800, "::2", 5353)
    ethernet = both if both["bytes"] == 780 else raw
    header = raw if both["bytes"] == 780 else both
    assert (ethernet["bytes"], ethernet["src_mac"]) == (780, "02:00:00:00:00:01")
    assert ethernet["dst_addr"] == "192.0.2.2"
    assert (header["bytes"], header["dst_addr"]) == (580, "198.51.100.2")


def test_frames_are_described_with_and_without_the_padding_of_xdr(sflow: Decoding) -> None:
    """A MAC is opaque, of six octets: eight in XDR, six for InMon's tools and goflow2."""
    source, target = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    padded = struct.pack("!I6s2x6s2xI", 78, source, target, 0x86DD)
    packed = struct.pack("!I6s6sI", 78, source, target, 0x86DD)
    for frames in ([padded], [packed], [packed, padded, packed]):
        samples = [s.flow_sample([s.part(2, frame)], rate=10) for frame in frames]
        rows = sflow.rows(s.datagram(samples))
        assert len(rows) == len(frames)
        for row in rows:
            assert (row["src_mac"], row["dst_mac"]) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
            assert (row["etype"], row["bytes"]) == (0x86DD, 780)
    assert not sflow.errors()


def test_samples_about_other_things_than_packets_are_counted_and_no_flows(sflow: Decoding) -> None:
    memory = s.flow_sample([s.part(2200, bytes(40))])
    unknown = s.part(4413 << 12 | 1, bytes(16))
    rows = sflow.rows(s.datagram([memory, unknown, s.flow_sample([s.raw_header(FRAME)])]))
    assert len(rows) == 1
    samples = sflow.decoder.accounting.samples
    assert (samples["no_packet"], samples["unknown"], samples["flow"]) == (1, 1, 2)


def test_a_device_without_rate_counts_once_unless_configured() -> None:
    datagram = s.datagram([s.flow_sample([s.raw_header(FRAME, length=100)], rate=0)])
    plain = Decoding()
    (row,) = plain.rows(datagram)
    assert (row["sampling_rate"], row["sampling_source"], row["bytes"]) == (1, "unknown", 100)
    assert plain.state.devices[AGENT].unknown_sampling == 1
    (row,) = Decoding(config.Device(address="192.0.2.9", sampling_rate=50)).rows(datagram)
    assert (row["sampling_rate"], row["sampling_source"], row["bytes"]) == (50, "configured", 5000)


def test_a_configured_override_beats_the_record() -> None:
    device = config.Device(address="192.0.2.9", sampling_rate_override=7)
    mine = s.datagram([s.flow_sample([s.raw_header(FRAME)], rate=100)])
    others = s.datagram([s.flow_sample([s.raw_header(FRAME)], rate=100)], agent="192.0.2.10")
    rows = Decoding(device).rows(mine, others)
    assert [(r["sampling_rate"], r["sampling_source"]) for r in rows] == [
        (7, "configured"), (100, "record")
    ]  # fmt: skip


def test_an_agent_may_have_ipv6_or_not_know_its_address(sflow: Decoding) -> None:
    sample = s.flow_sample([s.raw_header(FRAME)])
    nobody = struct.pack("!IIIIII", 5, 0, 7, 1, 1, 1) + sample
    zero = s.datagram([sample], agent="0.0.0.0", sub_agent=8)
    six = s.datagram([sample], agent="2001:db8::9")
    rows = sflow.rows(nobody, zero, six)
    assert [r["device_addr"] for r in rows] == ["127.0.0.1", "127.0.0.1", "2001:db8::9"]


def test_many_samples_of_many_agents_keep_their_own_values(sflow: Decoding) -> None:
    payloads, expected = [], []
    for number in range(40):
        samples = []
        for index in range(number % 5):
            packet = f.ipv4(f.udp(b"", number, index), f"10.0.{number}.{index}")
            make = s.expanded_flow_sample if index == 3 else s.flow_sample
            extra = [s.switch(number, index)] if index % 2 else []
            samples.append(make([*extra, s.raw_header(f.ethernet(packet))], rate=number + 1))
            expected.append((f"192.0.2.{number}", number + 1, f"10.0.{number}.{index}", number))
        payloads.append(s.datagram(samples, agent=f"192.0.2.{number}"))
    rows = sflow.rows(*payloads)
    found = [(r["device_addr"], r["packets"], r["src_addr"], r["src_port"]) for r in rows]
    assert sorted(found) == sorted(expected)


def test_counter_samples_become_metrics_and_no_flows(sflow: Decoding) -> None:
    name = s.part(1005, s.opaque(b"eth7"))
    samples = [
        s.counters_sample([s.interface_counters(7, in_bytes=2**40), name]),
        s.counters_sample([s.interface_counters(8, out_bytes=5)], expanded=True),
    ]
    assert sflow.rows(s.datagram(samples)) == []
    registry = CollectorRegistry()
    registry.register(InterfaceCollector(sflow.decoder.interfaces))

    def value(metric: str, index: int, name: str = "") -> float | None:
        labels = {"device": "192.0.2.9", "if_index": str(index), "if_name": name}
        return registry.get_sample_value("flow_sflow_interface_" + metric, labels)

    assert value("in_bytes_total", 7, "eth7") == 2**40
    assert value("in_packets_total", 7, "eth7") == 60
    assert value("in_discards_total", 7, "eth7") == 4
    assert value("in_errors_total", 7, "eth7") == 5
    assert value("out_bytes_total", 8) == 5
    # Multicast and broadcast are told to be unknown.
    assert value("out_packets_total", 8) == 11
    assert value("speed_bits_per_second", 8) == 10**10
    assert value("up", 8) == 1
    assert sflow.errors() == {}


def test_names_of_interfaces_told_with_their_counters_are_those_of_flows(sflow: Decoding) -> None:
    def port(index: int, name: bytes) -> bytes:
        record = s.part(1005, s.opaque(name))
        return s.counters_sample([s.interface_counters(index), record])

    sample = s.flow_sample([s.raw_header(FRAME)], in_if=3, out_if=4)
    sflow.rows(s.datagram([port(3, b"uplink"), port(5, b"other")]))
    mine, others = sflow.rows(s.datagram([sample], sequence=2), s.datagram([sample], agent="::1"))
    assert (mine["in_if_name"], mine["out_if_name"]) == ("uplink", "")
    assert (others["in_if_name"], others["out_if_name"]) == ("", "")


def test_interfaces_are_bounded_and_those_that_went_silent_make_room() -> None:
    counters = InterfaceCounters()
    rest = s.interface_counters(0)[12:]

    def update(index: int, now: int) -> str | None:
        return counters.update(AGENT, struct.pack("!I", index) + rest, "", now)

    assert {update(index, 1000) for index in range(MAX_INTERFACES)} == {None}
    assert update(MAX_INTERFACES, 2000) == "too_many_interfaces"
    assert update(1, 2000) is None
    assert len(counters.recent(2000)) == MAX_INTERFACES
    later = 1500 + EXPIRE_MILLISECONDS
    assert update(MAX_INTERFACES, later) is None
    assert len(counters) == MAX_INTERFACES
    assert sorted(index for _, index, _, _ in counters.recent(later)) == [1, MAX_INTERFACES]


def test_interfaces_of_a_device_that_is_configured_no_more_are_told() -> None:
    counters = InterfaceCounters()
    for now in (1000, 1001 + EXPIRE_MILLISECONDS):
        counters.update(AGENT, s.interface_counters(7), "", now, configured=now == 1000)
    assert len(counters.recent(now)) == len(counters) == 1


def test_forged_agents_keep_no_interface_of_a_configured_device_out() -> None:
    counters = InterfaceCounters()
    body = s.interface_counters(7)

    def update(agent: int, *, configured: bool) -> str | None:
        return counters.update(agent.to_bytes(16, "big"), body, "", 1000, configured=configured)

    assert {update(agent, configured=False) for agent in range(MAX_OF_OTHERS)} == {None}
    assert update(MAX_OF_OTHERS, configured=False) == "too_many_interfaces"
    assert update(MAX_OF_OTHERS, configured=True) is None
    assert update(5, configured=True) is None  # named by a reload
    assert len(counters.recent(1000)) == MAX_OF_OTHERS + 1
    assert update(MAX_OF_OTHERS + 1, configured=False) is None


def test_lost_and_late_datagrams_and_restarts_are_told_apart(sflow: Decoding) -> None:
    def send(*numbers: int, uptime: int = 60_000) -> Any:
        sflow.rows(*(s.datagram([], sequence=n, uptime=uptime) for n in numbers))
        sequence = sflow.stream().sequence
        sequence.settle(now() + 60_000)
        return sequence

    assert send(100, 101, 102).lost == 0
    assert send(103, 106, 105, 107).lost == 1
    assert sflow.stream().sequence.reordered == 1
    sequence = send(1, 2, uptime=1000)
    assert (sequence.restarts, sequence.lost) == (1, 1)
    assert send(3, 0xFFFFFFFF).expected == 4
    assert sflow.stream().packets == 11


def test_a_repeated_datagram_counts_once(sflow: Decoding) -> None:
    sample = s.flow_sample([s.raw_header(FRAME)])
    counters = s.counters_sample([s.interface_counters(7)])
    first, second = (s.datagram([sample, counters], sequence=n) for n in (1, 2))
    other = s.datagram([sample], agent="192.0.2.99", sequence=1)
    assert len(sflow.rows(first, first, other, second)) == 3
    assert sflow.rows(second) == []
    assert len(sflow.rows(other, s.datagram([sample], sequence=3))) == 1
    stream = sflow.stream()
    assert (stream.duplicates, stream.records, stream.packets) == (2, 3, 5)
    assert (stream.sequence.lost, stream.sequence.reordered) == (0, 0)


def test_a_datagram_of_the_same_number_that_differs_is_no_repeat(sflow: Decoding) -> None:
    samples = [s.flow_sample([s.raw_header(FRAME)], rate=rate) for rate in (1, 2)]
    assert len(sflow.rows(*(s.datagram([sample], sequence=5) for sample in samples))) == 2


def test_repeats_of_agents_without_room_pass() -> None:
    sflow = Decoding(max_devices=1)
    sample = s.flow_sample([s.raw_header(FRAME)])
    known = s.datagram([sample])
    other = s.datagram([sample], agent="192.0.2.99")
    assert len(sflow.rows(known, other, known, other, known)) == 3


def test_sequence_numbers_wrap(sflow: Decoding) -> None:
    sflow.rows(*(s.datagram([], sequence=n) for n in (2**32 - 2, 2**32 - 1, 0, 1)))
    sflow.rows(s.datagram([], sequence=2))
    sequence = sflow.stream().sequence
    assert (sequence.lost, sequence.restarts, sequence.reordered) == (0, 0, 0)


def test_pools_and_dropped_samples_are_summed_over_wraps_and_restarts(sflow: Decoding) -> None:
    raw = s.raw_header(FRAME)

    def send(number: int, *values: tuple[int, int, int]) -> None:
        samples = [s.flow_sample([raw], source=a, pool=b, drops=c) for a, b, c in values]
        sflow.rows(s.datagram(samples, sequence=number, uptime=number * 1000), later=number)

    send(1, (3, 2**32 - 100, 5), (4, 1000, 0))
    send(2, (3, 2**32 - 50, 5), (3, 50, 8), (4, 1100, 0))
    send(3, (3, 10, 0))
    send(4, (3, 30, 1))
    registry = CollectorRegistry()
    registry.register(SflowCollector(sflow.decoder.accounting))
    labels = {"device": "192.0.2.9"}
    prefix = "flow_exporter_sflow_"
    assert registry.get_sample_value(prefix + "pool_packets_total", labels) == 150 + 100 + 20
    assert registry.get_sample_value(prefix + "dropped_samples_total", labels) == 4
    assert registry.get_sample_value(prefix + "samples_total", {"kind": "flow"}) == 7


GOOD = s.flow_sample([s.raw_header(FRAME)])


@pytest.mark.parametrize(
    ("bad", "errors"),
    [
        (s.datagram([GOOD, GOOD])[:-8], {"truncated_sample": 1}),
        (s.datagram([GOOD], count=2), {"truncated_sample": 1}),
        (s.datagram([GOOD, s.part(1, bytes(20))]), {"short_sample": 1}),
        (s.datagram([GOOD, s.part(2, bytes(8))]), {"short_sample": 1}),
        (s.datagram([GOOD, s.part(1, b"\xff" * 100)]), {"truncated_record": 1}),
        (s.datagram([s.flow_sample([s.raw_header(FRAME)], count=5)]), {"truncated_record": 1}),
        (s.datagram([s.flow_sample([s.raw_header(FRAME), s.part(1001, b"")])]),
         {"short_record": 1}),
        (s.datagram([s.flow_sample([s.raw_header(FRAME), s.part(1003, bytes(16) + b"\xff" * 8)])]),
         {"short_record": 1}),
        (s.datagram([s.flow_sample([s.raw_header(FRAME), s.part(1002, b"\xff" * 40)])]),
         {"short_record": 1}),
        (s.datagram([GOOD, s.counters_sample([s.part(1, bytes(8))])]), {"short_record": 1}),
        (s.datagram([GOOD, s.counters_sample([s.interface_counters(1)])])[:-4],
         {"truncated_sample": 1}),
        (s.datagram([GOOD, struct.pack("!II", 1, 2**32 - 1)]), {"truncated_sample": 1}),
        (s.datagram([GOOD]) + b"abc", {}),
    ],
)  # fmt: skip
def test_a_fault_is_counted_and_what_is_beside_it_used(
    sflow: Decoding, bad: bytes, errors: dict[str, int]
) -> None:
    rows = sflow.rows(bad, s.datagram([GOOD, GOOD], agent="192.0.2.10"))
    assert len(rows) == 3
    assert all(row["dst_addr"] == "198.51.100.2" for row in rows)
    assert sflow.errors() == errors


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0\0\0\5", struct.pack("!II", 5, 3) + bytes(60), s.datagram([GOOD])[:24],
     struct.pack("!I", 4) + s.datagram([GOOD])[4:]],
)  # fmt: skip
def test_what_is_no_sflow_counts_against_its_sender(sflow: Decoding, payload: bytes) -> None:
    assert len(sflow.rows(payload, s.datagram([GOOD]))) == 1
    assert sflow.state.devices[SENDER].errors == {"bad_sflow_header": 1}


def test_with_no_room_for_a_device_its_flows_are_kept() -> None:
    sflow = Decoding(max_devices=1)
    sample = s.flow_sample([s.raw_header(FRAME)], rate=0)
    payloads = [s.datagram([sample], agent=f"192.0.2.{i}") for i in range(1, 4)]
    assert len(sflow.rows(*payloads)) == 3
    assert sflow.errors() == {"too_many_devices": 2}


def test_a_datagram_of_endless_samples_takes_bounded_steps(sflow: Decoding) -> None:
    many = s.datagram([s.part(99, b"")] * 8000)
    begin = time.process_time()
    assert len(sflow.rows(many, s.datagram([GOOD], sequence=2))) == 1
    assert time.process_time() - begin < 0.5
    assert sflow.errors() == {"truncated_sample": 1}


WHOLE = s.datagram(
    [
        s.flow_sample([s.raw_header(FRAME), s.switch(1, 2), s.router("192.0.2.1", 1, 2)]),
        s.expanded_flow_sample([s.gateway("192.0.2.1", 1, [[1, 2], [3]]), s.raw_header(FRAME)]),
        s.counters_sample([s.interface_counters(7), s.part(1005, s.opaque(b"eth7"))]),
        s.discarded_packet([s.raw_header(f.ethernet(f.ipv6(TCP, following=6)))], reason=4),
        s.flow_sample(
            [
                s.raw_header(FRAME),
                s.mpls("192.0.2.1", [16 << 12, 17 << 12 | 0x100], [18 << 12 | 0x100]),
                s.part(1012, struct.pack("!II", 1, 0x8100_0064)),
                s.part(1005, struct.pack("!I", 1) + s.opaque(b"/a") + s.opaque(b"www.example")),
                s.part(2209, struct.pack("!12I", *range(12))),
            ]
        ),
        s.flow_sample(
            [
                s.part(2100, struct.pack("!5I", 6, 0xC0000201, 0xC0000202, 80, 50000)),
                s.part(2206, bytes(8) + s.opaque(b"abcde") * 7 + struct.pack("!QQII", 1, 2, 3, 4)),
            ]
        ),
        s.flow_sample([s.raw_header(b"\xff\x03\0\x21" + f.ipv4(TCP, proto=6), protocol=7)]),
    ]
)


def _damage(changes: Sequence[tuple[int, bytes]], length: int) -> bytes:
    payload = bytearray(WHOLE)
    for position, piece in changes:
        payload[position : position + len(piece)] = piece
    return bytes(payload[:length])


DAMAGED = st.builds(
    _damage,
    st.lists(st.tuples(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=8)), max_size=6),
    st.integers(0, len(WHOLE) + 20),
)
PREFIXED = st.binary(max_size=200).map(lambda tail: WHOLE[:28] + tail)


def _numbered(payload: bytes, number: int) -> bytes:
    """The datagram with another sequence number, where it has one."""
    at = {b"\0\0\0\0": 12, b"\0\0\0\1": 16, b"\0\0\0\2": 28}.get(payload[4:8], len(payload))
    return payload[:at] + struct.pack("!I", number)[: len(payload) - at] + payload[at + 4 :]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(DAMAGED, PREFIXED, st.binary(max_size=100)), max_size=4))
def test_no_datagram_makes_decoding_fail_or_harms_another(payloads: list[bytes]) -> None:
    good = s.datagram([GOOD], agent="198.51.100.77", sub_agent=99)
    rows = Decoding().rows(*payloads * 8, good, *payloads)
    mine = [row for row in rows if row["observation_domain"] == 99]
    assert {"192.0.2.1"} <= {row["src_addr"] for row in mine}


@settings(max_examples=100, deadline=None)
@given(st.lists(DAMAGED, min_size=1, max_size=4))
def test_a_batch_gives_what_its_datagrams_give_alone(payloads: list[bytes]) -> None:
    # So many at a time are walked in lockstep, one alone is not.
    copies = (_numbered(payload, n) for n, payload in enumerate(payloads * 16))
    together = Decoding().rows(*copies)
    alone = [row for payload in payloads for row in Decoding().rows(payload)] * 16

    def key(row: dict[str, Any]) -> str:
        # A column that no datagram of a batch has is missing; elsewhere it is zero. Names of
        # interfaces are known to all flows of the batch that tells them.
        empty = (0, "", "::", "00:00:00:00:00:00", [], "unknown", "record")
        return str(sorted((k, v) for k, v in row.items() if v not in empty and "if_name" not in k))

    assert sorted(map(key, together)) == sorted(map(key, alone))
