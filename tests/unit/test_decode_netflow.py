"""NetFlow v5, v9 and IPFIX: templates, sets and records, sound and not."""

from __future__ import annotations

import struct
import time
from typing import Any

import numpy as np
import pytest

from exporter import config
from exporter.decode import Decoder
from tests.support.netflow import (
    DEVICE,
    FLOW,
    NOW,
    FieldSpec,
    batch,
    flow,
    ip,
    ipfix,
    netflow5,
    netflow9,
    options_template9,
    record5,
    rows,
    set_of,
    template9,
    template10,
)

Row = dict[str, Any]


def make(**settings: Any) -> Decoder:
    return Decoder(config.Decode(**settings), [])


def errors(decoder: Decoder) -> dict[str, int]:
    return {reason: number for (_, reason), number in decoder.stats.errors().items()}


def one(fields: list[FieldSpec], record: bytes, *, version: int = 10) -> Row:
    """The only flow of a datagram with a template and a record."""
    if version == 9:
        datagram = netflow9(template9(256, fields), set_of(256, record))
    else:
        datagram = ipfix(template10(256, fields), set_of(256, record))
    decoder = make()
    (row,) = rows(decoder, datagram)
    assert not errors(decoder)
    return row


# NetFlow v5


def test_a_v5_record_fills_its_columns() -> None:
    record = record5(source="10.1.2.3", destination="10.9.8.7", next_hop="10.0.0.254", in_if=7,
                     out_if=9, packets=11, octets=1100, tos=0xB8, src_as=65001,
                     dst_as=65002)  # fmt: skip
    (row,) = rows(make(), netflow5(record, engine=0x0102))
    assert row["src_addr"] == "10.1.2.3"
    assert row["dst_addr"] == "10.9.8.7"
    assert row["next_hop"] == "10.0.0.254"
    assert (row["in_if"], row["out_if"]) == (7, 9)
    assert (row["bytes"], row["packets"]) == (1100, 11)
    assert (row["src_port"], row["dst_port"], row["proto"]) == (1234, 80, 6)
    assert (row["tcp_flags"], row["tos"]) == (0x1B, 0xB8)
    assert (row["src_as"], row["dst_as"]) == (65001, 65002)
    assert (row["src_prefix_len"], row["dst_prefix_len"]) == (24, 16)
    assert row["etype"] == 0x0800
    assert row["source"] == "netflow5"
    assert row["observation_domain"] == 0x0102
    assert row["device_addr"] == DEVICE


def test_a_v5_datagram_that_was_cut_gives_the_records_that_are_there() -> None:
    decoder = make()
    assert len(rows(decoder, netflow5(record5(), record5(), record5()[:20], count=3))) == 2
    assert errors(decoder) == {"wrong_count": 1}


def test_a_v5_count_beyond_reason_is_refused() -> None:
    decoder = make()
    assert rows(decoder, netflow5(record5(), count=0xD91E)) == []
    assert errors(decoder) == {"wrong_count": 1}


def test_icmp_in_v5_comes_in_the_destination_port() -> None:
    record = record5(proto=1, src_port=0, dst_port=3 << 8 | 1)
    (row,) = rows(make(), netflow5(record))
    assert (row["icmp_type"], row["icmp_code"]) == (3, 1)
    (row,) = rows(make(), netflow5(record5(proto=1, src_port=9, dst_port=3 << 8 | 1)))
    assert (row["icmp_type"], row["icmp_code"]) == (0, 0)


# Templates and sets


def test_template_and_data_in_one_datagram() -> None:
    decoder = make()
    (row,) = rows(decoder, netflow9(template9(256, FLOW), set_of(256, flow("10.1.1.1"))))
    assert row["src_addr"] == "10.1.1.1"
    assert (row["bytes"], row["packets"]) == (300, 3)


def test_a_template_holds_for_later_datagrams_of_its_device_and_domain_only() -> None:
    decoder = make()
    data = set_of(256, flow())
    assert rows(decoder, netflow9(template9(256, FLOW), domain=1)) == []
    assert len(rows(decoder, netflow9(data, domain=1, sequence=1))) == 1
    assert rows(decoder, netflow9(data, domain=2)) == []
    assert rows(decoder, netflow9(data, domain=1), device="192.0.2.2") == []
    assert rows(decoder, ipfix(data, domain=1)) == []


