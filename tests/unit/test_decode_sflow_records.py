"""sFlow records beyond headers and routes: labels, stripped tags, times, sockets, transactions.

Layouts: sflow.org's sflow_version_5.txt, sflow_http.txt, sflow_application.txt and the list of
structures at https://sflow.org/developers/structures.php, drawn by hand.
"""

from __future__ import annotations

import struct
import time
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from exporter import config
from exporter.batch import DTYPES, DictColumn
from exporter.decode.elements import ElementTable
from exporter.decode.sflow import SflowDecoder
from exporter.decode.state import State
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import BY_NAME
from tests.support import frames as f
from tests.support import sflow as s

NOW = time.time_ns() // 1_000_000
SENDER = bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
TCP = struct.pack("!HHIIHHHH", 443, 50000, 1, 2, 0x5012, 100, 0, 0)
PACKET = f.ipv4(TCP, "192.0.2.1", "198.51.100.2", 6)
FRAME = f.ethernet(PACKET)
RAW = s.raw_header(FRAME, length=1000)


class Decoding:
    def __init__(self) -> None:
        settings = config.Decode()
        self.state = State(settings, [], ElementTable(()))
        self.decoder = SflowDecoder(settings, [], self.state)

    def rows(self, *samples: bytes) -> list[dict[str, Any]]:
        """The flows of a datagram of these samples, which has no faults."""
        senders = np.frombuffer(SENDER, np.uint8).reshape(1, 16)
        batch = DatagramBatch.of(
            [s.datagram(samples)], senders, np.zeros(1, np.uint16), np.array([NOW], np.int64)
        )
        batches = self.decoder.decode(batch)
        for flows in batches:
            for name, column in flows.columns.items():
                if not isinstance(column, DictColumn):
                    assert column.dtype == DTYPES[BY_NAME[name].kind], name
        return [row for flows in batches for row in flows.rows()]

    def errors(self) -> dict[str, int]:
        total = self.state.elsewhere.errors.copy()
        for device in self.state.devices.values():
            total += device.errors
        return dict(total)


def one(*records: bytes, **head: Any) -> dict[str, Any]:
    """The flow of a sample with these records, which has no faults."""
    decoding = Decoding()
    (row,) = decoding.rows(s.flow_sample(records, **head))
    assert decoding.errors() == {}
    return row


def label(number: int, *, bottom: bool = False) -> int:
    return number << 12 | bottom << 8 | 64


def test_labels_that_the_header_lacks_are_those_that_the_packet_came_with() -> None:
    row = one(RAW, s.mpls("203.0.113.7", [label(16), label(17, bottom=True)], [label(99)]))
    assert row["mpls_labels"] == [16, 17]
    assert row["next_hop"] == "203.0.113.7"
    leaving = one(RAW, s.mpls("203.0.113.7", [], [label(99, bottom=True)]))
    assert leaving["mpls_labels"] == [99]
    assert one(RAW, s.mpls("203.0.113.7", [], []))["mpls_labels"] == []


def test_packets_with_different_labels_keep_their_own() -> None:
    stacks = [[16], [17, 18], [], [16], [0, 16], list(range(20, 28))]
    samples = []
    for stack in stacks:
        entries = b"".join(struct.pack("!I", label(n, bottom=n == stack[-1])) for n in stack)
        samples.append(
            s.flow_sample([s.raw_header(entries + PACKET, protocol=13 if stack else 11)])
        )
        samples.append(s.flow_sample([RAW, s.mpls("203.0.113.7", [label(n) for n in stack], [])]))
    rows = Decoding().rows(*samples)
    assert [row["mpls_labels"] for row in rows] == [stack for stack in stacks for _ in range(2)]
    assert {row["src_addr"] for row in rows} == {"192.0.2.1"}
    deep = s.mpls("203.0.113.7", [label(n) for n in range(30, 42)], [])
    assert one(RAW, deep)["mpls_labels"] == list(range(30, 38))


def test_labels_of_the_header_and_the_routers_next_hop_go_first() -> None:
    labelled = s.raw_header(struct.pack("!I", label(16, bottom=True)) + PACKET, protocol=13)
    told = s.mpls("203.0.113.7", [label(500, bottom=True)], [])
    with_header, without = Decoding().rows(
        s.flow_sample([labelled, told, s.router("203.0.113.1", 24, 16)]),
        s.flow_sample([told, s.raw_header(FRAME)]),
    )
    assert with_header["mpls_labels"] == [16]
    assert with_header["next_hop"] == "203.0.113.1"
    assert one(RAW, told, s.router("0.0.0.0", 24, 16))["next_hop"] == "203.0.113.7"
    assert without["mpls_labels"] == [500]
    assert without["next_hop"] == "203.0.113.7"


