"""Messages inside of records, many at a time, from octets to arrays.

Source: the Protocol Buffers encoding (protobuf.dev, "Encoding"). Messages that consist of numbers
alone are cut into varints all together; addresses stand at the same octets in all messages of one
length. Whatever looks otherwise (fields in another order, unknown ones) goes to the library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from exporter.proto import pbflow_pb2 as pb

_MAPPED: Final = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
_IPV4: Final = b"\x0d"  # field 1, four octets, little-endian
_IPV6: Final = b"\x12\x10"  # field 2, sixteen octets
_LONGEST_VARINT: Final = 10
#: The tag of field 1 with a length; kinds of fields, and octets of those of fixed width.
_FIRST: Final = 0x0A
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}
_DSCP: Final = b"\x18"  # field 3, a varint
#: Messages of numbers that are longer than any that says something go to the library: the arrays
#: take forty times as much memory as the octets.
_LONGEST: Final = 128

M = TypeVar("M", bound=Message)

#: Told the reason when a part cannot be read.
OnFault = Callable[[str], None]


def numbers(
    parts: Sequence[bytes], fields: dict[str, int], kind: type[Message], fault: OnFault
) -> dict[str, NDArray[np.uint64]]:
    """Fields of messages of numbers, one per part; 0 where a message lacks it.

    ``fields`` has the numbers of the wanted fields; ``kind`` reads what looks unusual. Signed
    numbers come as their 64 bits.
    """
    found = {name: np.zeros(len(parts), np.uint64) for name in fields}
    lengths = np.fromiter(map(len, parts), np.intp, len(parts))
    long = np.flatnonzero(lengths > _LONGEST).tolist()
    for row in long:
        _read_one(parts[row], row, found, kind, fault)
    if long:
        parts = [part if len(part) <= _LONGEST else b"" for part in parts]
        lengths[long] = 0
    filled = np.flatnonzero(lengths)
    if not len(filled):
        return found
    octets = np.frombuffer(b"".join(parts), np.uint8)
    ends = np.cumsum(lengths)
    unusual = filled
    # A part that ends within a varint would run into the next one.
    if (octets[ends[filled] - 1] < 0x80).all() and (cut := _varints(octets)) is not None:
        begins, varints = cut
        part = np.searchsorted(ends, begins, "right")
        counts = np.bincount(part, minlength=len(parts))
        nth = np.arange(len(begins)) - (np.cumsum(counts) - counts)[part]
        tags = np.flatnonzero((nth & 1) == 0)
        odd = (counts & 1) == 1
        odd[part[tags[(varints[tags] & np.uint64(7)) != 0]]] = True
        tags = tags[~odd[part[tags]]]
        for name, number in fields.items():
            at = tags[varints[tags] == number << 3]
            found[name][part[at]] = varints[at + 1]
        unusual = np.flatnonzero(odd)
    for row in unusual.tolist():
        _read_one(parts[row], row, found, kind, fault)
    return found


def _varints(octets: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.uint64]] | None:
    """Where varints begin, and what they are; ``None`` where one is longer than any can be."""
    begins = np.concatenate(([0], np.flatnonzero(octets < 0x80)[:-1] + 1))
    place = np.arange(len(octets)) - np.repeat(begins, np.diff(np.append(begins, len(octets))))
    if int(place.max()) >= _LONGEST_VARINT:
        return None
    bits = (octets & np.uint8(0x7F)).astype(np.uint64) << (place * 7).astype(np.uint64)
    return begins, np.add.reduceat(bits, begins)


def _read_one(
    part: bytes, row: int, found: dict[str, NDArray[np.uint64]], kind: type[Message],
    fault: OnFault,
) -> None:  # fmt: skip
    try:
        message = kind.FromString(part)
    except DecodeError:
        fault("malformed_part")
        return
    for name, values in found.items():
        values[row] = getattr(message, name) & 0xFFFF_FFFF_FFFF_FFFF


def networks(
    parts: Sequence[bytes], fault: OnFault
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint32]]:
    """Source, destination (``(n, 16)``) and DSCP of ``pbflow.Network`` messages.

    An address that is absent is ``::``; one with a wrong length is told as ``invalid_address``.
    """
    count = len(parts)
    source, destination = np.zeros((count, 16), np.uint8), np.zeros((count, 16), np.uint8)
    dscp = np.zeros(count, np.uint32)
    lengths = np.fromiter(map(len, parts), np.intp, count)
    other = lengths > 0
    for size, tag in ((4, _IPV4), (16, _IPV6)):
        inner = size + len(tag)
        heads = [bytes([field << 3 | 2, inner]) + tag for field in (1, 2)]
        plain = 2 * (inner + 2)
        for length in (plain, plain + 2):
            rows = np.flatnonzero(lengths == length)
            if not len(rows):
                continue
            octets = np.frombuffer(b"".join([parts[row] for row in rows.tolist()]), np.uint8)
            octets = octets.reshape(-1, length)
            second = inner + 2
            fits = _begins(octets, 0, heads[0]) & _begins(octets, second, heads[1])
            if length > plain:
                fits &= _begins(octets, plain, _DSCP) & (octets[:, -1] < 0x80)
            rows, octets = rows[fits], octets[fits]
            for into, at in ((source, 0), (destination, second)):
                begin = at + 2 + len(tag)
                address = octets[:, begin : begin + size]
                if size == 4:
                    into[rows, :12] = _MAPPED
                    into[rows, 12:] = address[:, ::-1]
                else:
                    into[rows] = address
            if length > plain:
                dscp[rows] = octets[:, -1]
            other[rows] = False
    for row in np.flatnonzero(other).tolist():
        try:
            message = pb.Network.FromString(parts[row])
        except DecodeError:
            fault("malformed_part")
            continue
        source[row] = np.frombuffer(packed(message.src_addr, fault), np.uint8)
        destination[row] = np.frombuffer(packed(message.dst_addr, fault), np.uint8)
        dscp[row] = message.dscp
    return source, destination, dscp


def packed(address: pb.IP, fault: OnFault) -> bytes:
    """An address as 16 octets, ``::`` where there is none or a wrong one."""
    if address.HasField("ipv4"):
        return _MAPPED.tobytes() + address.ipv4.to_bytes(4, "big")
    if len(address.ipv6) == 16:
        return address.ipv6
    if address.ipv6:
        fault("invalid_address")
    return bytes(16)


def _begins(octets: NDArray[np.uint8], at: int, head: bytes) -> NDArray[np.bool_]:
    """Which rows have ``head`` at a place."""
    found: NDArray[np.bool_] = np.logical_and.reduce(
        [octets[:, at + place] == octet for place, octet in enumerate(head)]
    )
    return found


def read_all(parts: Sequence[bytes], kind: type[M], fault: OnFault) -> list[M]:
    """Each part by the library; one that cannot be read is an empty message."""
    found = []
    for part in parts:
        try:
            found.append(kind.FromString(part))
        except DecodeError:
            fault("malformed_part")
            found.append(kind())
    return found


def fields_exceed(message: bytes, most: int) -> bool:
    """Whether a message has more fields than ``most``, without making an object of any.

    What is no message ends where it is wrong: the library says so when it reads it.
    """
    end = len(message)
    if end <= 2 * most:  # a field takes two octets
        return False
    position = 0
    try:
        for _ in range(most):
            if position >= end:
                return False
            length = message[position + 1]
            if message[position] == _FIRST and length < 0x80:  # the usual: a short record
                position += 2 + length
            else:
                position = _after(message, position)
    except IndexError:
        return False
    return position < end


def _after(message: bytes, position: int) -> int:
    """Where the field ends that begins at a place."""
    tag, position = _varint(message, position)
    wire = tag & 7
    if wire == _LENGTH_DELIMITED:
        length, position = _varint(message, position)
        return position + length
    if wire == _VARINT:
        return _varint(message, position)[1]
    # A group's fields are taken for the message's own; nobody has sent one for years.
    return position + _FIXED.get(wire, 0)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A varint, and where it ends."""
    octet = message[position]
    number = octet & 0x7F
    shift = 7
    while octet >= 0x80 and shift < 7 * _LONGEST_VARINT:
        position += 1
        octet = message[position]
        number |= (octet & 0x7F) << shift
        shift += 7
    return number, position + 1
