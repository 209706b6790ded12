"""Information elements: each fills its column, and of several the right one, in any order."""

from __future__ import annotations

import struct
from itertools import permutations
from typing import Any

import pytest
from pydantic import ValidationError

from exporter import config
from exporter.batch import DTYPES, DictColumn
from exporter.decode import Decoder
from exporter.decode.elements import ELEMENTS, REVERSE, V9, WORKING, Element, Fill, Reading
from exporter.schema import BY_NAME
from tests.support import frames as f
from tests.support.netflow import (
    NOW,
    UPTIME,
    FieldSpec,
    batch,
    ip,
    ipfix,
    netflow9,
    set_of,
    template9,
    template10,
)

Row = dict[str, Any]

TCP = struct.pack("!HHIIHHHH", 443, 50000, 1, 2, 0x5012, 100, 0, 0)
PACKET = f.ipv4(TCP, "192.0.2.1", "198.51.100.2", 6)


def rows(fields: list[FieldSpec], *records: bytes, version: int = 10, **settings: Any) -> list[Row]:
    decoder = Decoder(config.Decode(**settings), [])
    body = set_of(256, b"".join(records))
    if version == 9:
        datagram = netflow9(template9(256, fields), body)
    else:
        datagram = ipfix(template10(256, fields), body)
    batches = decoder.decode(batch(datagram))
    for flows in batches:
        for name, column in flows.columns.items():
            if not isinstance(column, DictColumn):
                assert column.dtype == DTYPES[BY_NAME[name].kind], name
    found = [row for flows in batches for row in flows.rows()]
    assert not decoder.stats.errors()
    return found


def one(fields: list[FieldSpec], record: bytes, *, version: int = 10, **settings: Any) -> Row:
    (row,) = rows(fields, record, version=version, **settings)
    return row


# Every row of the table

_VALUES: dict[Reading, bytes] = {
    Reading.UNSIGNED: struct.pack("!H", 5),
    Reading.MAC: bytes.fromhex("020000000005"),
    Reading.TEXT: b"shown\0\0",
    Reading.NUMBER_TEXT: struct.pack("!H", 5),
    Reading.AVC_HOST: b"\3\0\0\x50\x34\x02shown",
    Reading.APPLICATION: b"\x0d\0\0\x05",
    Reading.VRF: struct.pack("!I", 5),
    Reading.DISTINGUISHER: struct.pack("!HHI", 0, 65000, 5),
    Reading.DIRECTION: b"\1",
    Reading.DSCP: b"\x2e",
    Reading.PRECEDENCE: b"\5",
    Reading.ICMP: b"\3\1",
    Reading.FIREWALL_REASON: struct.pack("!H", 1001),
    Reading.JUNIPER_PROPERTIES: struct.pack("!H", 2 << 10 | 5),
    Reading.LABEL: b"\0\x01\x01",
    Reading.RCODE: b"\3",
    Reading.DNS_FLAGS: struct.pack("!H", 0x8183),
    Reading.SECONDS: struct.pack("!I", NOW - 60),
    Reading.MILLISECONDS: struct.pack("!Q", (NOW - 60) * 1000),
    Reading.NTP_MICROSECONDS: struct.pack("!II", NOW - 60 + 2_208_988_800, 0),
    Reading.NTP_NANOSECONDS: struct.pack("!II", NOW - 60 + 2_208_988_800, 0),
    Reading.UPTIME: struct.pack("!I", UPTIME - 60_000),
    Reading.BEFORE_EXPORT: struct.pack("!I", 60_000_000),
    Reading.DURATION_US: struct.pack("!I", 60_000_000),
    Reading.LATENCY_MS: struct.pack("!I", 5),
    Reading.LATENCY_US: struct.pack("!I", 5000),
    Reading.FRAME: f.ethernet(PACKET),
    Reading.PACKET: PACKET,
    Reading.LABELLED: struct.pack("!I", 16 << 12 | 0x140) + PACKET,
}
_SHOWN: dict[Reading, Any] = {
    Reading.UNSIGNED: 5, Reading.MAC: "02:00:00:00:00:05", Reading.TEXT: "shown",
    Reading.NUMBER_TEXT: "5", Reading.AVC_HOST: "shown", Reading.APPLICATION: "13:5",
    Reading.VRF: "5", Reading.DISTINGUISHER: "65000:5", Reading.DIRECTION: "egress",
    Reading.DSCP: 0x2E << 2, Reading.PRECEDENCE: 5 << 5,
    Reading.FIREWALL_REASON: 129, Reading.JUNIPER_PROPERTIES: 128, Reading.RCODE: "NXDOMAIN",
    Reading.DNS_FLAGS: "NXDOMAIN", Reading.LATENCY_MS: pytest.approx(0.005),
    Reading.LATENCY_US: pytest.approx(0.005),
    **dict.fromkeys(
        (Reading.SECONDS, Reading.MILLISECONDS, Reading.NTP_MICROSECONDS, Reading.NTP_NANOSECONDS,
         Reading.UPTIME, Reading.BEFORE_EXPORT),
        "2023-11-14T22:12:20.000Z",
    ),
}  # fmt: skip


