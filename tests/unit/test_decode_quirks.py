"""What devices do that the standards do not foresee, or foresee and few do.

Sources are named at each test; the datagrams are drawn by hand.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from exporter import config
from exporter.decode import Decoder
from exporter.decode.devices import Stream
from exporter.decode.options import Record
from tests.support import frames as f
from tests.support.netflow import (
    FLOW,
    NOW,
    UPTIME,
    FieldSpec,
    flow,
    ip,
    ipfix,
    netflow5,
    netflow9,
    options_template9,
    options_template10,
    record5,
    rows,
    set_of,
    template9,
    template10,
)

Row = dict[str, Any]


def make() -> Decoder:
    return Decoder(config.Decode(), [])


def errors(decoder: Decoder) -> dict[str, int]:
    return {reason: number for (_, reason), number in decoder.stats.errors().items()}


# NetFlow v5


def test_octets_after_the_records_of_a_v5_datagram_are_no_records() -> None:
    """The header's count is what holds: Ethernet fills short datagrams up."""
    decoder = make()
    assert len(rows(decoder, netflow5(record5(), bytes(48), count=1))) == 1
    assert not errors(decoder)


def test_more_records_than_cisco_puts_into_a_v5_datagram_are_read() -> None:
    """30 records are what fits into 1,500 octets; jumbo frames hold more."""
    decoder = make()
    assert len(rows(decoder, netflow5(*[record5()] * 60))) == 60
    assert not errors(decoder)


def test_v5_records_without_routing_keep_their_zeros() -> None:
    record = record5(next_hop="0.0.0.0", src_len=0, dst_len=0, in_if=0xFFFF, out_if=0)
    (row,) = rows(make(), netflow5(record, engine=0xFF01))
    assert (row["next_hop"], row["src_prefix_len"]) == ("0.0.0.0", 0)
    assert (row["in_if"], row["out_if"], row["observation_domain"]) == (0xFFFF, 0, 0xFF01)


@pytest.mark.parametrize("version", [1, 7, 8, 6])
def test_other_versions_of_netflow_are_counted_and_not_guessed_at(version: int) -> None:
    decoder = make()
    old = struct.pack("!H", version) + netflow5(record5())[2:]
    assert len(rows(decoder, old, netflow5(record5()))) == 1
    assert errors(decoder) == {"unknown_version": 1}


# Headers


@pytest.mark.parametrize("count", [0, 1, 2, 3, 65535])
def test_the_count_of_a_v9_header_does_not_matter(count: int) -> None:
    """RFC 3954, section 5.1, counts records and templates; devices also count sets, or nothing."""
    decoder = make()
    datagram = netflow9(template9(256, FLOW), set_of(256, flow() + flow("10.9.9.9")), count=count)
    assert len(rows(decoder, datagram)) == 2
    assert not errors(decoder)


def test_a_device_without_clock_exports_at_time_zero() -> None:
    """Flow times of the year 1970 give way to the reception; the duration is kept."""
    fields: list[FieldSpec] = [*FLOW, (22, 4), (21, 4)]
    record = flow() + struct.pack("!II", UPTIME - 5_000, UPTIME - 2_000)
    (row,) = rows(make(), netflow9(template9(256, fields), set_of(256, record), seconds=0))
    assert row["time_flow_end"] == row["time_received"]
    assert row["time_flow_start"] == "2023-11-14T22:13:17.000Z"
    assert row["time_source"] == "received"
    (row,) = rows(make(), netflow5(record5(), seconds=0))
    assert (row["time_source"], row["time_flow_end"]) == ("received", row["time_received"])
    (row,) = rows(make(), ipfix(template10(256, FLOW), set_of(256, flow()), seconds=0))
    assert (row["time_flow_start"], row["time_flow_end"]) == (row["time_received"],) * 2


