"""Connections of Cisco's firewalls: what updates told does not count again at their end."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from exporter import config
from exporter.decode import Decoder
from tests.support.netflow import NOW, FieldSpec, batch, ip, netflow9, set_of, template9

Row = dict[str, Any]

CREATED, ENDED, DENIED, UPDATED = 1, 2, 3, 5
NSEL: list[FieldSpec] = [
    (148, 4), (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (233, 1), (33002, 2), (231, 4), (232, 4),
    (298, 4), (299, 4),
]  # fmt: skip
TEMPLATE = template9(263, NSEL)


def event(kind: int, octets: int, back: int, *, connection: int = 4734214) -> bytes:
    """A record in which 100 octets are a packet."""
    return (
        struct.pack("!I", connection) + ip("10.0.0.1") + ip("192.0.2.80")
        + struct.pack("!HHBBH", 50000, 443, 6, kind, 2019)
        + struct.pack("!4I", octets, back, octets // 100, back // 100)
    )  # fmt: skip


def make() -> Decoder:
    return Decoder(config.Decode(), [])


def rows(decoder: Decoder, *events: bytes, device: str = "192.0.2.1", domain: int = 0) -> list[Row]:
    """What comes of the events, each in a set of its own."""
    sets = [set_of(263, record) for record in events]
    datagram = netflow9(TEMPLATE, *sets, domain=domain)
    found = decoder.decode(batch(datagram, device=device))
    return [row for flows in found for row in flows.rows()]


def counted(found: list[Row]) -> tuple[int, int, int]:
    """Octets there and back, and packets of both."""
    there = sum(row["bytes"] for row in found if row["src_addr"] == "10.0.0.1")
    octets = sum(row["bytes"] for row in found)
    return there, octets - there, sum(row["packets"] for row in found)


@pytest.mark.parametrize("ended_first", [False, True])
def test_an_update_and_the_end_of_a_connection_count_once(ended_first: bool) -> None:
    """Events may arrive in any order, says Cisco's guide."""
    events = [event(UPDATED, 300, 6000), event(ENDED, 300, 6000)]
    found = rows(make(), *(reversed(events) if ended_first else events))
    assert counted(found) == (300, 6000, 63)
    assert len(found) == 3  # the end is a flow of 0 bytes


def test_the_end_has_the_total_of_updates_that_came_long_before() -> None:
    decoder = make()
    created = rows(decoder, event(CREATED, 0, 0))
    first = rows(decoder, event(UPDATED, 2500, 1100))
    second = rows(decoder, event(UPDATED, 300, 0))
    last = rows(decoder, event(ENDED, 2800, 1100))
    assert counted(created + first + second + last) == (2800, 1100, 39)


def test_the_end_counts_where_no_update_came() -> None:
    decoder = make()
    assert counted(rows(decoder, event(UPDATED, 100, 100, connection=1))) == (100, 100, 2)
    assert counted(rows(decoder, event(ENDED, 300, 6000, connection=2))) == (300, 6000, 63)


def test_a_number_that_is_used_again_is_another_connection() -> None:
    decoder = make()
    rows(decoder, event(UPDATED, 300, 6000), event(ENDED, 300, 6000))
    assert counted(rows(decoder, event(ENDED, 200, 400))) == (200, 400, 6)


def test_connections_of_a_device_that_started_again_are_others() -> None:
    decoder = make()
    update = set_of(263, event(UPDATED, 300, 6000))
    decoder.decode(batch(netflow9(TEMPLATE, update, sequence=900_000)))
    end = set_of(263, event(ENDED, 200, 400))
    datagram = netflow9(TEMPLATE, end, sequence=1, uptime=5_000, seconds=NOW + 60)
    found = [row for flows in decoder.decode(batch(datagram)) for row in flows.rows()]
    assert counted(found) == (200, 400, 6)


@pytest.mark.parametrize("other", [{"device": "192.0.2.2"}, {"domain": 7}])
def test_connections_of_devices_and_domains_are_their_own(other: dict[str, Any]) -> None:
    decoder = make()
    rows(decoder, event(UPDATED, 300, 6000))
    assert counted(rows(decoder, event(ENDED, 300, 6000), **other)) == (300, 6000, 63)


def test_events_that_are_no_end_keep_what_they_count() -> None:
    found = rows(make(), event(UPDATED, 300, 0), event(DENIED, 100, 0), event(CREATED, 200, 0))
    assert counted(found) == (600, 0, 6)


def test_connections_survive_a_restart_of_the_collector(tmp_path: Path) -> None:
    file = config.Decode(template_file=str(tmp_path / "templates.json"))
    before = Decoder(file, [])
    rows(before, event(UPDATED, 300, 6000))
    rows(before, event(UPDATED, 100, 0), domain=7)
    rows(before, event(UPDATED, 100, 0, connection=5), event(ENDED, 100, 0, connection=5))
    before.save()
    after = Decoder(file, [])
    assert counted(rows(after, event(ENDED, 300, 6000))) == (0, 0, 0)
    assert counted(rows(after, event(ENDED, 100, 0), domain=7)) == (0, 0, 0)
    assert counted(rows(after, event(ENDED, 300, 6000), domain=8)) == (300, 6000, 63)
    assert counted(rows(after, event(ENDED, 200, 0, connection=5))) == (200, 0, 2)


def test_so_many_connections_are_remembered_and_no_more() -> None:
    decoder = make()
    rows(decoder, event(UPDATED, 300, 0, connection=5))
    rows(decoder, event(UPDATED, 100, 0, connection=5 + (1 << 20)))
    assert counted(rows(decoder, event(ENDED, 300, 0, connection=5))) == (300, 0, 3)
    assert counted(rows(decoder, event(ENDED, 100, 0, connection=5 + (1 << 20)))) == (0, 0, 0)


def test_ends_of_a_probe_that_counts_one_direction_keep_their_counters() -> None:
    """As of PAN-OS, which numbers its flows too and tells what came since the record before."""
    fields: list[FieldSpec] = [(148, 4), (8, 4), (12, 4), (233, 1), (1, 4)]
    head = struct.pack("!I", 7) + ip("10.0.0.1") + ip("192.0.2.80")
    records = [head + struct.pack("!BI", kind, 300) for kind in (UPDATED, ENDED)]
    datagram = netflow9(template9(256, fields), set_of(256, b"".join(records)))
    found = [row for flows in make().decode(batch(datagram)) for row in flows.rows()]
    assert [row["bytes"] for row in found] == [300, 300]