def test_an_unknown_template_leaves_the_sets_beside_it_alone() -> None:
    decoder = make()
    known, unknown = set_of(256, flow()), set_of(999, bytes(64))
    found = rows(decoder, netflow9(template9(256, FLOW), unknown, known, unknown, known))
    assert len(found) == 2
    assert not errors(decoder)


def test_what_comes_before_its_template_waits_and_keeps_its_times() -> None:
    decoder = make()
    early = decoder.decode(batch(netflow9(set_of(256, flow())), received=1_700_000_000_000))
    assert early == []
    late = decoder.decode(
        batch(netflow9(template9(256, FLOW), sequence=1), received=1_700_000_060_000)
    )
    (row,) = [row for found in late for row in found.rows()]
    assert row["time_received"] == "2023-11-14T22:13:20.000Z"
    assert decoder.state.waiting.size == 0


def test_a_template_that_changes_does_not_change_what_came_before() -> None:
    other = [*FLOW[:5], (1, 4), (2, 4)]  # bytes before packets
    decoder = make()
    found = rows(
        decoder,
        netflow9(template9(256, FLOW)),
        netflow9(set_of(256, flow(octets=10, packets=1)), sequence=1),
        netflow9(template9(256, other), sequence=2),
        netflow9(set_of(256, flow(octets=2, packets=20)), sequence=3),
    )
    assert sorted(row["bytes"] for row in found) == [10, 20]


def test_a_withdrawn_template_is_unknown_again() -> None:
    decoder = make()
    data = set_of(256, flow())
    found = rows(decoder, ipfix(template10(256, FLOW), data, template10(256, []), data))
    assert len(found) == 1
    assert waiting(decoder) == 1


def test_all_templates_can_be_withdrawn_at_once() -> None:
    decoder = make()
    rows(decoder, ipfix(template10(256, FLOW), template10(257, FLOW)))
    assert decoder.state.fields == 2 * len(FLOW)
    rows(decoder, ipfix(set_of(2, struct.pack("!HH", 2, 0))))
    assert decoder.state.fields == 0
    assert rows(decoder, ipfix(set_of(256, flow()))) == []


def test_padding_after_records_and_templates_is_no_record() -> None:
    template = set_of(0, struct.pack("!HH", 256, 7) + template9(256, FLOW)[8:] + bytes(4))
    decoder = make()
    assert len(rows(decoder, netflow9(template, set_of(256, flow() + bytes(3))))) == 1
    assert not errors(decoder)


def test_zeros_after_the_last_set_are_filling() -> None:
    decoder = make()
    datagram = netflow9(template9(256, FLOW), set_of(256, flow())) + bytes(400)
    assert len(rows(decoder, datagram)) == 1
    assert not errors(decoder)


def test_octets_after_an_ipfix_message_are_no_part_of_it() -> None:
    decoder = make()
    message = ipfix(template10(256, FLOW), set_of(256, flow()))
    assert len(rows(decoder, message + message)) == 1


def test_a_set_longer_than_its_datagram_spoils_only_itself() -> None:
    decoder = make()
    bad = struct.pack("!HH", 256, 4000) + flow()
    found = rows(
        decoder,
        netflow9(template9(256, FLOW), set_of(256, flow()), bad),
        netflow9(set_of(256, flow()), sequence=1),
    )
    assert len(found) == 2
    assert errors(decoder) == {"malformed_set": 1}


def test_lockstep_and_one_by_one_find_the_same() -> None:
    data = [
        netflow9(*[set_of(256, flow(octets=n))] * 3, bytes(n), sequence=n + 1) for n in range(20)
    ]
    decoder = make()
    together = rows(decoder, netflow9(template9(256, FLOW)), *data)
    decoder = make()
    apart = rows(decoder, netflow9(template9(256, FLOW)))
    for datagram in data:
        apart += rows(decoder, datagram)
    assert not errors(decoder)
    order = sorted(row["bytes"] for row in apart)
    assert sorted(row["bytes"] for row in together) == order
    assert len(order) == 60


@pytest.mark.parametrize("datagram", [b"", b"\0", b"\0\x09", b"\0\x0b" + bytes(40)])
def test_a_foreign_datagram_is_counted_and_changes_nothing(datagram: bytes) -> None:
    decoder = make()
    found = rows(decoder, datagram, netflow9(template9(256, FLOW), set_of(256, flow())))
    assert len(found) == 1
    assert sum(errors(decoder).values()) == 1


