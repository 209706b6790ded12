"""What we want to know of a DNS message, read from its bytes.

The message is as RFC 1035 section 4 has it. Names are decompressed and written by dnspython; what
is around them is read here, as a message object of dnspython's costs ten times as much.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import dns.exception
import dns.name
import dns.rcode
import dns.rdatatype

from exporter.address import MAPPED_PREFIX

_HEADER: Final = struct.Struct(">HHHHHH")
_QUESTION: Final = struct.Struct(">HH")
_RECORD: Final = struct.Struct(">HHIH")
_OPCODE: Final = 0x7800
_RCODE: Final = 0x000F
_POINTER: Final = 0xC0

_A: Final = 1
_CNAME: Final = 5
_AAAA: Final = 28
_IN: Final = 1

#: Addresses of one answer that are kept, and records that are looked at for them.
MAX_ADDRESSES: Final = 100
_MAX_RECORDS: Final = 500
#: RFC 2181 section 8: a TTL with the highest bit set means 0.
_MAX_TTL: Final = 2**31 - 1


class DnsMessageError(Exception):
    """Bytes that are no DNS message with one question; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked. ``wire`` tells the same query's response from others: id and question."""

    name: str
    type: str
    wire: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: its ``rcode`` by name, and the addresses (16 bytes) that the name asked for has.

    Those are the ones at the end of its chain of CNAMEs; ``ttl`` is the least one on the way, in
    seconds, 0 where there are no addresses.
    """

    question: Question
    rcode: str
    addresses: tuple[bytes, ...]
    ttl: int


def read_question(wire: bytes) -> Question:
    """The question of a query or a response.

    Raises:
        DnsMessageError: it has none, or several.
    """
    return _question(wire)[0]


def read_response(wire: bytes) -> Response:
    """A response; records after a broken one are not seen, as those of a truncated message.

    Raises:
        DnsMessageError: its header or its question is broken.
    """
    question, records = _question(wire)
    _, flags, _, answers, _, _ = _HEADER.unpack_from(wire)
    addresses: tuple[bytes, ...] = ()
    ttl = 0
    if answers:
        addresses, ttl = _addresses(wire, records, min(answers, _MAX_RECORDS))
    return Response(question, _rcode(flags & _RCODE), addresses, ttl)


def _question(wire: bytes) -> tuple[Question, int]:
    """The question, and where the records begin."""
    if len(wire) < _HEADER.size:
        raise DnsMessageError("shorter than a header")
    number, flags, questions, _, _, _ = _HEADER.unpack_from(wire)
    if flags & _OPCODE:
        raise DnsMessageError("no query by its opcode")
    if questions != 1:
        raise DnsMessageError(f"{questions} questions")
    # A name of a question is not compressed, and only its end is an empty label. Where a label
    # holds a zero, dnspython says so by the length.
    position = _HEADER.size
    while position < len(wire) and wire[position]:
        position += 1 + wire[position]
    end = position + 1 + _QUESTION.size
    if end > len(wire):
        raise DnsMessageError("the question is cut short")
    name = _name_text(wire[_HEADER.size : position + 1])
    kind, _ = _QUESTION.unpack_from(wire, position + 1)
    # Some resolvers and clients mix cases in names at random.
    key = number.to_bytes(2, "big") + wire[_HEADER.size : end].lower()
    return Question(name, _type(kind), key), end


@lru_cache(16_384)
def _name_text(wire: bytes) -> str:
    try:
        name, size = dns.name.from_wire(wire, 0)
    except dns.exception.DNSException as error:
        raise DnsMessageError(f"the name: {error}") from error
    if size != len(wire):
        raise DnsMessageError("the name is compressed")
    return name.to_text(omit_final_dot=len(wire) > 1).lower()


@lru_cache(1024)
def _type(number: int) -> str:
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number))


@lru_cache(16)
def _rcode(number: int) -> str:
    return dns.rcode.to_text(dns.rcode.Rcode.make(number))


def _addresses(wire: bytes, position: int, count: int) -> tuple[tuple[bytes, ...], int]:
    """Addresses at the end of the chain that begins with the name asked for, and the least TTL."""
    names = _Names(wire)
    aliases: dict[dns.name.Name, tuple[dns.name.Name, int]] = {}
    found: dict[dns.name.Name, dict[bytes, int]] = {}
    try:
        for _ in range(count):
            owner, position = names.read(position)
            kind, kind_class, ttl, length = _RECORD.unpack_from(wire, position)
            position += _RECORD.size
            data = wire[position : position + length]
            ttl = ttl if ttl <= _MAX_TTL else 0
            if kind_class == _IN and len(data) == length:
                if kind == _A and length == 4:
                    found.setdefault(owner, {})[MAPPED_PREFIX + data] = ttl
                elif kind == _AAAA and length == 16:
                    found.setdefault(owner, {})[data] = ttl
                elif kind == _CNAME:
                    aliases[owner] = names.read(position)[0], ttl
            position += length
    except (struct.error, IndexError, dns.exception.DNSException):
        pass
    if not found:
        return (), 0
    name = names.read(_HEADER.size)[0]
    least = _MAX_TTL
    for _ in range(len(aliases)):
        if name in found or name not in aliases:
            break
        name, ttl = aliases[name]
        least = min(least, ttl)
    addresses = found.get(name)
    if not addresses:
        return (), 0
    return tuple(addresses)[:MAX_ADDRESSES], min(least, *addresses.values())


class _Names:
    """The names of one message; most are two bytes that point to one that was read before."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._read: dict[int, tuple[dns.name.Name, int]] = {}

    def read(self, position: int) -> tuple[dns.name.Name, int]:
        """The name that begins at ``position``, and where it ends.

        Raises:
            IndexError, dns.exception.DNSException: there is none.
        """
        wire = self._wire
        if wire[position] >= _POINTER:
            target = (wire[position] - _POINTER) << 8 | wire[position + 1]
            if target >= position:
                raise dns.name.BadPointer
            return self._at(target)[0], position + 2
        return self._at(position)

    def _at(self, position: int) -> tuple[dns.name.Name, int]:
        known = self._read.get(position)
        if known is None:
            name, size = dns.name.from_wire(self._wire, position)
            known = self._read[position] = name, position + size
        return known