def value(element: Element) -> tuple[bytes, Any]:
    if element.reading is Reading.ADDRESS:
        address = "2001:db8::5" if "IPv6" in element.name else "192.0.2.5"
        return ip(address), address
    return _VALUES[element.reading], _SHOWN.get(element.reading)


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: f"{e.enterprise}.{e.id} {e.name}")
def test_an_element_alone_fills_its_column(element: Element) -> None:
    raw, shown = value(element)
    version = 9 if element.enterprise == V9 else 10
    # An uptime of IPFIX needs the device's start.
    if element.reading is Reading.UPTIME:
        version = 9
    spec: FieldSpec = (element.id, len(raw))
    if element.enterprise not in (0, V9):
        spec = (element.enterprise, element.id, len(raw))
    initiator = {232: 231, 299: 298}.get(element.id, 210)
    row, *back = rows([spec, (initiator, 4)], raw + bytes(4), version=version)
    assert bool(back) == element.column.startswith("reverse_")
    if back:
        assert back[0][element.column.removeprefix("reverse_")] == shown
        return
    if element.column not in WORKING:
        assert row[element.column] == shown
        return
    effect = {
        "icmp": ("icmp_type", 3), "mpls_label": ("mpls_labels", [16]),
        "packet_section": ("src_addr", "192.0.2.1"), "event_time": ("time_flow_end", shown),
        "selected_packets": ("sampling_rate", 5), "client_latency": ("rtt", 0.01),
        "server_latency": ("rtt", 0.01),
        "station_addr": ("src_addr", shown), "station_mac": ("src_mac", shown),
        **{f"{way}_{name}": (name, 5) for way in ("incoming", "outgoing")
           for name in ("bytes", "packets")},
    }.get(element.column.rstrip("0123456789").rstrip("_"))  # fmt: skip
    if effect is not None:
        column, expected = effect
        assert row[column] == (pytest.approx(expected) if column == "rtt" else expected)
    else:
        # Of these no column is filled without another element; others test them.
        assert element.column in {
            "ip_version", "firewall_event", "flow_id", "sampler", "skipped_packets", "system_init",
            "duration", "frame_type", "frame_size", "section_octets", "inner_src_addr",
            "inner_dst_addr", "inner_proto", "inner_src_port", "inner_dst_port",
            "behavior",
        }  # fmt: skip


# Which one of several

#: Elements in their order of precedence, as (element, octets); those after ``None`` count only
#: where a record has none of the ones before it.
PRECEDENCE: list[tuple[str, list[tuple[int, int] | None]]] = [
    ("bytes", [(1, 4), (23, 4), None, (85, 8)]),
    ("bytes", [(1, 4), None, (231, 4), (352, 8)]),
    ("bytes", [(231, 4), (23, 4), None, (85, 8)]),
    ("bytes", [(85, 8), None, (171, 8), (352, 8), (353, 8), (417, 8)]),
    ("packets", [(2, 4), None, (298, 4), (430, 8)]),
    ("packets", [(2, 4), (24, 4), None, (86, 8)]),
    ("drop_bytes", [(132, 4), None, (134, 4)]),
    ("src_port", [(7, 2), (180, 2), (182, 2)]),
    ("dst_port", [(11, 2), (181, 2), (183, 2)]),
    ("in_if", [(10, 2), (252, 4)]),
    ("out_if", [(14, 2), (253, 4)]),
    ("src_vlan", [(58, 2), (243, 2), (245, 2)]),
    ("dst_vlan", [(59, 2), (254, 2), (255, 2)]),
    ("src_as", [(16, 4), None, (129, 4)]),
    ("dst_as", [(17, 4), None, (128, 4)]),
    ("ttl", [(52, 1), (192, 1), (53, 1)]),
    ("proto", [(4, 1), None, (193, 1)]),
    ("tos", [(5, 1), None, (55, 1)]),
    ("src_prefix_len", [(9, 1), (29, 1)]),
    ("dst_prefix_len", [(13, 1), (30, 1)]),
    ("http_status", [(457, 2)]),
]


