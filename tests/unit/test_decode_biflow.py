"""Records of both directions are two flows."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from exporter import config
from exporter.decode import Decoder
from exporter.decode.elements import REVERSE
from tests.support.netflow import (
    DEVICE,
    NOW,
    FieldSpec,
    batch,
    ip,
    ipfix,
    netflow9,
    options_template9,
    set_of,
    template9,
    template10,
)

Row = dict[str, Any]

KEY: list[FieldSpec] = [(8, 4), (12, 4), (7, 2), (11, 2), (10, 4), (14, 4), (15, 4), (6, 1)]
PAIR = (
    ip("10.0.0.1") + ip("10.0.0.2") + struct.pack("!HHII", 1000, 80, 1, 2) + ip("10.0.0.254")
    + b"\x1b"
)  # fmt: skip


def rows(datagram: bytes) -> list[Row]:
    found = Decoder(config.Decode(), []).decode(batch(datagram))
    return [row for flows in found for row in flows.rows()]


def test_initiator_and_responder() -> None:
    fields: list[FieldSpec] = [*KEY, (231, 4), (298, 4), (232, 4), (299, 4)]
    record = PAIR + struct.pack("!4I", 100, 1, 900, 9)
    there, back = rows(netflow9(template9(256, fields), set_of(256, record)))
    assert (there["bytes"], there["packets"]) == (100, 1)
    assert (back["bytes"], back["packets"]) == (900, 9)
    assert (there["src_addr"], there["dst_addr"]) == ("10.0.0.1", "10.0.0.2")
    assert (back["src_addr"], back["dst_addr"]) == ("10.0.0.2", "10.0.0.1")
    assert (back["src_port"], back["dst_port"]) == (80, 1000)
    assert (back["in_if"], back["out_if"]) == (2, 1)
    assert back["time_received"] == there["time_received"]


MERAKI: list[FieldSpec] = [*KEY, (1, 4), (2, 4), (23, 4), (24, 4)]


@pytest.mark.parametrize(
    ("fields", "form"), [([(1, 4), (2, 4), (232, 2)], "!IIH"), ([(1, 4), (2, 4), (299, 2)], "!IIH")]
)
def test_a_responder_needs_an_initiator(fields: list[FieldSpec], form: str) -> None:
    """Huawei's NetStream has something else as element 232, of two octets beside the VLANs."""
    record = PAIR + struct.pack(form, 530, 6, 1)
    (row,) = rows(netflow9(template9(256, [*KEY, *fields]), set_of(256, record)))
    assert (row["bytes"], row["packets"]) == (530, 6)


def both(datagram: bytes, *, reverse_counters: bool) -> list[Row]:
    device = config.Device(address=DEVICE, reverse_counters=reverse_counters)
    found = Decoder(config.Decode(), [device]).decode(batch(datagram))
    return [row for flows in found for row in flows.rows()]


@pytest.mark.parametrize("version", [9, 10])
def test_out_counters_of_a_device_that_is_known_for_it_are_the_other_direction(
    version: int,
) -> None:
    """Cisco Secure Workload's connector says so of Meraki's NetFlow."""
    record = PAIR + struct.pack("!4I", 530, 6, 638, 10)
    body = set_of(256, record)
    datagram = (
        netflow9(template9(256, MERAKI), body)
        if version == 9
        else ipfix(template10(256, MERAKI), body)
    )
    there, back = both(datagram, reverse_counters=True)
    assert (there["src_addr"], there["bytes"], there["packets"]) == ("10.0.0.1", 530, 6)
    assert (back["src_addr"], back["bytes"], back["packets"]) == ("10.0.0.2", 638, 10)
    (only,) = both(datagram, reverse_counters=False)
    assert (only["bytes"], only["packets"]) == (530, 6)