@pytest.mark.parametrize("copies", [1, 9])  # walked one by one, and in lockstep
@pytest.mark.parametrize("length", [-2, -16, -40, None, 1])
def test_a_wrong_length_of_an_ipfix_message_loses_nothing(length: int | None, copies: int) -> None:
    """UDP tells it too; telegraf's issue 14370 has a message that ends within its last set."""
    whole = ipfix(template10(256, FLOW), set_of(256, flow() + flow("10.9.9.9")))
    told = 0 if length is None else len(whole) + length
    message = whole[:2] + struct.pack("!H", told) + whole[4:]
    decoder = make()
    sent = [ipfix(template10(256, FLOW)), *[message] * copies]
    for number, datagram in enumerate(sent):
        sent[number] = datagram[:8] + struct.pack("!I", 2 * max(number - 1, 0)) + datagram[12:]
    assert len(rows(decoder, *sent)) == 2 * copies
    assert errors(decoder) == {"wrong_length": copies}


def test_octets_after_the_length_of_an_ipfix_message_are_no_sets() -> None:
    whole = ipfix(template10(256, FLOW), set_of(256, flow()))
    decoder = make()
    assert len(rows(decoder, whole + set_of(256, flow("10.9.9.9")))) == 1
    assert not errors(decoder)


def test_an_uptime_smaller_than_the_flows_is_ahead_of_them_or_has_wrapped() -> None:
    """The header may be written before the last flow ends; 32 bits wrap after 49.7 days."""
    fields: list[FieldSpec] = [*FLOW, (22, 4), (21, 4)]

    def ends(first: int, last: int, uptime: int) -> tuple[str, str]:
        record = flow() + struct.pack("!II", first % 2**32, last % 2**32)
        (row,) = rows(make(), netflow9(template9(256, fields), set_of(256, record), uptime=uptime))
        assert row["time_source"] == "record"
        return row["time_flow_start"], row["time_flow_end"]

    assert ends(900, 1_500, 1_000) == ("2023-11-14T22:13:19.900Z", "2023-11-14T22:13:20.500Z")
    assert ends(-2_000, 500, 1_000) == ("2023-11-14T22:13:17.000Z", "2023-11-14T22:13:19.500Z")


# Templates


def test_a_template_set_may_hold_many_templates_and_end_in_padding() -> None:
    first, second = template9(256, FLOW)[4:], template9(257, FLOW[:3])[4:]
    decoder = make()
    templates = set_of(0, first + second + bytes(2))
    found = rows(decoder, netflow9(templates, set_of(257, bytes(10) + b"\0\0")))
    assert len(found) == 1
    assert not errors(decoder)


@pytest.mark.parametrize("scope", [1, 2, 3, 4, 5])
def test_each_scope_of_v9_is_stepped_over_by_its_length(scope: int) -> None:
    """RFC 3954, section 6.1: system, interface, line card, cache, template."""
    told: list[Record] = []
    decoder = Decoder(
        config.Decode(), [], on_options=lambda stream, number, time, record: told.append(record)
    )
    options = options_template9(300, [(scope, 4)], [(34, 4), (35, 1)])
    datagram = netflow9(
        options, set_of(300, struct.pack("!IIB", 7, 512, 2) + bytes(3)),
        template9(256, [*FLOW, (10, 4)]), set_of(256, flow() + struct.pack("!I", 7)),
    )  # fmt: skip
    (row,) = rows(decoder, datagram)
    assert (row["sampling_rate"], row["sampling_source"]) == (512, "options")
    assert len(told) == 1
    assert not errors(decoder)


def test_a_scope_of_v9_may_be_an_element() -> None:
    """Of RFC 3954's scopes the last is 5: a higher number can only be an element."""
    decoder = make()
    datagram = netflow9(
        options_template9(300, [(48, 1)], [(50, 4)]), set_of(300, b"\2" + struct.pack("!I", 64)),
        options_template9(301, [(95, 4)], [(96, 8)]), set_of(301, b"\x0d\0\0\x05" + b"facebook"),
        template9(256, [*FLOW, (48, 1), (95, 4)]), set_of(256, flow() + b"\2\x0d\0\0\x05"),
    )  # fmt: skip
    (row,) = rows(decoder, datagram)
    assert (row["sampling_rate"], row["app"]) == (64, "facebook")