@pytest.mark.parametrize(("column", "entries"), PRECEDENCE)
def test_of_several_elements_the_first_of_the_table_counts_in_any_order(
    column: str, entries: list[tuple[int, int] | None]
) -> None:
    listed = [entry for entry in entries if entry is not None]
    numbers = {element: 10 + place for place, (element, _) in enumerate(listed)}
    for order in permutations(listed):
        record = b"".join(numbers[element].to_bytes(size, "big") for element, size in order)
        assert one([*order, (210, 4)], record + bytes(4))[column] == 10


@pytest.mark.parametrize(("column", "listed"), PRECEDENCE)
def test_where_it_is_zero_the_next_one_counts_unless_it_is_for_want_of_any(
    column: str, listed: list[tuple[int, int] | None]
) -> None:
    for order in permutations([entry for entry in listed if entry is not None]):
        for zeros in range(1, len(listed)):
            before = listed[:zeros]
            if None in before:
                break
            following = listed[zeros]
            record = b"".join(
                (0 if entry in before else 9).to_bytes(entry[1], "big") for entry in order
            )
            expected = 9 if following is not None else 0
            assert one([*order, (210, 4)], record + bytes(4))[column] == expected


def test_next_hops_of_bgp_stand_in_for_those_of_routing_in_any_order() -> None:
    routed, told = ip("192.0.2.1"), ip("192.0.2.18")
    for order in permutations([((15, 4), routed), ((18, 4), told)]):
        fields: list[FieldSpec] = [spec for spec, _ in order]
        assert one(fields, b"".join(raw for _, raw in order))["next_hop"] == "192.0.2.1"
        empty = b"".join(raw if raw == told else bytes(4) for _, raw in order)
        assert one(fields, empty)["next_hop"] == "192.0.2.18"


def test_addresses_go_before_prefixes_in_any_order() -> None:
    parts = [((8, 4), ip("192.0.2.8")), ((44, 4), ip("192.0.2.0")), ((27, 16), bytes(16))]
    for order in permutations(parts):
        row = one([spec for spec, _ in order], b"".join(raw for _, raw in order))
        assert (row["src_addr"], row["etype"]) == ("192.0.2.8", 0x0800)


def test_no_element_is_listed_twice_and_none_for_want_of_others_goes_first() -> None:
    keys = [(element.enterprise, element.id) for element in ELEMENTS]
    assert len(set(keys)) == len(keys)
    first = {}
    for element in ELEMENTS:
        first.setdefault(element.column, element)
    assert all(
        element.fill is Fill.ZERO or element.column == "packet_section"
        for element in first.values()
    )


@pytest.mark.parametrize("column", ["mpls_labels", "source", "device_addr", "no_such_column"])
def test_columns_that_no_record_can_fill_are_refused_in_configuration(column: str) -> None:
    with pytest.raises(ValidationError, match=column):
        config.Element(id=9999, column=column)


def test_numbers_that_no_element_of_an_enterprise_has_are_refused() -> None:
    with pytest.raises(ValidationError, match="32767"):
        config.Element(enterprise=25461, id=56702, column="app")


# What is derived


@pytest.mark.parametrize(
    ("raw", "shown"),
    [(struct.pack("!HHI", 0, 65000, 7), "65000:7"),
     (struct.pack("!H4sH", 1, ip("192.0.2.1"), 7), "192.0.2.1:7"),
     (struct.pack("!HIH", 2, 4_200_000_000, 7), "4200000000:7"), (bytes(8), "")],
)  # fmt: skip
def test_a_route_distinguisher_shows_as_it_is_configured(raw: bytes, shown: str) -> None:
    """RFC 4364, section 4.2."""
    assert one([(90, 8)], raw)["vrf"] == shown


