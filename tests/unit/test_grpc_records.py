"""What an eBPF agent reports becomes flow columns."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.address import pack_address
from exporter.config import Device
from exporter.proto import pbflow_pb2 as pb
from exporter.proto.pbflow_rows_pb2 import Row, Rows
from exporter.receive.grpc.records import MAX_RECORDS, RecordReader, TooManyRecordsError
from exporter.receive.grpc.service import peer_address
from tests.support.ebpf import record, set_address

ENDED = 1_780_000_000.25
RECEIVED = 1_780_000_001_000
PEER = pack_address("198.51.100.9")


def read(*records: pb.Record, devices: tuple[Device, ...] = ()) -> tuple[list[Any], Counter[str]]:
    message = pb.Records(entries=records).SerializeToString()
    flows, faults = RecordReader(devices).read(message, PEER, RECEIVED)
    return list(flows.rows(all_columns=True)), faults


def one(made: pb.Record, **options: Any) -> Any:
    rows, faults = read(made, **options)
    assert not faults
    return rows[0]


def test_headers_sizes_and_times() -> None:
    made = record(
        ended=ENDED,
        data_link=pb.DataLink(src_mac=0x112233445566, dst_mac=0xAABBCCDDEEFF),
        bytes=1 << 40,
    )
    made.network.dscp = 46
    row = one(made)
    assert row["source"] == "ebpf"
    assert (row["src_addr"], row["dst_addr"]) == ("10.1.0.1", "10.2.0.2")
    assert (row["src_port"], row["dst_port"], row["proto"]) == (40_000, 443, 6)
    assert (row["src_mac"], row["dst_mac"]) == ("11:22:33:44:55:66", "aa:bb:cc:dd:ee:ff")
    assert (row["bytes"], row["packets"], row["etype"], row["tos"]) == (1 << 40, 3, 0x0800, 46 << 2)
    assert row["time_flow_start"] == "2026-05-28T20:26:38.250Z"
    assert row["time_flow_end"] == "2026-05-28T20:26:40.250Z"
    assert row["time_received"] == "2026-05-28T20:26:41.000Z"
    assert row["time_source"] == "record"


def test_ipv6_and_icmp() -> None:
    row = one(
        record(
            "2001:db8::1", "fe80::2", ended=ENDED, icmp_type=128, icmp_code=0,
            transport=pb.Transport(protocol=58),
        )
    )  # fmt: skip
    assert (row["src_addr"], row["dst_addr"]) == ("2001:db8::1", "fe80::2")
    assert (row["proto"], row["icmp_type"], row["etype"]) == (58, 128, 0x86DD)


def test_the_device_is_the_agent_else_whoever_sent() -> None:
    rows, _ = read(
        record(ended=ENDED, agent="2001:db8::7"), record(ended=ENDED, agent=""),
        record(ended=ENDED),
    )  # fmt: skip
    assert [r["device_addr"] for r in rows] == ["2001:db8::7", "198.51.100.9", "192.0.2.7"]


def test_zeros_are_an_address_in_ipv4_only() -> None:
    rows, faults = read(
        record("0.0.0.0", "255.255.255.255", ended=ENDED),
        record("0.0.0.0", "0.0.0.0", ended=ENDED, eth_protocol=0x0806),
    )
    assert [r["src_addr"] for r in rows] == ["0.0.0.0", "::"]
    assert not faults


@pytest.mark.parametrize(
    ("told", "flags"), [(0x100, 0x12), (0x200, 0x11), (0x400, 0x14), (0x710, 0x17), (0x08, 0x08)]
)
def test_the_agents_bits_for_two_flags_are_spelled_out(told: int, flags: int) -> None:
    assert one(record(ended=ENDED, flags=told))["tcp_flags"] == flags


def test_a_flow_came_in_where_it_first_entered_and_went_out_where_it_last_left() -> None:
    row = one(
        record(
            ended=ENDED,
            direction=pb.EGRESS,
            interfaces=(("veth1", 1), ("br0", 0), ("bond0", 0), ("br0", 1), ("eth0", 1)),
        )
    )
    assert (row["in_if_name"], row["out_if_name"]) == ("br0", "eth0")
    assert row["direction"] == "egress"


def test_agents_of_before_the_list_name_one_interface_and_their_duplicates_are_left_out() -> None:
    rows, faults = read(
        record(ended=ENDED, interfaces=(), interface="eth0", direction=pb.INGRESS),
        record(ended=ENDED, interfaces=(), interface="br0", duplicate=True),
    )
    assert [(r["in_if_name"], r["out_if_name"], r["direction"]) for r in rows] == [
        ("eth0", "", "ingress")
    ]
    assert faults == {"duplicate": 1}


def test_a_user_defined_network_is_a_vrf() -> None:
    made = record(ended=ENDED)
    made.dup_list[0].udn = "blue/net1"
    assert one(made)["vrf"] == "blue/net1"


def test_rtt_drops_and_translation() -> None:
    made = record(ended=ENDED, pkt_drop_bytes=120, pkt_drop_packets=2, sampling=10)
    made.time_flow_rtt.FromMicroseconds(2500)
    set_address(made.xlat.src_addr, "10.9.0.1")
    set_address(made.xlat.dst_addr, "10.9.0.2")
    made.xlat.src_port, made.xlat.dst_port = 7, 8
    row = one(made)
    assert row["rtt"] == pytest.approx(0.0025)
    assert (row["drop_bytes"], row["drop_packets"]) == (120, 2)  # not sampled by the agent
    assert (row["nat_src_addr"], row["nat_dst_addr"]) == ("10.9.0.1", "10.9.0.2")
    assert (row["nat_src_port"], row["nat_dst_port"]) == (7, 8)


def test_dns_has_a_code_only_in_responses() -> None:
    asked = record(ended=ENDED, dns_id=7, dns_flags=0x0100, dns_name="pool.example.")
    answered = record(ended=ENDED, dns_id=7, dns_flags=0x8183, dns_name="pool.example")
    answered.dns_latency.FromMilliseconds(40)
    rows, _ = read(asked, answered, record(ended=ENDED))
    assert [r["dns_name"] for r in rows] == ["pool.example", "pool.example", ""]
    assert [r["dns_rcode"] for r in rows] == ["", "NXDOMAIN", ""]
    assert [r["dns_latency"] for r in rows] == pytest.approx([0, 0.04, 0])


def test_encryption_is_an_application() -> None:
    rows, _ = read(
        record(ended=ENDED, ssl_version=0x0304), record(ended=ENDED, ssl_version=0xFEFD),
        record(ended=ENDED, quic=pb.Quic(version=1)), record(ended=ENDED),
    )  # fmt: skip
    assert [r["app"] for r in rows] == ["TLS 1.3", "TLS 0xfefd", "QUIC", ""]


@pytest.mark.parametrize(
    ("told", "device", "rate", "source"),
    [
        (50, {}, 50, "record"),
        (0, {}, 1, "unknown"),
        (0, {"sampling_rate": 20}, 20, "configured"),
        (50, {"sampling_rate": 20}, 50, "record"),
        (50, {"sampling_rate_override": 5}, 5, "configured"),
    ],
)
def test_sampling(told: int, device: dict[str, int], rate: int, source: str) -> None:
    known = Device(address="192.0.2.7", **device)
    row = one(record(ended=ENDED, sampling=told), devices=(known,))
    assert (row["sampling_rate"], row["sampling_source"]) == (rate, source)
    assert (row["bytes"], row["packets"]) == (1500 * rate, 3 * rate)


def test_wrong_values_are_counted_and_lose_nothing_else() -> None:
    address, port, when = record(ended=ENDED), record(ended=ENDED), record(ended=ENDED + 1e7)
    address.network.src_addr.ipv6 = b"short"
    port.transport.dst_port = 70_000
    rows, faults = read(address, port, when)
    assert faults == {"invalid_address": 1, "out_of_range": 1, "times_replaced": 1}
    assert (rows[0]["src_addr"], rows[0]["dst_addr"]) == ("::", "10.2.0.2")
    assert (rows[1]["dst_port"], rows[1]["src_port"]) == (0, 40_000)
    assert rows[2]["time_source"] == "received"
    assert rows[2]["time_flow_end"] == "2026-05-28T20:26:41.000Z"


def test_an_empty_message_and_an_empty_record() -> None:
    assert read() == ([], {})
    rows, _ = read(pb.Record())
    assert (rows[0]["src_addr"], rows[0]["device_addr"]) == ("::", "198.51.100.9")


@given(st.binary(max_size=200))
def test_whatever_is_a_message_can_be_read(octets: bytes) -> None:
    made = pb.Record()
    try:
        made.ParseFromString(octets)
    except Exception:
        return
    assert len(read(made)[0]) == (0 if made.duplicate else 1)


EXTREMES = [0, 1, 2**31 - 1, 2**32 - 1]


@given(
    st.sampled_from(EXTREMES), st.sampled_from([-(2**63), -1, 0, 2**62, 2**63 - 1]),
    st.sampled_from([-(2**31), 0, 2**31 - 1]), st.sampled_from([0, 2**63, 2**64 - 1]),
)  # fmt: skip
def test_no_number_is_too_large(narrow: int, seconds: int, nanos: int, wide: int) -> None:
    made = pb.Record(
        eth_protocol=narrow, flags=narrow, icmp_type=narrow, icmp_code=narrow, dns_flags=narrow,
        sampling=narrow, bytes=wide, packets=wide, pkt_drop_bytes=wide, pkt_drop_packets=wide,
    )  # fmt: skip
    for field in (made.time_flow_start, made.time_flow_end, made.time_flow_rtt, made.dns_latency):
        field.seconds, field.nanos = seconds, nanos
    made.transport.src_port = made.transport.protocol = made.network.dscp = narrow
    made.data_link.src_mac = wide
    rows, _ = read(made)
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv6:[fe80::1%25eth0]:5000", "fe80::1"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:5000", "192.0.2.1"),
        ("unix:/run/x", "::"),
        ("ipv4:nonsense", "::"),
    ],
)
def test_addresses_of_peers(peer: str, address: str) -> None:
    assert peer_address(peer) == pack_address(address)


def full(**fields: Any) -> pb.Record:
    """A record with something in every message that it holds."""
    made = record(ended=ENDED, dns_flags=0x8180, interfaces=(("eth0", 0), ("br0", 1)), **fields)
    made.data_link.src_mac, made.data_link.dst_mac = 1 << 47, 3
    made.network.dscp = 46
    made.time_flow_rtt.FromNanoseconds(123_456_789)
    made.dns_latency.FromMilliseconds(1500)
    set_address(made.xlat.src_addr, "2001:db8::5")
    return made


UNKNOWN = (b"\xf8\x07\x01", b"\xfd\x07abcd", b"\xf9\x07\xff\xff\xff\xff\xff\xff\xff\xff",
           b"\xfa\x07\x02\xff\xff")  # fmt: skip
PARTS = [field.name for field in Row.DESCRIPTOR.fields if field.type == field.TYPE_BYTES]


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("front", [True, False])
def test_fields_of_later_agents_are_passed_over(unknown: bytes, front: bool) -> None:
    row = Row.FromString(full().SerializeToString())
    for name in PARTS:
        if name == "dup_list":
            row.dup_list[:] = [unknown + part if front else part + unknown for part in row.dup_list]
        elif part := getattr(row, name):
            setattr(row, name, unknown + part if front else part + unknown)
    plain = Row.FromString(full().SerializeToString())
    message = Rows(entries=[plain, row, plain]).SerializeToString()
    flows, faults = RecordReader(()).read(message, PEER, RECEIVED)
    first, second, third = flows.rows()
    assert not faults
    assert first == second == third == one_of(full())


def one_of(made: pb.Record) -> Any:
    message = pb.Records(entries=[made]).SerializeToString()
    return next(iter(RecordReader(()).read(message, PEER, RECEIVED)[0].rows()))


@pytest.mark.parametrize("name", [name for name in PARTS if name != "quic"])  # read as it is
@pytest.mark.parametrize("broken", [b"\x08", b"\x0a\x7f", b"\xff" * 12, b"\x80"])
def test_a_broken_message_in_a_record_harms_no_other(name: str, broken: bytes) -> None:
    row = Row.FromString(full().SerializeToString())
    if name == "dup_list":
        row.dup_list[:] = [broken]
    else:
        setattr(row, name, broken)
    plain = Row.FromString(full().SerializeToString())
    message = Rows(entries=[plain, row, plain]).SerializeToString()
    flows, faults = RecordReader(()).read(message, PEER, RECEIVED)
    first, second, third = flows.rows()
    assert faults["malformed_part"] == 1
    assert first == third == one_of(full())
    assert second["bytes"] == first["bytes"]


def test_rows_are_read_where_records_have_their_fields() -> None:
    fields = pb.Record.DESCRIPTOR.fields_by_name
    for field in Row.DESCRIPTOR.fields:
        same = fields[field.name]
        assert (field.number, field.is_repeated) == (same.number, same.is_repeated)
        kinds = {same.TYPE_MESSAGE: field.TYPE_BYTES, same.TYPE_ENUM: field.TYPE_INT32}
        assert field.type == kinds.get(same.type, same.type)


@pytest.mark.parametrize(
    "field",
    [b"\x0a\x00", b"\x8a\x00\x00", b"\x0a\x80\x00", b"\x10\x01", b"\x15" + bytes(4)],
)
def test_a_message_of_more_records_than_any_agent_sends_is_refused_unread(field: bytes) -> None:
    reader = RecordReader(())
    with pytest.raises(TooManyRecordsError, match="more than 50000 records"):
        reader.read(field * (MAX_RECORDS + 1), PEER, RECEIVED)
    reader.read(field * 3, PEER, RECEIVED)


def test_as_many_records_as_are_allowed_are_read_whatever_their_length() -> None:
    short, long = pb.Record(bytes=1), pb.Record(bytes=1, interface="e" * 200)
    entries = [long] * 100 + [short] * (MAX_RECORDS - 100)
    message = pb.Records(entries=entries).SerializeToString()
    flows, _ = RecordReader(()).read(message, PEER, RECEIVED)
    assert len(flows) == MAX_RECORDS
    more = message + pb.Records(entries=[long]).SerializeToString()
    with pytest.raises(TooManyRecordsError):
        RecordReader(()).read(more, PEER, RECEIVED)


def test_a_long_part_takes_no_more_memory_than_a_few_times_its_octets() -> None:
    size = 2 << 20
    padding = b"\x78\x00" * (size // 2)  # fields that nobody knows
    row = Row.FromString(full().SerializeToString())
    row.transport += padding
    row.time_flow_end += padding
    row.dup_list.extend([b""] * (size // 2))
    message = Rows(entries=[row]).SerializeToString()
    tracemalloc.start()
    flows, faults = RecordReader(()).read(message, PEER, RECEIVED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not faults
    assert peak < 4 * len(message)
    assert next(iter(flows.rows())) == one_of(full())