def test_a_reserved_set_is_counted() -> None:
    decoder = make()
    assert len(rows(decoder, netflow9(set_of(77, b"abcd"), template9(256, FLOW),
                                      set_of(256, flow())))) == 1  # fmt: skip
    assert errors(decoder) == {"reserved_set": 1}


# Limits


def test_a_template_of_no_octets_is_refused() -> None:
    decoder = make()
    rows(decoder, netflow9(template9(256, [(8, 0), (12, 0)]), set_of(256, bytes(8))))
    assert errors(decoder) == {"unusable_template": 1}
    assert decoder.state.fields == 0


def test_a_template_of_65535_octet_fields_is_refused() -> None:
    decoder = make()
    rows(decoder, netflow9(template9(256, [(999, 65534)] * 3)))
    assert errors(decoder) == {"unusable_template": 1}


def test_records_too_short_for_a_flow_are_not_decoded() -> None:
    decoder = make()
    assert rows(decoder, netflow9(template9(256, [(4, 1)]), set_of(256, bytes(1000)))) == []
    assert errors(decoder) == {"record_too_short": 1}


def test_a_template_bomb_keeps_to_the_limits() -> None:
    decoder = make(max_templates_per_device=10, max_fields_per_template=8)
    bombs = [netflow9(*(template9(n, FLOW) for n in range(256, 300)), sequence=s)
             for s in range(3)]  # fmt: skip
    rows(decoder, *bombs, netflow9(template9(400, [(8, 4)] * 9), sequence=3))
    assert decoder.state.fields == 10 * len(FLOW)
    assert errors(decoder) == {"too_many_templates": 34 * 3, "too_many_fields": 1}


def test_templates_that_change_or_are_withdrawn_make_room_for_others() -> None:
    decoder = make(max_templates_per_device=2)
    for sequence in range(5):
        rows(decoder, ipfix(template10(256, FLOW[sequence:]), sequence=2 * sequence))
        rows(decoder, ipfix(template10(257, FLOW), template10(257, []), sequence=2 * sequence + 1))
    (device,) = decoder.state.devices.values()
    assert device.templates == 1
    assert decoder.state.fields == len(FLOW[4:])
    assert errors(decoder) == {}


def waiting(decoder: Decoder) -> int:
    return sum(stream.waiting_sets for stream in decoder.state.streams())


def test_waiting_records_keep_to_the_limits() -> None:
    decoder = make(max_waiting_bytes_per_device=2_000, max_waiting_bytes=3_000)
    for number in range(30):
        for device in ("192.0.2.1", "192.0.2.2"):
            rows(decoder, netflow9(set_of(256, bytes(40)), sequence=number), device=device)
    assert 2_000 < decoder.state.waiting.size <= 3_000
    assert sum(s.waiting_dropped for s in decoder.state.streams()) > 50


def test_sets_of_few_octets_or_none_are_no_way_round_the_limits() -> None:
    decoder = make(max_waiting_bytes_per_device=100_000)
    rows(decoder, *[ipfix(*[set_of(256, b"")] * 300, sequence=n) for n in range(10)])
    assert waiting(decoder) == 0
    rows(decoder, *[ipfix(*[set_of(256, b"x")] * 300, sequence=n) for n in range(10)])
    assert 0 < waiting(decoder) < 200


def test_what_never_gets_a_template_keeps_nothing_else_from_waiting() -> None:
    decoder = make(max_waiting_bytes_per_device=2_000, max_waiting_bytes=10_000)
    for device in range(20):
        for number in range(5):
            never = ipfix(set_of(300, bytes(40)), sequence=number)
            rows(decoder, never, device=f"198.51.100.{device}")
    for device in ("198.51.100.19", "192.0.2.1"):
        rows(decoder, ipfix(set_of(256, flow())), device=device)
    for device in ("198.51.100.19", "192.0.2.1"):
        assert len(rows(decoder, ipfix(template10(256, FLOW), sequence=1), device=device)) == 1