@pytest.mark.parametrize("depths", [(2**31, 0), (0, 1), (0, 2**32 - 1)])
def test_a_stack_that_leads_out_of_its_record_is_a_fault_and_no_labels(
    depths: tuple[int, int],
) -> None:
    decoding = Decoding()
    body = s.address("203.0.113.7") + struct.pack("!II", *depths)
    (row,) = decoding.rows(s.flow_sample([RAW, s.part(1006, body)]))
    assert row["mpls_labels"] == []
    assert decoding.errors() == {"short_record": 1}


def test_a_tag_that_the_switch_took_off_is_the_vlan_where_nothing_else_tells_it() -> None:
    stripped = s.part(1012, struct.pack("!III", 2, 0x88A8_0064, 0x8100_0065))
    assert one(RAW, stripped)["src_vlan"] == 0x64
    row = one(RAW, stripped, s.switch(10, 20))
    assert (row["src_vlan"], row["dst_vlan"]) == (10, 20)
    assert one(RAW, s.part(1012, bytes(4)))["src_vlan"] == 0


def test_a_device_that_tells_when_it_saw_a_packet_is_believed_unless_that_cannot_be() -> None:
    seen = NOW - 2_500
    sane, not_told, odd = Decoding().rows(
        s.flow_sample([RAW, s.part(1043, struct.pack("!Q", seen * 1_000_000 + 999))]),
        s.flow_sample([RAW]),
        s.flow_sample([RAW, s.part(1043, struct.pack("!Q", 2**64 - 1))]),
    )
    assert sane["time_flow_start"] == sane["time_flow_end"]
    assert sane["time_flow_start"] != sane["time_received"]
    assert sane["time_source"] == "record"
    for row in (not_told, odd):
        assert row["time_flow_start"] == row["time_flow_end"] == row["time_received"]
        assert row["time_source"] == "received"


def test_a_host_tells_the_round_trip_time_of_a_connection() -> None:
    info = s.part(2209, struct.pack("!12I", 1, 1448, 536, 3, 0, 0, 1500, 12_500, 300, 10, 3, 9))
    row = one(RAW, info)
    assert row["rtt"] == pytest.approx(0.0125)
    assert (row["packets"], row["bytes"]) == (100, 100_000)


def socket(protocol: int, own: str, other: str, own_port: int, other_port: int) -> bytes:
    addresses = ip_address(own).packed + ip_address(other).packed
    body = struct.pack("!I", protocol) + addresses + struct.pack("!II", own_port, other_port)
    return s.part(2100 if len(addresses) == 8 else 2101, body)


def http(host: bytes, status: int, *, old: bool = False) -> bytes:
    texts = [b"/index.html?a=b", host, b"", b"curl/8", b"203.0.113.50", b"", b"text/html"]
    if old:
        del texts[4]
    body = struct.pack("!II", 2, 1001) + b"".join(map(s.opaque, texts))
    sizes = struct.pack("!Q", 5000) if old else struct.pack("!QQ", 10, 5000)
    return s.part(2201 if old else 2206, body + sizes + struct.pack("!II", 1234, status))


@pytest.mark.parametrize("old", [False, True])
def test_an_http_transaction_is_a_flow_that_counts_nothing(old: bool) -> None:
    """Its packets are sampled on the way."""
    row = one(
        http(b"www.example.com", 404, old=old),
        socket(6, "192.0.2.80", "198.51.100.7", 80, 50123),
    )
    assert (row["http_host"], row["http_status"]) == ("www.example.com", 404)
    assert (row["src_addr"], row["src_port"]) == ("192.0.2.80", 80)
    assert (row["dst_addr"], row["dst_port"]) == ("198.51.100.7", 50123)
    assert (row["proto"], row["etype"]) == (6, 0x0800)
    assert (row["bytes"], row["packets"]) == (0, 0)
    assert row["sampling_rate"] == 100


def test_a_transaction_is_never_a_dropped_packet() -> None:
    """Though a sample may say so: output 0x40000102 is reason 258, an access list."""
    told = {"out_if": 1 << 30 | 258, "rate": 10}
    packet, transaction = Decoding().rows(
        s.flow_sample([RAW], **told), s.flow_sample([http(b"a.example", 200)], **told)
    )
    assert (packet["forwarding_status"], packet["drop_packets"]) == (130, 10)
    assert (transaction["forwarding_status"], transaction["drop_packets"]) == (0, 0)


def test_an_operation_of_an_application_has_its_name_and_socket() -> None:
    texts = b"".join(map(s.opaque, (b"payments", b"authorise", b"cc=visa", b"ok")))
    operation = s.part(2202, texts + struct.pack("!QQII", 10, 20, 30, 0))
    row = one(operation, socket(17, "2001:db8::1", "2001:db8::2", 8080, 40000))
    assert row["app"] == "payments"
    assert (row["src_addr"], row["dst_addr"]) == ("2001:db8::1", "2001:db8::2")
    assert (row["src_port"], row["dst_port"], row["etype"]) == (8080, 40000, 0x86DD)
    assert row["packets"] == 0