def test_templates_that_are_repeated_stay_in_force_with_reverse_counters() -> None:
    device = config.Device(address=DEVICE, reverse_counters=True)
    decoder = Decoder(config.Decode(), [device])
    template = template9(256, MERAKI)
    record = set_of(256, PAIR + struct.pack("!4I", 530, 6, 638, 10))
    found = [
        row
        for sequence in range(2)
        for flows in decoder.decode(batch(netflow9(template, record, sequence=sequence)))
        for row in flows.rows()
    ]
    assert [row["bytes"] for row in found] == [530, 638] * 2
    (stream,) = decoder.state.streams()
    assert stream.device.templates == 1


def test_a_device_is_told_otherwise_by_a_reload() -> None:
    decoder = Decoder(config.Decode(), [])
    datagram = netflow9(template9(256, MERAKI), set_of(256, PAIR + struct.pack("!4I", 5, 1, 6, 1)))
    assert sum(len(flows) for flows in decoder.decode(batch(datagram))) == 1
    decoder.configure([config.Device(address=DEVICE, reverse_counters=True)])
    later = datagram[:12] + struct.pack("!I", 1) + datagram[16:]
    assert sum(len(flows) for flows in decoder.decode(batch(later))) == 2


def test_what_holds_for_one_direction_is_not_told_of_the_other() -> None:
    fields: list[FieldSpec] = [*KEY, (231, 4), (232, 4)]
    there, back = rows(
        netflow9(template9(256, fields), set_of(256, PAIR + struct.pack("!2I", 1, 2)))
    )
    assert there["next_hop"] == "10.0.0.254"
    assert there["tcp_flags"] == 0x1B
    assert not back.keys() & {"next_hop", "tcp_flags"}


def test_a_direction_that_counts_nothing_is_no_flow() -> None:
    fields: list[FieldSpec] = [*KEY, (1, 4), (232, 4)]
    (row,) = rows(netflow9(template9(256, fields), set_of(256, PAIR + struct.pack("!2I", 5, 0))))
    assert row["bytes"] == 5


def test_reverse_elements() -> None:
    """RFC 5103: the reverse of IANA's elements have an enterprise number of their own."""
    fields: list[FieldSpec] = [
        *KEY, (1, 8), (2, 8), (152, 8), (153, 8),
        (REVERSE, 1, 8), (REVERSE, 2, 8), (REVERSE, 6, 1), (REVERSE, 152, 8), (REVERSE, 153, 8),
    ]  # fmt: skip
    second = 1000
    times = (NOW * second - 900, NOW * second - 800, NOW * second - 700, NOW * second - 600)
    record = PAIR + struct.pack("!QQQQQQBQQ", 10, 1, *times[:2], 20, 2, 0x12, *times[2:])
    there, back = rows(ipfix(template10(256, fields), set_of(256, record)))
    assert (there["bytes"], there["packets"], there["tcp_flags"]) == (10, 1, 0x1B)
    assert (back["bytes"], back["packets"], back["tcp_flags"]) == (20, 2, 0x12)
    assert there["time_flow_start"] == "2023-11-14T22:13:19.100Z"
    assert back["time_flow_start"] == "2023-11-14T22:13:19.300Z"
    assert back["time_flow_end"] == "2023-11-14T22:13:19.400Z"


def test_reverse_elements_need_none_of_the_other_direction() -> None:
    fields: list[FieldSpec] = [(8, 4), (12, 4), (REVERSE, 5, 1), (REVERSE, 6, 1), (REVERSE, 1, 8)]
    record = ip("10.0.0.1") + ip("10.0.0.2") + struct.pack("!BBQ", 0xB8, 0x12, 20)
    there, back = rows(ipfix(template10(256, fields), set_of(256, record)))
    assert there["bytes"] == 0
    assert (back["bytes"], back["tos"], back["tcp_flags"]) == (20, 0xB8, 0x12)