def test_configured_devices_get_in_however_many_there_are() -> None:
    configured = config.Device(address="192.0.2.1", name="edge1")
    decoder = Decoder(config.Decode(max_devices=3), [configured])
    for number in range(10):
        rows(decoder, netflow9(template9(256, FLOW)), device=f"198.51.100.{number}")
    rows(decoder, netflow9(template9(256, FLOW)), device="192.0.2.1")
    assert "edge1" in {device.label for device in decoder.state.devices.values()}
    assert len(decoder.state.devices) == 4


def test_a_clock_that_was_ahead_keeps_no_device_out() -> None:
    decoder = make(max_devices=1)
    hours = 7_200_000
    for number, ahead in enumerate((hours, hours + 1000, 2000)):
        told = netflow9(template9(256, FLOW))
        decoder.decode(batch(told, device=f"192.0.2.{number}", received=1_700_000_000_000 + ahead))
    assert [device.label for device in decoder.state.devices.values()] == ["192.0.2.2"]


@pytest.mark.parametrize(
    "sets",
    [
        [[set_of(256 + (280 * n + m) % 65_000, b"x") for m in range(280)] for n in range(1024)],
        [[template10(300 + m, [(8 if n % 2 else 12, 4)]) for m in range(115)] for n in range(768)],
        [[template10(300 + m % 2, []) for m in range(170)] for n in range(1024)],
    ],
    ids=["unknown templates", "templates that change", "withdrawals"],
)
def test_the_time_that_sets_take_does_not_grow_with_the_batch(sets: list[list[bytes]]) -> None:
    """Of a batch full of one kind of set each took a millisecond and more."""
    decoder = make()
    hostile = batch(*(ipfix(*each, sequence=number) for number, each in enumerate(sets)))
    began = time.process_time()
    decoder.decode(hostile)
    assert time.process_time() - began < 8.0


def test_devices_keep_to_the_limit_and_silent_ones_make_room() -> None:
    decoder = make(max_devices=2)
    for number in range(5):
        rows(decoder, netflow9(template9(256, FLOW)), device=f"192.0.2.{number}")
    assert len(decoder.state.devices) == 2
    assert errors(decoder) == {"too_many_devices": 3}
    later = batch(netflow9(template9(256, FLOW)), device="192.0.2.9", received=1_700_000_700_000)
    decoder.decode(later)
    assert len(decoder.state.devices) == 2
    assert any(d.label == "192.0.2.9" for d in decoder.state.devices.values())


# Values


def test_reduced_size_encoding_of_any_length() -> None:
    row = one([(8, 4), (1, 3), (2, 5), (10, 1), (14, 8)], ip("10.0.0.1") + b"\x01\x02\x03"
              + b"\0\0\0\x01\x05" + b"\x09" + bytes(7) + b"\x08")  # fmt: skip
    assert (row["bytes"], row["packets"]) == (0x010203, 0x0105)
    assert (row["in_if"], row["out_if"]) == (9, 8)
    assert one([(8, 4), (1, 16)], ip("10.0.0.1") + bytes(15) + b"\x07")["bytes"] == 7


def test_ipv6_addresses_and_etype() -> None:
    row = one([(27, 16), (28, 16), (31, 3), (29, 1)],
              ip("2001:db8::1") + ip("2001:db8::2") + b"\x0a\xbc\xde" + b"\x40")  # fmt: skip
    assert (row["src_addr"], row["dst_addr"]) == ("2001:db8::1", "2001:db8::2")
    assert (row["etype"], row["flow_label"], row["src_prefix_len"]) == (0x86DD, 0x0ABCDE, 64)


def test_of_two_families_the_one_that_is_used_counts() -> None:
    fields: list[FieldSpec] = [(8, 4), (27, 16), (12, 4), (28, 16)]
    row = one(fields, bytes(4) + ip("2001:db8::1") + bytes(4) + ip("2001:db8::2"))
    assert (row["src_addr"], row["dst_addr"]) == ("2001:db8::1", "2001:db8::2")
    assert row["etype"] == 0x86DD
    row = one(fields, bytes(24) + ip("ff02::1"))
    assert (row["src_addr"], row["dst_addr"], row["etype"]) == ("::", "ff02::1", 0x86DD)
    row = one(fields, ip("10.0.0.1") + bytes(16) + ip("10.0.0.2") + bytes(16))
    assert (row["src_addr"], row["dst_addr"]) == ("10.0.0.1", "10.0.0.2")
    assert row["etype"] == 0x0800


