"""dnstap messages and the DNS messages in them."""

from __future__ import annotations

import contextlib
import struct
import time

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.address import pack_address
from exporter.proto import dnstap_pb2 as pb
from exporter.receive.dnstap.dns import (
    MAX_ADDRESSES,
    DnsMessageError,
    Response,
    read_question,
    read_response,
)
from exporter.receive.dnstap.message import DnstapError, Tap, read_frame
from tests.support.dnstap import frame, query, response


def read(*records: str, name: str = "Registry.Example", kind: str = "A") -> Response:
    return read_response(response(query(name, kind), *records).to_wire())


def packed(*addresses: str) -> tuple[bytes, ...]:
    return tuple(map(pack_address, addresses))


def test_a_question_is_read_in_lower_case() -> None:
    question = read_question(query("EU1.Pool.Example", "AAAA").to_wire())
    assert (question.name, question.type) == ("eu1.pool.example", "AAAA")


def test_the_root_and_unknown_types_have_names() -> None:
    assert read_question(query(".", "NS").to_wire()).name == "."
    assert read_question(query("a.example", "TYPE65280").to_wire()).type == "TYPE65280"


def test_bytes_that_are_no_text_are_escaped() -> None:
    wire = query("aXb.example").to_wire().replace(b"\x03aXb", b"\x03a\xffb")
    assert read_question(wire).name == "a\\255b.example"


def test_addresses_at_the_end_of_aliases_are_those_of_the_name_asked_for() -> None:
    found = read(
        "registry.example. 300 IN CNAME edge.cdn.example.",
        "edge.cdn.example. 20 IN CNAME pop7.cdn.example.",
        "pop7.cdn.example. 60 IN A 192.0.2.10",
        "pop7.cdn.example. 60 IN A 192.0.2.11",
    )
    assert found.question.name == "registry.example"
    assert found.rcode == "NOERROR"
    assert found.addresses == packed("192.0.2.10", "192.0.2.11")
    assert found.ttl == 20


def test_addresses_of_other_names_are_not_taken() -> None:
    assert read("other.example. 60 IN A 192.0.2.66").addresses == ()
    mixed = read("registry.example. 60 IN A 192.0.2.1", "other.example. 9 IN A 192.0.2.66")
    assert (mixed.addresses, mixed.ttl) == (packed("192.0.2.1"), 60)


def test_aliases_in_a_circle_lead_nowhere() -> None:
    circle = ("registry.example. 9 IN CNAME b.example.", "b.example. 9 IN CNAME registry.example.")
    assert read(*circle, "c.example. 9 IN A 192.0.2.1").addresses == ()


def test_ipv6_addresses_are_read() -> None:
    found = read("registry.example. 60 IN AAAA 2001:db8::10", kind="AAAA")
    assert found.addresses == packed("2001:db8::10")


def test_a_name_that_does_not_exist_has_its_code() -> None:
    missing = response(query("nope.example"), rcode=dns.rcode.NXDOMAIN)
    assert read_response(missing.to_wire()).rcode == "NXDOMAIN"


def test_of_very_many_addresses_the_first_are_kept() -> None:
    found = read(*(f"registry.example. 60 IN A 10.0.{n // 250}.{n % 250}" for n in range(450)))
    assert len(found.addresses) == MAX_ADDRESSES


def test_names_that_are_chains_of_thousands_of_pointers_are_not_followed() -> None:
    wire = struct.pack(">6H", 1, 0x8000, 1, 500, 0, 0) + b"\x01a\x00" + struct.pack(">HH", 1, 1)
    record = struct.Struct(">HHHIH")
    first = len(wire) + record.size
    chain = [0xC000 | at for at in (12, *range(first, 15_998, 2))]
    wire += record.pack(0xC00C, 16, 1, 60, 2 * len(chain)) + struct.pack(f">{len(chain)}H", *chain)
    for place in range(499):
        wire += record.pack(0xC000 | first + 2 * (len(chain) - 1 - place), 1, 1, 60, 4) + bytes(4)
    began = time.process_time()
    assert read_response(wire).addresses == ()
    assert time.process_time() - began < 2  # followed to their ends, ten seconds


def test_what_comes_before_a_cut_is_kept() -> None:
    records = ("registry.example. 60 IN A 192.0.2.1", "registry.example. 60 IN A 192.0.2.2")
    wire = response(query("registry.example"), *records).to_wire()
    assert read_response(wire[:-3]).addresses == packed("192.0.2.1")


@pytest.mark.parametrize(
    ("wire", "what"),
    [
        (b"", "header"),
        (query("a.example").to_wire()[:15], "cut short"),
        (dns.message.Message(id=1).to_wire(), "0 questions"),
        (query("a.example").to_wire()[:2] + b"\x28" + query("a.example").to_wire()[3:], "opcode"),
        (b"\0\1\0\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1" + bytes(300), "the name"),
    ],
)
def test_what_is_no_query_is_refused(wire: bytes, what: str) -> None:
    with pytest.raises(DnsMessageError, match=what):
        read_question(wire)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    good = response(query("a.b.example"), "a.b.example. 60 IN CNAME c.example.").to_wire()
    for wire in (data, good[:12] + data, good[: len(good) - len(data)] + data):
        with contextlib.suppress(DnsMessageError):
            read_response(wire)


@given(st.binary(max_size=200))
def test_no_frame_raises_anything_else(data: bytes) -> None:
    for payload in (data, frame(query("a.example"))[: len(data)] + data):
        with contextlib.suppress(DnstapError):
            read_frame(payload)


def test_a_frame_tells_who_asked_whom_and_when() -> None:
    tap = read_frame(frame(query("a.example"), client="2001:db8::5", time=1000.25))
    assert isinstance(tap, Tap)
    assert (tap.kind, tap.identity, tap.client_port) == ("client_query", "r1", 40000)
    assert (tap.client, tap.resolver) == packed("2001:db8::5", "10.0.0.53")
    assert (tap.query_time, tap.response_time) == (1000.25, None)


def test_messages_between_servers_are_passed_over() -> None:
    assert read_frame(frame(query("a.example"), kind=pb.Message.RESOLVER_QUERY)) == "resolver_query"


def test_frames_that_cannot_be_used_say_why() -> None:
    for payload, reason in (
        (b"\xff\xff\xff", "protobuf"),
        (pb.Dnstap(identity=b"x").SerializeToString(), "protobuf"),
        (pb.Dnstap(message=pb.Message(type=pb.Message.CLIENT_QUERY)).SerializeToString(), "dns"),
    ):
        with pytest.raises(DnstapError) as caught:
            read_frame(payload)
        assert caught.value.reason == reason
    nobody = pb.Dnstap.FromString(frame(query("a.example")))
    nobody.message.query_address = b"abc"
    with pytest.raises(DnstapError, match="address"):
        read_frame(nobody.SerializeToString())