@pytest.mark.parametrize("padding", [0, 2, 3])
def test_a_length_of_options_that_is_no_multiple_of_a_field_is_rounded(padding: int) -> None:
    """pmacct issue 473: two fields in 9 octets, of EdgeRouters with nfprobe."""
    fields = struct.pack("!HHHHHH", 1, 4, 95, 4, 96, 8)
    options = set_of(1, struct.pack("!HHH", 300, 4, 9) + fields + bytes(padding))
    decoder = make()
    datagram = netflow9(
        options, set_of(300, bytes(4) + b"\x16\0\0\x05" + b"DNS".ljust(8, b"\0")),
        template9(256, [*FLOW, (95, 4)]), set_of(256, flow() + b"\x16\0\0\x05"),
    )  # fmt: skip
    (row,) = rows(decoder, datagram)
    assert row["app"] == "DNS"
    assert not errors(decoder)


def test_options_of_ipfix_may_have_no_scope() -> None:
    """RFC 7011, section 3.4.2.2, forbids it; nothing is lost by reading it."""
    decoder = make()
    datagram = ipfix(
        options_template10(300, 0, [(34, 4)]), set_of(300, struct.pack("!I", 128)),
        template10(256, FLOW), set_of(256, flow()),
    )  # fmt: skip
    (row,) = rows(decoder, datagram)
    assert row["sampling_rate"] == 128


def test_a_template_number_may_move_from_flows_to_options_and_back() -> None:
    decoder = make()
    found = rows(
        decoder,
        netflow9(template9(256, FLOW), set_of(256, flow())),
        netflow9(options_template9(256, [(1, 4)], [(34, 4)]),
                 set_of(256, struct.pack("!II", 0, 10)), sequence=1),
        netflow9(template9(256, FLOW), set_of(256, flow("10.7.7.7")), sequence=2),
    )  # fmt: skip
    assert [row["src_addr"] for row in found] == ["10.0.0.1", "10.7.7.7"]
    stream: Stream
    (stream,) = decoder.state.streams()
    assert (stream.records, stream.options) == (2, 1)


# Records


def test_a_firewalls_event_has_no_counters_and_is_a_flow_of_zero_bytes() -> None:
    """Cisco NSEL's "flow created"; NAT events of carrier-grade translators (RFC 8158)."""
    fields: list[FieldSpec] = [
        (323, 8), (234, 4), (8, 4), (225, 4), (7, 2), (227, 2), (4, 1), (230, 1)
    ]  # fmt: skip
    record = struct.pack("!QI", NOW * 1000 - 250, 12) + ip("100.64.0.7") + ip("203.0.113.1")
    record += struct.pack("!HHBB", 40000, 1024, 6, 4)
    (row,) = rows(make(), ipfix(template10(256, fields), set_of(256, record)))
    assert (row["bytes"], row["packets"], row["vrf"]) == (0, 0, "12")
    assert (row["src_addr"], row["nat_src_addr"]) == ("100.64.0.7", "203.0.113.1")
    assert (row["src_port"], row["nat_src_port"]) == (40000, 1024)
    assert row["time_flow_end"] == "2023-11-14T22:13:19.750Z"


@pytest.mark.parametrize("fields", [[(32, 2)], [(139, 2)], [(176, 1), (177, 1)]])
def test_a_type_of_icmp_may_stand_in_the_port_beside_elements_of_zero(
    fields: list[FieldSpec],
) -> None:
    """Templates for all protocols have both; zeros there are no echo replies."""
    template = template9(256, [*FLOW, *fields])
    for told, port, icmp in (
        (0, 0x0301, (3, 1)), (0x0800, 0x0301, (8, 0)), (0, 0, (0, 0)), (0x0301, 0, (3, 1)),
        (0, 8, (8, 0)),  # Procera: a type only
    ):  # fmt: skip
        record = flow(src_port=0, dst_port=port, proto=1) + struct.pack("!H", told)
        (row,) = rows(make(), netflow9(template, set_of(256, record)))
        assert (row["icmp_type"], row["icmp_code"]) == icmp
    (row,) = rows(make(), netflow9(template, set_of(256, flow(dst_port=0x0301) + bytes(2))))
    assert (row["icmp_type"], row["icmp_code"]) == (0, 0)  # of TCP


def test_a_forwarding_status_may_be_padded() -> None:
    """pmacct pull request 681: four octets, the status in the last one."""
    for size in (1, 2, 4):
        fields: list[FieldSpec] = [*FLOW, (89, size)]
        record = flow() + (0x82).to_bytes(size, "big")
        (row,) = rows(make(), netflow9(template9(256, fields), set_of(256, record)))
        assert row["forwarding_status"] == 130