def test_a_packet_in_a_tunnel_told_from_the_outside_in_is_one_flow() -> None:
    """Huawei: IPv4 in SRv6, protocol and ports once for the tunnel and once for the packet."""
    outside: list[FieldSpec] = [(27, 16), (28, 16), (7, 2), (11, 2), (4, 1), (2, 4), (1, 4)]
    record = ip("2001:db8::1") + ip("2001:db8::2") + struct.pack("!HHBII", 0, 0, 4, 3, 300)
    inside: list[FieldSpec] = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1)]
    row = one([*outside, *inside], record + flow(proto=17, src_port=5, dst_port=6)[:-8])
    assert (row["src_addr"], row["dst_addr"], row["etype"]) == ("10.0.0.1", "10.0.0.2", 0x0800)
    assert (row["proto"], row["src_port"], row["dst_port"]) == (17, 5, 6)
    assert row["bytes"] == 300


def test_a_packet_in_a_tunnel_of_its_own_family_is_the_inner_one() -> None:
    """Cisco: IPv6 in SRv6. Records of the template that tell of no packet inside are the outer."""
    half: list[FieldSpec] = [(27, 16), (28, 16), (4, 1), (7, 2), (11, 2)]

    def part(source: str, destination: str, *rest: int) -> bytes:
        return ip(source) + ip(destination) + struct.pack("!BHH", *rest)

    outer = part("2001:db8::1", "2001:db8::2", 41, 0, 0)
    inner = part("2001:db8::a", "2001:db8::b", 17, 5, 6)
    records = [outer + inner + bytes(3) + b"\x09", outer + part("::", "::", 0, 0, 0) + bytes(4)]
    template = template10(256, [*half, *half, (1, 4)])
    found = rows(make(), ipfix(template, set_of(256, b"".join(records))))
    assert [(r["src_addr"], r["dst_addr"], r["proto"], r["dst_port"]) for r in found] == [
        ("2001:db8::a", "2001:db8::b", 17, 6), ("2001:db8::1", "2001:db8::2", 41, 0),
    ]  # fmt: skip


def test_of_an_element_twice_the_first_counts() -> None:
    row = one([*FLOW, (4, 1)], flow(proto=47) + b"\x06")
    assert row["proto"] == 47


def test_link_layer_fields() -> None:
    row = one([(8, 4), (56, 6), (80, 6), (58, 2), (59, 2), (61, 1), (256, 2)],
              ip("10.0.0.1") + bytes.fromhex("0200000000aa0200000000bb")
              + struct.pack("!HHBH", 10, 20, 1, 0x0800), version=9)  # fmt: skip
    assert (row["src_mac"], row["dst_mac"]) == ("02:00:00:00:00:aa", "02:00:00:00:00:bb")
    assert (row["src_vlan"], row["dst_vlan"], row["direction"]) == (10, 20, "egress")


def test_mpls_labels_from_the_top_down() -> None:
    labels = b"".join((label << 4 | bottom).to_bytes(3, "big")
                      for label, bottom in ((16001, 0), (24005, 1), (0, 0)))  # fmt: skip
    row = one([(8, 4), (70, 3), (71, 3), (72, 3)], ip("10.0.0.1") + labels, version=9)
    assert row["mpls_labels"] == [16001, 24005]


def test_a_label_of_zero_is_one_where_it_marks_the_bottom() -> None:
    """RFC 3032: 0 is IPv4 explicit null."""
    for entries, labels in (("000001000000", [0]), ("000640000001", [100, 0]), ("0" * 12, [])):
        row = one([(8, 4), (70, 3), (71, 3)], ip("10.0.0.1") + bytes.fromhex(entries), version=9)
        assert row["mpls_labels"] == labels


def test_totals_count_only_where_there_are_no_deltas() -> None:
    assert one([(8, 4), (85, 8), (86, 8)], ip("10.0.0.1") + struct.pack("!QQ", 900, 9))[
        "bytes"
    ] == 900  # fmt: skip
    row = one([(8, 4), (85, 8), (1, 4)], ip("10.0.0.1") + struct.pack("!QI", 900, 0))
    assert row["bytes"] == 0