def test_transactions_beside_packets_keep_their_own_values() -> None:
    packet, first, second, bare = Decoding().rows(
        s.flow_sample([RAW]),
        s.flow_sample([http(b"a.example", 200), socket(6, "192.0.2.80", "192.0.2.1", 80, 1)]),
        s.flow_sample([http(b"b.example", 500), socket(6, "192.0.2.80", "192.0.2.2", 80, 2)]),
        s.flow_sample([http(b"", 301)]),
    )
    assert (packet["packets"], packet["http_host"], packet["http_status"]) == (100, "", 0)
    assert (first["http_host"], first["dst_addr"]) == ("a.example", "192.0.2.1")
    assert (second["http_host"], second["http_status"]) == ("b.example", 500)
    assert (bare["http_status"], bare["src_addr"], bare["packets"]) == (301, "::", 0)


def test_a_sampled_packet_with_a_socket_stays_a_packet() -> None:
    row = one(RAW, socket(6, "10.0.0.1", "10.0.0.2", 1, 2))
    assert (row["src_addr"], row["src_port"], row["packets"]) == ("192.0.2.1", 443, 100)


def test_the_host_of_a_url_is_that_of_the_packet() -> None:
    body = struct.pack("!I", 2) + s.opaque(b"/a/b?c") + s.opaque(b"www.example.org")
    row = one(RAW, s.part(1005, body))
    assert row["http_host"] == "www.example.org"
    assert row["packets"] == 100
    assert one(RAW, s.part(1005, struct.pack("!III", 2, 0, 0)))["http_host"] == ""


def test_strings_that_lead_out_of_their_record_are_a_fault_and_no_text() -> None:
    whole = http(b"www.example.com", 200)
    decoding = Decoding()
    # The length of the host says more than the record has.
    broken = whole.replace(struct.pack("!I", 15) + b"www.", struct.pack("!I", 2**32 - 1) + b"www.")
    assert broken != whole
    rows = decoding.rows(s.flow_sample([RAW, broken]), s.flow_sample([RAW, whole]))
    assert [row["http_host"] for row in rows] == ["", "www.example.com"]
    assert decoding.errors() == {"short_record": 1}


def test_a_transaction_without_its_end_is_a_fault_and_no_flow() -> None:
    decoding = Decoding()
    cut = s.part(2206, http(b"www.example.com", 200)[8:-4])
    assert decoding.rows(s.flow_sample([cut])) == []
    assert decoding.errors() == {"short_record": 1}


@pytest.mark.parametrize(
    "kind",
    [1004, 1008, 1009, 1010, 1011, 1013, 1014, 1015, 1016, *range(1021, 1031), 1036, 1037, 1038,
     1039, 1040, 1041, 1042, 2102, 2103, 2200, 2203, 2204, 2205, 2207, 2210, 4300 << 12 | 1],
)  # fmt: skip
def test_records_without_a_column_are_passed_over_whatever_they_hold(kind: int) -> None:
    for body in (b"", bytes(40), b"\xff" * 44):
        row = one(s.part(kind, body), RAW, s.switch(7, 8))
        assert (row["src_addr"], row["src_vlan"], row["dst_vlan"]) == ("192.0.2.1", 7, 8)
        assert row["bytes"] == 100_000


# Links that are no Ethernet


@pytest.mark.parametrize("protocol", [7, 14])
@pytest.mark.parametrize(
    "head",
    [b"\xff\x03\x00\x21", b"\x00\x21", b"\x21", b"\xff\x03\x21",
     b"\xff\x03\x02\x81" + struct.pack("!I", label(16, bottom=True))],
)  # fmt: skip
def test_packets_behind_ppp_are_read(protocol: int, head: bytes) -> None:
    """RFC 1661 and 1662: address, control and half of the protocol may be left out."""
    row = one(s.raw_header(head + PACKET, protocol=protocol))
    assert (row["src_addr"], row["dst_port"], row["etype"]) == ("192.0.2.1", 50000, 0x0800)
    assert row.get("mpls_labels", []) == ([16] if len(head) > 4 else [])


@pytest.mark.parametrize("header", [b"", b"\xff", b"\xff\x03\xc0\x21" + bytes(40)])
def test_what_is_no_ip_behind_ppp_still_counts(header: bytes) -> None:
    row = one(s.raw_header(header, length=60, protocol=7))
    assert (row["bytes"], row["etype"], row["src_addr"]) == (6000, 0, "::")


