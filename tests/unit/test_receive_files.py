"""Reading datagrams from raw files, pcap and pcapng."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.batch import format_address
from exporter.receive.captures import FileError
from exporter.receive.files import Datagram, batches, read_datagrams
from exporter.receive.frames import MAX_PARTIAL
from tests.support import frames as f


def read(path: Path, content: bytes) -> tuple[list[Datagram], list[FileError]]:
    path.write_bytes(content)
    errors: list[FileError] = []
    return list(read_datagrams(path, errors.append)), errors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_a_raw_file_is_one_datagram(path: Path) -> None:
    path.write_bytes(b"\x00\x09payload")
    os.utime(path, (1_700_000_000.5, 1_700_000_000.5))
    assert list(read_datagrams(path)) == [
        Datagram(b"\x00\x09payload", bytes(16), 0, 0, 1_700_000_000_500, 0)
    ]


@pytest.mark.parametrize("content", [b"", bytes(70_000)])
def test_a_file_that_is_no_datagram_is_an_error_with_its_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FileError, match=str(path)):
        list(read_datagrams(path))


def test_a_missing_file_is_an_error_with_its_name(path: Path) -> None:
    with pytest.raises(FileError, match=f"{path}: offset 0: No such file"):
        list(read_datagrams(path))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
def test_every_pcap_magic_number_is_read(path: Path, order: str, magic: int) -> None:
    frames = [f.ethernet(f.ipv4(f.udp(b"one"))), f.ethernet(f.ipv6(f.udp(b"two", 7, 8)))]
    content = f.pcap(frames, magic=magic, order=order, times=[1.25, 1_700_000_000.75])
    found, errors = read(path, content)
    assert not errors
    assert [(d.payload, d.time_received, d.port, d.destination_port) for d in found] == [
        (b"one", 1250, 5000, 2055),
        (b"two", 1_700_000_000_750, 7, 8),
    ]
    assert [format_address(d.sender) for d in found] == ["192.0.2.1", "2001:db8::1"]
    record = 24 if magic == 0xA1B2CD34 else 16
    assert [d.offset for d in found] == [24, 24 + record + len(frames[0])]


SNAP = bytes.fromhex("aaaa03000000")
PPPOE = struct.pack("!BBHH", 0x11, 0, 1, 0)
V4 = f.ipv4(f.udp(b"x"))
V6 = f.ipv6(f.udp(b"x"))


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (1, f.ethernet(V4)),
        (1, f.ethernet(V4, [(0x8100, 5)])),
        (1, f.ethernet(V6, [(0x88A8, 5), (0x8100, 6)])),
        (1, f.ethernet(f.ipv4(f.udp(b"x"), options=bytes(8)))),
        (1, f.ethernet(V4) + bytes(20)),
        (1, f.ethernet(SNAP + b"\x08\x00" + V4, ethertype=len(V4) + 8)),
        (1, f.ethernet(SNAP + b"\x86\xdd" + V6, [(0x8100, 5)], len(V6) + 8)),
        (1, f.ethernet(PPPOE + b"\x00\x21" + V4, ethertype=0x8864)),
        (1, f.ethernet(PPPOE + b"\x00\x57" + V6, [(0x9300, 5)], 0x8864)),
        (1, f.ethernet(bytes.fromhex("0006404000065140") + V4, ethertype=0x8847)),
        (9, b"\xff\x03\x00\x21" + V4),
        (9, b"\x00\x57" + V6),
        (50, b"\xff\x03\x02\x81" + bytes.fromhex("00065140") + V6),
        (104, b"\x0f\x00\x08\x00" + V4),
        (101, V4),
        (101, V6),
        (228, V4),
        (229, V6),
        (0, struct.pack("<I", 2) + V4),
        (0, struct.pack(">I", 30) + V6),
        (108, struct.pack(">I", 2) + V4),
        (113, bytes(14) + b"\x08\x00" + V4),
        (113, bytes(14) + b"\x81\x00" + b"\x00\x05\x86\xdd" + V6),
        (276, b"\x08\x00" + bytes(18) + V4),
        (276, b"\x86\xdd" + bytes(18) + V6),
    ],
)
def test_every_link_type_and_tag_is_unwrapped(path: Path, link_type: int, frame: bytes) -> None:
    found, errors = read(path, f.pcap([frame], link_type))
    assert not errors
    assert [d.payload for d in found] == [b"x"]


@pytest.mark.parametrize("following", [0, 43, 60, 51])
def test_ipv6_extension_headers_are_passed_over(path: Path, following: int) -> None:
    length = 2 if following == 51 else 1
    extension = bytes([17, length]) + bytes(14)
    packet = f.ipv6(extension + f.udp(b"x"), following=following)
    found, errors = read(path, f.pcap([packet], 101))
    assert not errors
    assert [d.payload for d in found] == [b"x"]


def fragments_v4(data: bytes, size: int, identification: int = 9) -> list[bytes]:
    return [
        f.ipv4(
            data[start : start + size],
            identification=identification,
            fragment=start // 8 | (0x2000 if start + size < len(data) else 0),
        )
        for start in range(0, len(data), size)
    ]


def fragments_v6(data: bytes, size: int) -> list[bytes]:
    packets = []
    for start in range(0, len(data), size):
        more = start + size < len(data)
        head = struct.pack("!BBHI", 17, 0, start | more, 77)
        packets.append(f.ipv6(head + data[start : start + size], following=44))
    return packets


PAYLOAD = bytes(range(256)) * 20


@pytest.mark.parametrize("make", [fragments_v4, fragments_v6])
@pytest.mark.parametrize("order", [1, -1])
def test_fragments_are_put_together_in_any_order(path: Path, make, order: int) -> None:  # type: ignore[no-untyped-def]
    packets = make(f.udp(PAYLOAD), 1480)
    found, errors = read(path, f.pcap([*packets[:2], *packets][::order], 101))
    assert [d.payload for d in found] == [PAYLOAD]
    # The repeated fragments begin a datagram that is never completed, if it was complete before.
    assert len(errors) == (0 if order == 1 else 1)


def test_fragments_of_different_datagrams_do_not_mix(path: Path) -> None:
    one = fragments_v4(f.udp(b"1" * 3000), 1480, 1)
    two = fragments_v4(f.udp(b"2" * 3000), 1480, 2)
    mixed = [packet for pair in zip(one, two, strict=True) for packet in pair]
    found, errors = read(path, f.pcap(mixed, 101))
    assert [d.payload for d in found] == [b"1" * 3000, b"2" * 3000]
    assert not errors


def test_a_missing_fragment_is_reported_with_its_offset(path: Path) -> None:
    packets = fragments_v4(f.udp(PAYLOAD), 1480)
    found, errors = read(path, f.pcap([packets[0], f.ipv4(f.udp(b"whole"))], 101))
    assert [d.payload for d in found] == [b"whole"]
    assert [(e.offset, e.reason) for e in errors] == [(24, "datagram lacks some of its fragments")]


def test_incomplete_datagrams_are_bounded_and_the_oldest_given_up(path: Path) -> None:
    packets = [fragments_v4(f.udp(PAYLOAD), 1480, i)[0] for i in range(MAX_PARTIAL + 10)]
    last = fragments_v4(f.udp(PAYLOAD), 1480, MAX_PARTIAL + 9)[1:]
    times = [1.0] * (len(packets) + len(last))
    found, errors = read(path, f.pcap([*packets, *last], 101, times=times))
    assert [d.payload for d in found] == [PAYLOAD]
    assert len(errors) == MAX_PARTIAL + 9


def test_a_datagram_cut_by_the_snap_length_is_reported_and_what_is_there_used(path: Path) -> None:
    frames = [f.ethernet(f.ipv4(f.udp(b"y" * 100))), f.ethernet(f.ipv4(f.udp(b"z")))]
    found, errors = read(path, f.pcap(frames, snap_length=60))
    assert [d.payload for d in found] == [b"y" * 18, b"z"]
    assert [(e.offset, e.reason) for e in errors] == [(24, "datagram lacks its last 82 bytes")]


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_file_cut_at_its_end_keeps_what_came_before(path: Path, cut: int) -> None:
    frame = f.ethernet(f.ipv4(f.udp(b"x")))
    whole = f.pcap([frame, frame])
    found, errors = read(path, whole[: 24 + 16 + len(frame) + cut])
    assert [d.payload for d in found] == [b"x"]
    assert [e.offset for e in errors] == [24 + 16 + len(frame)]


def test_a_damaged_record_length_is_reported_and_not_believed(path: Path) -> None:
    good = f.pcap([V4], 101)
    found, errors = read(path, good + struct.pack("<IIII", 1, 1, 2**31, 2**31) + bytes(100))
    assert len(found) == 1
    assert "record of 2147483648 bytes" in errors[0].reason


def test_an_unsupported_link_type_is_reported_once(path: Path) -> None:
    found, errors = read(path, f.pcap([bytes(100)] * 3, 147))
    assert not found
    assert [str(e) for e in errors] == [f"{path}: offset 24: link type 147 is not supported"]


def test_other_traffic_is_passed_over(path: Path) -> None:
    arp = f.ethernet(bytes(28), ethertype=0x0806)
    tcp = f.ethernet(f.ipv4(bytes(20), proto=6))
    found, errors = read(path, f.pcap([arp, tcp, f.ethernet(V4)]))
    assert len(found) == 1
    assert not errors


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_interfaces_have_their_own_link_type_and_clock(path: Path, order: str) -> None:
    content = b"".join(
        [
            f.pcapng_section(order),
            f.pcapng_interface(1, order),
            f.pcapng_interface(101, order, [(9, b"\x09"), (14, struct.pack(order + "q", 100))]),
            f.pcapng_interface(101, order, [(9, b"\x8a")]),
            f.pcapng_block(0xBAD, b"unknown block", order),
            f.pcapng_packet(f.ethernet(V4), 1_500_000, 0, order),
            f.pcapng_packet(V6, 2_500_000_000, 1, order),
            f.pcapng_packet(V4, 3 * 1024 + 512, 2, order),
        ]
    )
    found, errors = read(path, content)
    assert not errors
    assert [d.time_received for d in found] == [1500, 102_500, 3500]
    assert all(d.payload == b"x" for d in found)


def test_pcapng_sections_may_differ_in_byte_order(path: Path) -> None:
    parts = [
        f.pcapng_section(o) + f.pcapng_interface(101, o) + f.pcapng_packet(V4, 10**6, 0, o)
        for o in "<><"
    ]
    found, errors = read(path, b"".join(parts))
    assert len(found) == 3
    assert not errors


def test_pcapng_simple_and_obsolete_packets_are_read(path: Path) -> None:
    obsolete = struct.pack("<HHIIII", 0, 0, 0, 7_000_000, len(V4), len(V4)) + V4
    content = b"".join(
        [
            f.pcapng_section(),
            f.pcapng_interface(101),
            f.pcapng_block(2, obsolete),
            f.pcapng_block(3, struct.pack("<I", len(V6)) + V6),
        ]
    )
    found, errors = read(path, content)
    assert [d.time_received for d in found] == [7000, 7000]
    assert not errors


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (f.pcapng_packet(V4, 0, interface=5), "interface 5 is not described"),
        (struct.pack("<II", 6, 2**31), "length 2147483648"),
        (struct.pack("<II", 6, 13), "length 13"),
        (f.pcapng_packet(V4, 0)[:-4] + b"\0\0\0\0", "its two lengths differ"),
        (f.pcapng_packet(V4, 0)[:-9], "the file ends within it"),
    ],
)
def test_a_damaged_pcapng_block_is_reported(path: Path, block: bytes, reason: str) -> None:
    good = f.pcapng_section() + f.pcapng_interface(101) + f.pcapng_packet(V4, 0)
    found, errors = read(path, good + block)
    assert len(found) == 1
    assert [(e.offset, e.reason) for e in errors] == [
        (len(good), f"damaged pcapng block: {reason}")
    ]


@given(
    content=st.binary(max_size=300),
    start=st.sampled_from(
        [b"", f.pcap([]), f.pcap([], 101), f.pcapng_section() + f.pcapng_interface(101)]
    ),
)
def test_no_file_makes_reading_fail_other_than_by_a_file_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start + content)
    try:
        for datagram in read_datagrams(path, lambda error: None):
            assert len(datagram.payload) <= 65_535
    except FileError:
        assert not start


@given(packet=st.binary(max_size=120), version=st.sampled_from([4, 6]))
def test_no_packet_makes_reading_fail(
    tmp_path_factory: pytest.TempPathFactory, packet: bytes, version: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(f.pcap([bytes([version << 4 | 5]) + packet, V4], 101))
    assert list(read_datagrams(path, lambda error: None))[-1].payload == b"x"


def test_batches_hold_the_datagrams_in_order(path: Path) -> None:
    frames = [f.ipv4(f.udp(bytes([i]), port=i), source=f"192.0.2.{i}") for i in range(5)]
    found, _ = read(path, f.pcap(frames, 101, times=[float(i) for i in range(5)]))
    made = list(batches(found, size=2))
    assert [len(batch) for batch in made] == [2, 2, 1]
    assert [bytes(p) for batch in made for p in batch.payloads] == [bytes([i]) for i in range(5)]
    assert [t for batch in made for t in batch.time_received.tolist()] == [
        0,
        1000,
        2000,
        3000,
        4000,
    ]
    assert [p for batch in made for p in batch.ports.tolist()] == [0, 1, 2, 3, 4]
    assert format_address(made[2].senders[0].tobytes()) == "192.0.2.4"