def test_variable_lengths_short_and_long() -> None:
    fields: list[FieldSpec] = [(8, 4), (35632, 187, 65535), (1, 4), (35632, 205, 65535)]
    host, query = "www.example.net", "q" * 300
    record = (
        ip("10.0.0.1") + bytes([len(host)]) + host.encode() + struct.pack("!I", 77)
        + b"\xff" + struct.pack("!H", len(query)) + query.encode()
    )  # fmt: skip
    decoder = make()
    datagram = ipfix(template10(256, fields), set_of(256, record * 3))
    found = rows(decoder, datagram)
    assert [row["http_host"] for row in found] == [host] * 3
    assert [row["dns_name"] for row in found] == [query] * 3
    assert [row["bytes"] for row in found] == [77] * 3


def test_variable_lengths_are_the_same_many_sets_at_a_time() -> None:
    fields: list[FieldSpec] = [(8, 4), (35632, 187, 65535), (1, 4)]
    datagrams = [ipfix(template10(256, fields))]
    expected = []
    for number in range(12):
        body = b""
        for part in range(number % 5 + 1):
            name = "n" * (number * 30 + part)
            length = bytes([len(name)]) if len(name) < 255 else b"\xff" + len(name).to_bytes(2)
            body += ip("10.0.0.1") + length + name.encode() + struct.pack("!I", part + 1)
            expected.append((name, part + 1))
        datagrams.append(ipfix(set_of(256, body)))
    found = rows(make(), *datagrams)
    assert sorted((row["http_host"], row["bytes"]) for row in found) == sorted(expected)


def test_a_record_that_overruns_its_set_spoils_only_the_rest_of_that_set() -> None:
    fields: list[FieldSpec] = [(8, 4), (35632, 187, 65535)]
    good = ip("10.0.0.1") + b"\x03abc"
    bad = ip("10.0.0.1") + b"\xf0abc"
    decoder = make()
    found = rows(decoder, ipfix(template10(256, fields), set_of(256, good + bad),
                                set_of(256, good * 2)))  # fmt: skip
    assert len(found) == 3
    assert errors(decoder) == {"malformed_record": 1}


def test_lists_are_skipped() -> None:
    """basicList, subTemplateList and subTemplateMultiList (RFC 6313) are octets to step over."""
    fields: list[FieldSpec] = [(8, 4), (291, 65535), (292, 65535), (293, 65535), (1, 4)]
    record = ip("10.0.0.1") + b"\x05ababa" + b"\0" + b"\x02zz" + struct.pack("!I", 5)
    assert one(fields, record)["bytes"] == 5


def test_text_of_fixed_length_ends_at_the_first_nul() -> None:
    row = one([(8, 4), (96, 16)], ip("10.0.0.1") + b"ssl\0garbage".ljust(16, b"\0"), version=9)
    assert row["app"] == "ssl"


def test_cisco_avc_tells_the_http_host_behind_its_sub_application() -> None:
    host = b"\x03\0\0\x50\x34\x02www.example.net"
    path = b"\x03\0\0\x50\x34\x01/index.html"
    fields: list[FieldSpec] = [(8, 4), (9, 12235, 65535), (9, 12235, 65535)]
    record = ip("10.0.0.1") + bytes([len(path)]) + path + bytes([len(host)]) + host
    assert one(fields, record)["http_host"] == "www.example.net"


@pytest.mark.parametrize(
    ("event", "reason", "status"), [(1, 0, 0), (2, 2018, 0), (3, 1004, 128), (3, 1001, 129)]
)
def test_flows_that_a_firewall_denies_are_dropped_ones(
    event: int, reason: int, status: int
) -> None:
    """Cisco ASA: created, torn down, denied as no SYN came first, denied by a list."""
    fields: list[FieldSpec] = [*FLOW, (233, 1), (33002, 2)]
    row = one(fields, flow() + struct.pack("!BH", event, reason), version=9)
    assert row["forwarding_status"] == status


@pytest.mark.parametrize(("properties", "status"), [(0x08C3, 128), (0x0800, 64), (0x04C3, 0)])
def test_why_a_juniper_line_card_dropped_a_packet(properties: int, status: int) -> None:
    """Several properties share one element; which it is stands in their upper six bits."""
    fields: list[FieldSpec] = [(2636, 137, 4), (2636, 137, 2), (2636, 137, 4), *FLOW]
    record = struct.pack("!IHI", 0x08000001, properties, 0x0C0FFFFF) + flow()
    assert one(fields, record)["forwarding_status"] == status