def cut(header: bytes, length: int, protocol: int) -> bytes:
    """A raw header of ``length`` octets before others that do not belong to it."""
    return s.part(1, struct.pack("!4I", protocol, 60, 0, length) + header + bytes(-len(header) % 4))


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_what_is_behind_the_end_of_a_header_is_not_read(length: int) -> None:
    row = one(cut(b"\xff\x03\x00\x21" + PACKET, length, 7))
    assert (row["bytes"], row["etype"], row["src_addr"]) == (6000, 0, "::")


STATION, BASE, SERVER = (bytes.fromhex(f"0200000000{n:02x}") for n in (1, 2, 3))
SNAP = b"\xaa\xaa\x03\0\0\0\x08\0"


def wireless(control: int, flags: int, *addresses: bytes, rest: bytes = b"") -> bytes:
    first, second, third, *fourth = addresses
    head = struct.pack("!BBH", control, flags, 0) + first + second + third + b"\0\x10"
    return head + b"".join(fourth) + rest


@pytest.mark.parametrize(
    ("header", "sender", "receiver"),
    [(wireless(0x08, 0x01, BASE, STATION, SERVER, rest=SNAP), STATION, SERVER),
     (wireless(0x08, 0x02, STATION, BASE, SERVER, rest=SNAP), SERVER, STATION),
     (wireless(0x08, 0x00, SERVER, STATION, BASE, rest=SNAP), STATION, SERVER),
     (wireless(0x08, 0x03, BASE, BASE, SERVER, STATION, rest=SNAP), STATION, SERVER),
     (wireless(0x88, 0x01, BASE, STATION, SERVER, rest=b"\0\0" + SNAP), STATION, SERVER),
     (wireless(0x88, 0x81, BASE, STATION, SERVER, rest=bytes(6) + SNAP), STATION, SERVER)],
    ids=["to the network", "from the network", "among stations", "relayed", "quality", "control"],
)  # fmt: skip
def test_wireless_frames_are_read(header: bytes, sender: bytes, receiver: bytes) -> None:
    """IEEE 802.11-2020, table 9-30: which address is whose depends on the way."""
    row = one(s.raw_header(header + PACKET, protocol=15))
    assert row["src_mac"] == sender.hex(":")
    assert row["dst_mac"] == receiver.hex(":")
    assert (row["src_addr"], row["etype"], row["dst_port"]) == ("192.0.2.1", 0x0800, 50000)


def test_of_enciphered_wireless_frames_only_addresses_are_read() -> None:
    header = wireless(0x08, 0x41, BASE, STATION, SERVER, rest=SNAP)
    row = one(s.raw_header(header + PACKET, protocol=15))
    assert (row["src_mac"], row["dst_mac"]) == (STATION.hex(":"), SERVER.hex(":"))
    assert (row["src_addr"], row["etype"]) == ("::", 0)
    beacon = wireless(0x80, 0, b"\xff" * 6, BASE, BASE, rest=SNAP)
    row = one(s.raw_header(beacon + PACKET, protocol=15))
    assert (row["src_mac"], row["src_addr"]) == ("00:00:00:00:00:00", "::")


def test_wireless_frames_without_data_or_cut_off_have_no_packet() -> None:
    null = wireless(0x48, 0x01, BASE, STATION, SERVER, rest=SNAP)
    row = one(s.raw_header(null + PACKET, protocol=15))
    assert (row["src_mac"], row["etype"], row["src_addr"]) == (STATION.hex(":"), 0, "::")
    relayed = wireless(0x88, 0x03, BASE, BASE, SERVER, STATION, rest=b"\0\0" + SNAP)
    for length in (0, 23, 24, 31):
        row = one(cut(relayed + PACKET, length, 15))
        assert (row["src_mac"], row["etype"], row["src_addr"]) == ("00:00:00:00:00:00", 0, "::")


def test_a_subframe_of_an_aggregated_wireless_frame_is_read_like_ethernet() -> None:
    frame = SERVER + STATION + struct.pack("!H", 8 + len(PACKET)) + SNAP + PACKET
    row = one(s.raw_header(frame, protocol=17))
    assert (row["src_mac"], row["src_addr"], row["dst_port"]) == (
        STATION.hex(":"), "192.0.2.1", 50000
    )  # fmt: skip


def test_other_links_beside_ethernet_keep_their_own_values() -> None:
    rows = Decoding().rows(
        s.flow_sample([RAW]),
        s.flow_sample([s.raw_header(b"\0\x21" + PACKET, protocol=7)]),
        s.flow_sample([s.raw_header(FRAME, protocol=2)]),
        s.flow_sample([RAW]),
    )
    assert [row["src_addr"] for row in rows] == ["192.0.2.1", "192.0.2.1", "::", "192.0.2.1"]
    assert [row["src_mac"] == "02:00:00:00:00:01" for row in rows] == [True, False, False, True]