def test_a_vrf_goes_before_its_route_distinguisher() -> None:
    row = one([(90, 8), (234, 4)], struct.pack("!HHI", 0, 65000, 7) + struct.pack("!I", 3))
    assert row["vrf"] == "3"


@pytest.mark.parametrize(("flags", "shown"), [(0x8183, "NXDOMAIN"), (0x8180, "NOERROR"),
                                              (0x0100, "")])  # fmt: skip
def test_only_a_dns_response_has_a_response_code(flags: int, shown: str) -> None:
    assert one([(39499, 111, 2), (210, 4)], struct.pack("!HI", flags, 0))["dns_rcode"] == shown


NSX: list[FieldSpec] = [
    (8, 4), (12, 4), (4, 1), (7, 2), (11, 2), (6876, 880, 1), (6876, 881, 4), (6876, 882, 4),
    (6876, 886, 2), (6876, 887, 2), (1, 4), (2, 4),
]  # fmt: skip


def nsx(inner: bool) -> bytes:
    outer = ip("10.0.0.1") + ip("10.0.0.2") + struct.pack("!BHH", 17, 50000, 4789)
    told = struct.pack("!B4s4sHH", 1, ip("172.16.0.1"), ip("172.16.0.2"), 0, 0x0800)
    return outer + (told if inner else bytes(13)) + struct.pack("!II", 100, 1)


def test_of_a_packet_in_vxlan_the_tunnel_is_the_flow_unless_the_inner_one_is_wanted() -> None:
    tunnel, plain = rows(NSX, nsx(True), nsx(False))
    assert (tunnel["src_addr"], tunnel["proto"], tunnel["dst_port"]) == ("10.0.0.1", 17, 4789)
    inside, plain = rows(NSX, nsx(True), nsx(False), inner_packets=True)
    assert (inside["src_addr"], inside["dst_addr"]) == ("172.16.0.1", "172.16.0.2")
    assert (inside["proto"], inside["src_port"], inside["icmp_type"]) == (1, 0, 8)
    assert (plain["src_addr"], plain["proto"], plain["dst_port"]) == ("10.0.0.1", 17, 4789)
    assert inside["bytes"] == plain["bytes"] == 100


def test_an_inner_packet_may_be_of_the_other_family() -> None:
    fields: list[FieldSpec] = [(8, 4), (12, 4), (6876, 883, 16), (6876, 884, 16), (1, 4)]
    record = ip("10.0.0.1") + ip("10.0.0.2") + ip("2001:db8::1") + ip("2001:db8::2")
    record += struct.pack("!I", 5)
    for row in (
        one(fields, record, inner_packets=True),
        one([*fields, (256, 2)], record + b"\x08\0", inner_packets=True),
    ):
        assert (row["src_addr"], row["dst_addr"], row["etype"]) == (
            "2001:db8::1", "2001:db8::2", 0x86DD
        )  # fmt: skip


def test_a_dns_code_of_nothing_is_that_of_dns_flows_only() -> None:
    """Probes export 0, which is NOERROR, for all flows of a template."""
    fields: list[FieldSpec] = [(7, 2), (11, 2), (35632, 205, 4), (35632, 208, 1)]
    told = [
        one(fields, struct.pack("!HH4sB", *ports, name, code))["dns_rcode"]
        for *ports, name, code in (
            (40000, 443, b"", 0), (40000, 443, b"", 3), (40000, 53, b"", 0), (53, 40000, b"", 0),
            (40000, 5300, b"a.eu", 0),
        )
    ]  # fmt: skip
    assert told == ["", "NXDOMAIN", "NOERROR", "NOERROR", "NOERROR"]
    web, query = rows(
        [(7, 2), (11, 2), (35632, 208, 1)],
        struct.pack("!HHB", 40000, 443, 0), struct.pack("!HHB", 40000, 53, 0),
    )  # fmt: skip
    assert (web["dns_rcode"], query["dns_rcode"]) == ("", "NOERROR")
    assert one([(35632, 208, 4)], bytes(4))["dns_rcode"] == "NOERROR"


def test_the_ip_version_tells_the_family_of_addresses_of_zero() -> None:
    fields: list[FieldSpec] = [(8, 4), (12, 4), (27, 16), (28, 16), (60, 1), (1, 4)]
    four, six, neither = rows(fields, *(bytes(40) + bytes([v]) + bytes(4) for v in (4, 6, 0)))
    assert [row["etype"] for row in (four, six, neither)] == [0x0800, 0x86DD, 0]
    assert (four["src_addr"], six["src_addr"]) == ("0.0.0.0", "::")