def test_flags_of_the_first_packet_and_of_the_others_are_one_column() -> None:
    """YAF numbers the reverse of its own elements from 16384 on."""
    fields: list[FieldSpec] = [
        *FLOW, (6871, 14, 1), (6871, 15, 1), (29305, 1, 4), (6871, 16398, 1), (6871, 16399, 1),
    ]  # fmt: skip
    record = flow() + struct.pack("!BBIBB", 0x02, 0x11, 40, 0x12, 0x04)
    decoder = make()
    there, back = rows(decoder, ipfix(template10(256, fields), set_of(256, record)))
    assert (there["tcp_flags"], back["tcp_flags"]) == (0x13, 0x16)
    assert back["bytes"] == 40


@pytest.mark.parametrize("version", [9, 10])
def test_cisco_avc_tells_client_and_server(version: int) -> None:
    """In NetFlow v9 the numbers of Cisco's own elements begin at 32768."""

    def cisco(element: int, length: int) -> FieldSpec:
        return (element + 32768, length) if version == 9 else (9, element, length)

    fields = [
        cisco(12236, 4), cisco(12237, 4), cisco(12240, 2), cisco(12241, 2), (4, 1),
        cisco(8338, 8), cisco(8337, 8), (298, 8), (299, 8),
    ]  # fmt: skip
    record = ip("10.0.0.1") + ip("10.0.0.2") + struct.pack("!HHBQQQQ", 5000, 443, 6, 7, 8, 1, 2)
    make_set, make_datagram = (template9, netflow9) if version == 9 else (template10, ipfix)
    there, back = rows(make(), make_datagram(make_set(256, fields), set_of(256, record)))
    assert [(r["src_addr"], r["src_port"], r["bytes"], r["packets"]) for r in (there, back)] == [
        ("10.0.0.1", 5000, 7, 1), ("10.0.0.2", 443, 8, 2),
    ]  # fmt: skip


def test_a_duration_in_microseconds() -> None:
    row = one([*FLOW, (153, 8), (162, 4)], flow() + struct.pack("!QI", NOW * 1000, 2_500_000))
    assert row["time_flow_start"] == "2023-11-14T22:13:17.500Z"


def test_the_round_trip_is_twice_what_a_probe_in_between_sees() -> None:
    row = one([(8, 4), (57595, 4), (57596, 4)], ip("10.0.0.1") + struct.pack("!II", 20, 5),
              version=9)  # fmt: skip
    assert row["rtt"] == pytest.approx(0.05)


def test_options_name_interfaces_applications_and_vrfs() -> None:
    decoder = make()
    options = netflow9(
        options_template9(300, [(1, 4)], [(10, 4), (82, 8)]),
        set_of(300, bytes(4) + struct.pack("!I8s", 7, b"Gi0/7")),
        options_template9(301, [(1, 4)], [(95, 4), (96, 8)]),
        set_of(301, bytes(4) + b"\x0d\0\x01\xaf" + b"youtube\0"),
        options_template9(302, [(1, 4)], [(234, 4), (236, 8)]),
        set_of(302, bytes(4) + struct.pack("!I8s", 5, b"blue")),
    )
    fields: list[FieldSpec] = [(8, 4), (10, 4), (14, 4), (95, 4), (234, 4)]
    known = ip("10.0.0.1") + struct.pack("!II", 7, 8) + b"\x0d\0\x01\xaf" + struct.pack("!I", 5)
    unknown = ip("10.0.0.2") + struct.pack("!II", 8, 7) + b"\x0d\0\0\x01" + struct.pack("!I", 6)
    found = rows(decoder, options, netflow9(template9(256, fields), set_of(256, known + unknown)))
    assert [row["in_if_name"] for row in found] == ["Gi0/7", ""]
    assert [row["out_if_name"] for row in found] == ["", "Gi0/7"]
    assert [row["app"] for row in found] == ["youtube", "13:1"]
    assert [row["vrf"] for row in found] == ["blue", "6"]
    other = rows(decoder, netflow9(template9(256, fields), set_of(256, known)), device="192.0.2.7")
    assert other[0]["app"] == "13:431"
    assert "in_if_name" not in other[0]