def test_a_discovery_of_dhcp_has_a_source_of_zero_and_is_ipv4() -> None:
    """Templates of Flexible NetFlow may have addresses of both families."""
    fields: list[FieldSpec] = [(8, 4), (12, 4), (27, 16), (28, 16), (1, 4)]
    record = bytes(4) + ip("255.255.255.255") + bytes(32) + struct.pack("!I", 300)
    (row,) = rows(make(), netflow9(template9(256, fields), set_of(256, record)))
    assert (row["src_addr"], row["dst_addr"]) == ("0.0.0.0", "255.255.255.255")
    assert row["etype"] == 0x0800


def test_a_length_of_an_ipv6_prefix_is_none_of_an_ipv4_address() -> None:
    """IOS XR tells of IPv4 in SRv6 with the addresses of both and the lengths of the outer one."""
    fields: list[FieldSpec] = [
        (27, 16), (28, 16), (29, 1), (30, 1), (8, 4), (12, 4), (9, 1), (13, 1), (1, 4)
    ]  # fmt: skip
    outer = ip("2001:db8::1") + ip("2001:db8::2") + b"\x80\x40"
    inner = ip("10.0.0.1") + ip("10.0.0.2")
    plain, told, six = rows(make(), ipfix(template10(256, fields), set_of(
        256, outer + inner + b"\0\0\0\0\0\x05" + outer + inner + b"\x18\x10\0\0\0\x05"
        + outer + bytes(14),
    )))  # fmt: skip
    assert (plain["src_addr"], plain["src_prefix_len"], plain["dst_prefix_len"]) == (
        "10.0.0.1", 0, 0
    )  # fmt: skip
    assert (told["src_prefix_len"], told["dst_prefix_len"]) == (24, 16)
    assert (six["src_addr"], six["src_prefix_len"], six["dst_prefix_len"]) == (
        "2001:db8::1", 128, 64
    )  # fmt: skip


def test_tags_of_before_802_1ad_are_vlan_tags() -> None:
    """0x9100 to 0x9300 were taken for the outer tag before 802.1ad had its own number."""
    tcp = struct.pack("!HHIIHHHH", 443, 50000, 1, 2, 0x5012, 100, 0, 0)
    for kind in (0x8100, 0x88A8, 0x9100, 0x9200, 0x9300):
        frame = f.ethernet(f.ipv4(tcp, "192.0.2.1", proto=6), [(kind, 100), (0x8100, 200)])
        fields: list[FieldSpec] = [(315, len(frame))]
        (row,) = rows(make(), ipfix(template10(256, fields), set_of(256, frame)))
        assert (row["src_vlan"], row["src_addr"]) == (100, "192.0.2.1")


@pytest.mark.parametrize("with_ends", [False, True])
def test_a_station_is_the_destination_of_what_a_wireless_controller_sends_it(
    with_ends: bool,
) -> None:
    """Cisco's tell of each application once per direction (61): to and from the station, with its
    addresses (365, 366); from AireOS 8.2 on with source and destination besides."""
    mac, ends = bytes.fromhex("00005e005301"), ip("10.0.0.9") + ip("10.0.0.1")
    fields: list[FieldSpec] = [(365, 6), (366, 4), (61, 1), (1, 4), (2, 4)]
    counted = struct.pack("!II", 1500, 1)
    records = [mac + ip("10.0.0.1") + bytes([egress]) + counted for egress in (0, 1)]
    if with_ends:
        fields += [(8, 4), (12, 4)]
        turned = ip("10.0.0.1") + ip("10.0.0.9")
        records = [record + end for record, end in zip(records, (turned, ends), strict=True)]
    datagram = netflow9(template9(256, fields), set_of(256, b"".join(records)))
    up, down = rows(make(), datagram)
    nobody = "10.0.0.9" if with_ends else "::"
    names = ("src_addr", "src_mac", "dst_addr", "dst_mac")
    station, none = ("10.0.0.1", "00:00:5e:00:53:01"), "00:00:00:00:00:00"
    told = [tuple(row.get(name, none if "mac" in name else "::") for name in names)
            for row in (up, down)]  # fmt: skip
    assert told == [(*station, nobody, none), (nobody, none, *station)]
    assert {row["etype"] for row in (up, down)} == {0x0800}