def test_the_reverse_of_an_element_belongs_to_the_other_direction() -> None:
    fields: list[FieldSpec] = [(8, 4), (12, 4), (1, 4), (REVERSE, 1, 4), (REVERSE, 196, 1)]
    record = ip("10.0.0.1") + ip("10.0.0.2") + struct.pack("!IIB", 1, 2, 3)
    there, back = rows([*fields, (196, 1)], record + b"\1")
    assert (there["bytes"], there["tos"]) == (1, 1 << 5)
    assert (back["bytes"], back["tos"], back["src_addr"]) == (2, 3 << 5, "10.0.0.2")


SONICWALL: list[FieldSpec] = [
    (8741, 5, 4), (8741, 6, 4), (8741, 11, 2), (8741, 12, 2), (8741, 20, 1), (8741, 9, 4),
    (8741, 10, 4), (8741, 3, 6), (8741, 4, 6), (8741, 1, 4), (8741, 17, 4), (8741, 18, 4),
    (8741, 13, 4), (8741, 14, 4), (8741, 15, 4), (8741, 16, 4),
]  # fmt: skip


def sonicwall(end: int) -> bytes:
    head = ip("10.0.0.1") + ip("192.0.2.1") + struct.pack("!HHBII", 40000, 443, 6, 1, 2)
    macs = bytes.fromhex("020000000001020000000002")
    return head + macs + struct.pack("!7I", NOW - 1, NOW - 60, end, 10, 1000, 20, 2000)


def test_connections_of_sonicwall_are_two_flows_by_its_own_elements() -> None:
    """ "IPFIX with extensions" has none of IANA's."""
    there, back = rows(SONICWALL, sonicwall(NOW - 5))
    assert (there["src_addr"], there["dst_addr"], there["proto"]) == ("10.0.0.1", "192.0.2.1", 6)
    assert (there["bytes"], there["packets"], there["in_if"]) == (1000, 10, 1)
    assert (there["src_port"], there["src_mac"]) == (40000, "02:00:00:00:00:01")
    assert (back["src_addr"], back["src_port"], back["in_if"]) == ("192.0.2.1", 443, 2)
    assert (back["bytes"], back["packets"], back["src_mac"]) == (2000, 20, "02:00:00:00:00:02")
    assert there["time_flow_start"] == "2023-11-14T22:12:20.000Z"
    assert there["time_flow_end"] == back["time_flow_end"] == "2023-11-14T22:13:15.000Z"
    going_on, _ = rows(SONICWALL, sonicwall(0))
    assert going_on["time_flow_end"] == "2023-11-14T22:13:19.000Z"


def test_what_sonicwall_counted_since_its_last_report_goes_before_its_totals() -> None:
    """Reports of a connection that goes on must not count its octets again."""
    since: list[FieldSpec] = [(8741, element, 4) for element in (169, 170, 171, 172)]
    told = sonicwall(0) + struct.pack("!4I", 1, 100, 2, 200)
    there, back = rows([*SONICWALL, *since], told)
    assert (there["packets"], there["bytes"], back["packets"], back["bytes"]) == (1, 100, 2, 200)
    there, *none = rows([*SONICWALL, *since], sonicwall(0) + bytes(16))
    assert (there["bytes"], none) == (0, [])


def test_clients_and_servers_of_cisco_count_packets_too() -> None:
    for version, client in ((10, (9, 9265, 4)), (9, (42033, 4))):
        server = (*client[:-2], client[-2] + 1, 4)
        there, back = rows([client, server], struct.pack("!II", 3, 4), version=version)
        assert (there["packets"], back["packets"]) == (3, 4)


def test_a_round_trip_that_was_not_measured_is_none() -> None:
    fields: list[FieldSpec] = [(9, 4248, 4)]
    measured, not_measured = rows(fields, struct.pack("!I", 1500), b"\xff" * 4)
    assert (measured["rtt"], not_measured["rtt"]) == (pytest.approx(0.0015), 0)


def test_a_block_of_ports_is_known_by_its_first_unless_one_is_told() -> None:
    """RFC 8158: translators allot ports by the block."""
    assert one([(361, 2), (362, 2)], struct.pack("!HH", 1024, 2047))["nat_src_port"] == 1024
    assert one([(361, 2), (227, 2)], struct.pack("!HH", 1024, 0))["nat_src_port"] == 0