def test_the_other_direction_lasts_as_long_unless_it_tells_otherwise() -> None:
    fields: list[FieldSpec] = [*KEY, (152, 8), (153, 8), (REVERSE, 2, 8)]
    record = PAIR + struct.pack("!QQQ", NOW * 1000 - 900, NOW * 1000 - 800, 2)
    there, back = rows(ipfix(template10(256, fields), set_of(256, record)))
    for name in ("time_flow_start", "time_flow_end", "time_source"):
        assert back[name] == there[name]
    fields += [(REVERSE, 152, 8), (REVERSE, 161, 4)]
    record += struct.pack("!QI", NOW * 1000 - 700, 300)
    _, back = rows(ipfix(template10(256, fields), set_of(256, record)))
    assert back["time_flow_start"] == "2023-11-14T22:13:19.300Z"
    assert back["time_flow_end"] == "2023-11-14T22:13:19.600Z"
    assert (back["bytes"], back["packets"]) == (0, 2)


def test_reverse_totals_count_where_there_are_no_deltas() -> None:
    fields: list[FieldSpec] = [*KEY, (85, 8), (REVERSE, 85, 8)]
    there, back = rows(ipfix(template10(256, fields), set_of(256, PAIR + struct.pack("!2Q", 7, 8))))
    assert (there["bytes"], back["bytes"]) == (7, 8)


def test_both_directions_are_estimates() -> None:
    options = options_template9(300, [(1, 4)], [(34, 4)]) + set_of(300, struct.pack("!II", 0, 10))
    fields: list[FieldSpec] = [*KEY, (231, 4), (232, 4)]
    data = set_of(256, PAIR + struct.pack("!2I", 3, 4))
    there, back = rows(netflow9(options, template9(256, fields), data))
    assert (there["bytes"], back["bytes"]) == (30, 40)
    assert back["sampling_rate"] == 10


def test_translated_addresses_turn_too() -> None:
    fields: list[FieldSpec] = [*KEY, (225, 4), (226, 4), (227, 2), (228, 2), (231, 4), (232, 4)]
    nat = ip("198.51.100.1") + ip("10.0.0.2") + struct.pack("!HH", 40000, 80)
    record = PAIR + nat + struct.pack("!2I", 1, 1)
    _, back = rows(netflow9(template9(256, fields), set_of(256, record)))
    assert (back["nat_src_addr"], back["nat_dst_addr"]) == ("10.0.0.2", "198.51.100.1")
    assert (back["nat_src_port"], back["nat_dst_port"]) == (80, 40000)


@pytest.mark.parametrize(
    ("behavior", "octets", "there", "back"),
    [
        (b"INITIAL,SERVER_IS_LOCAL", (86, 78), 86, 78),
        (b"CLIENT_IS_LOCAL,ACTIVE", (86, 78), 78, 86),
        (b"CLIENT_IS_LOCAL,ACTIVE", (86, 0), 0, 86),
        (b"INITIAL", (86, 78), 78, 86),
        (b"INITIAL", (86, 0), 86, None),
    ],
)
def test_octets_to_and_from_a_subscriber_are_two_flows_of_its_end(
    behavior: bytes, octets: tuple[int, int], there: int, back: int | None
) -> None:
    """Procera's are incoming and outgoing; which end is the subscriber's is a word in a text."""
    fields: list[FieldSpec] = [*KEY, (15397, 3, 8), (15397, 4, 8), (15397, 15, 0xFFFF)]
    record = PAIR + struct.pack("!QQB", *octets, len(behavior)) + behavior
    found = rows(ipfix(template10(256, fields), set_of(256, record)))
    assert [(row["src_addr"], row["bytes"]) for row in found] == [
        ("10.0.0.1", there),
        ("10.0.0.2", back),
    ][: 1 if back is None else 2]


def test_counters_of_a_subscriber_give_way_to_those_of_the_flow() -> None:
    fields: list[FieldSpec] = [*KEY, (1, 4), (15397, 3, 8), (15397, 4, 8)]
    (row,) = rows(
        ipfix(template10(256, fields), set_of(256, PAIR + struct.pack("!IQQ", 164, 86, 78)))
    )
    assert row["bytes"] == 164