def test_a_name_that_is_given_to_another_interface_does_not_change_what_came_before() -> None:
    def name(text: bytes) -> bytes:
        return set_of(300, bytes(4) + struct.pack("!I8s", 7, text))

    template = options_template9(300, [(1, 4)], [(10, 4), (82, 8)])
    fields: list[FieldSpec] = [(8, 4), (10, 4)]
    data = set_of(256, ip("10.0.0.1") + struct.pack("!I", 7))
    found = rows(
        make(), netflow9(template, template9(256, fields), name(b"Gi0/7"), data),
        netflow9(data, name(b"Te0/1"), data, sequence=1),
    )  # fmt: skip
    assert [row["in_if_name"] for row in found] == ["Gi0/7", "Gi0/7", "Te0/1"]


def test_one_layout_of_many_devices_is_decoded_together() -> None:
    decoder = make()
    devices = [f"192.0.2.{number}" for number in range(1, 21)]
    datagrams = [
        netflow9(template9(256 + n, FLOW), set_of(256 + n, flow(octets=n) * 2), domain=n)
        for n in range(20)
    ]
    (found,) = decoder.decode(batch(*datagrams, device=devices))
    seen = {(row["device_addr"], row["observation_domain"], row["bytes"]) for row in found.rows()}
    assert seen == {(device, n, n) for n, device in enumerate(devices)}


def test_devices_that_hash_alike_stay_apart() -> None:
    decoder = make()
    decoder._salt[:] = 0
    devices = ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
    found = decoder.decode(batch(*[netflow5(record5(), engine=n) for n in (1, 1, 2)],
                                 device=devices))  # fmt: skip
    seen = [(row["device_addr"], row["observation_domain"]) for b in found for row in b.rows()]
    assert sorted(seen) == [("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.2", 1)]


def test_a_configured_element_fills_its_column() -> None:
    decoder = make(elements=[{"id": 9, "enterprise": 4242, "column": "tls_sni"},
                             {"id": 1001, "column": "vrf"}])  # fmt: skip
    fields: list[FieldSpec] = [(8, 4), (4242, 9, 65535), (1001, 4)]
    record = ip("10.0.0.1") + b"\x05a.net" + struct.pack("!I", 12)
    (row,) = rows(decoder, ipfix(template10(256, fields), set_of(256, record)))
    assert (row["tls_sni"], row["vrf"]) == ("a.net", "12")


def test_a_sampled_packet_is_a_flow_of_one_packet() -> None:
    header = bytes.fromhex(
        "0200000000bb0200000000aa0800450005dc00004000401100000a0000010a000002003500350000"
    )
    fields: list[FieldSpec] = [(10, 4), (312, 2), (315, 65535)]
    record = struct.pack("!IHB", 3, 1514, len(header) + 2) + header + bytes(2)
    row = one(fields, record)
    assert (row["bytes"], row["packets"]) == (1514, 1)
    assert (row["src_addr"], row["dst_addr"]) == ("10.0.0.1", "10.0.0.2")
    assert (row["proto"], row["src_port"], row["in_if"]) == (17, 53, 3)
    assert row["src_mac"] == "02:00:00:00:00:aa"


def test_a_sampled_packet_that_is_not_ip_keeps_its_ethertype() -> None:
    arp = bytes.fromhex("0200000000bb0200000000aa0806") + bytes(28)
    fields: list[FieldSpec] = [(10, 4), (312, 2), (315, 65535)]
    assert one(fields, struct.pack("!IHB", 3, 64, len(arp)) + arp)["etype"] == 0x0806
    assert one(fields, struct.pack("!IHB", 3, 64, 3) + b"abc")["etype"] == 0


def test_flows_that_wait_for_their_template_do_not_keep_the_whole_batch() -> None:
    decoder = make()
    first = batch(netflow9(set_of(256, flow("10.7.7.7"))))
    first.buffer = first.buffer.copy()
    assert decoder.decode(first) == []
    first.buffer[:] = 0
    (row,) = rows(decoder, netflow9(template9(256, FLOW), sequence=1))
    assert row["src_addr"] == "10.7.7.7"


def test_columns_have_the_types_of_the_schema() -> None:
    decoder = make()
    for found in decoder.decode(
        batch(netflow9(template9(256, FLOW), set_of(256, flow())), netflow5(record5()))
    ):
        found.to_arrow().validate(full=True)
        for name in ("bytes", "packets"):
            assert found.array(name).dtype == np.uint64
        assert found.array("src_port").dtype == np.uint16
        assert found.array("sampling_rate").dtype == np.uint32