# Sampled packets


def test_an_ip_packet_tells_its_own_length() -> None:
    """RFC 5477: a section is a part of the packet only."""
    v4 = f.ipv4(TCP + bytes(1000), proto=6)
    assert one([(313, 40)], v4[:40])["bytes"] == len(v4)
    v6 = f.ipv6(TCP + bytes(1000), following=6)
    assert one([(313, 60)], v6[:60])["bytes"] == len(v6)
    assert one([(313, 12)], v4[:12])["bytes"] == len(v4)
    long = v6[:4] + b"\xff\xff" + v6[6:60]
    assert one([(313, 60)], long)["bytes"] == 0xFFFF + 40
    assert one([(313, 4), (224, 2)], v4[:4] + struct.pack("!H", 999))["bytes"] == 999


def test_padding_behind_a_section_is_no_part_of_the_packet() -> None:
    """RFC 7133, sectionExportedOctets, as softflowd pads the frames that it selects."""
    frame = f.ethernet(f.ipv4(f.udp(b"x", 53, 5353)))
    for told, section, size in (
        (len(frame), frame.ljust(200, b"\0"), len(frame)),
        (0, frame.ljust(200, b"\0"), 200),
        (300, frame.ljust(200, b"\0"), 200),
        (36, frame.ljust(200, b"\0"), 36),  # cut before the ports
    ):
        row = one([(315, len(section)), (410, 2)], section + struct.pack("!H", told))
        assert (row["bytes"], row["packets"], row["src_addr"]) == (size, 1, "192.0.2.1")
        assert row["dst_port"] == (0 if told == 36 else 5353)


def test_labels_of_a_section_are_read_and_what_follows_them() -> None:
    """RFC 5477, section 8.2.5."""
    section = struct.pack("!II", 16 << 12 | 64, 17 << 12 | 0x140) + PACKET
    row = one([(316, len(section))], section)
    assert (row["mpls_labels"], row["src_addr"]) == ([16, 17], "192.0.2.1")
    bare = one([(316, 8)], section[:8])
    assert (bare["mpls_labels"], bare["src_addr"]) == ([16, 17], "::")
    assert one([(317, len(PACKET))], PACKET)["dst_port"] == 50000


@pytest.mark.parametrize(("kind", "source", "mac"), [
    (0, "192.0.2.1", "02:00:00:00:00:01"), (1, "192.0.2.1", "02:00:00:00:00:01"),
    (2, "::", "00:00:00:00:00:00"), (7, "::", "00:00:00:00:00:00"),
])  # fmt: skip
def test_a_frame_is_read_as_what_it_is(kind: int, source: str, mac: str) -> None:
    """IANA's dataLinkFrameType: 1 Ethernet, 2 802.11 (of which these octets are none)."""
    frame = f.ethernet(PACKET)
    for fields, record in (
        ([(408, 2), (315, len(frame))], struct.pack("!H", kind) + frame),
        ([(315, len(frame)), (408, 2)], frame + struct.pack("!H", kind)),
    ):
        row = one(fields, record)
        assert (row["src_addr"], row["src_mac"], row["packets"]) == (source, mac, 1)


def test_a_wireless_frame_of_ipfix_is_read() -> None:
    addresses = bytes.fromhex("020000000002020000000001020000000003")
    frame = b"\x08\x01\0\0" + addresses + b"\0\x10" + b"\xaa\xaa\x03\0\0\0\x08\0" + PACKET
    row = one([(408, 2), (315, len(frame))], struct.pack("!H", 2) + frame)
    assert (row["src_mac"], row["dst_mac"]) == ("02:00:00:00:00:01", "02:00:00:00:00:03")
    assert (row["src_addr"], row["dst_port"]) == ("192.0.2.1", 50000)


def test_of_two_sections_in_one_record_the_first_is_the_packet() -> None:
    other = f.ethernet(f.ipv4(TCP, "203.0.113.1", "203.0.113.2", 6))
    frame = f.ethernet(PACKET)
    row = one([(315, len(frame)), (315, len(other)), (313, len(PACKET))], frame + other + PACKET)
    assert (row["src_addr"], row["bytes"], row["packets"]) == ("192.0.2.1", len(frame), 1)
