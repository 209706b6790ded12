"""From octets in records to column values, all rows of a layout at once."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from exporter.batch import Array, DictColumn
from exporter.decode.elements import Reading
from exporter.schema import Direction

#: ``::ffff:0.0.0.0``, of a type whose 16 octets numpy copies at once.
_MAPPED_ADDRESS: Final = np.frombuffer(bytes(10) + b"\xff\xff" + bytes(4), np.complex128)
#: ``::ffff:0.0.0.0`` as the second 64-bit word of an address, in memory order.
_MAPPED_ZERO: Final = np.frombuffer(b"\0\0\xff\xff\0\0\0\0", np.uint64)[0]

#: Below this many values, sorting them is cheaper than hashing.
_FEW: Final = 2_048

#: Stands for "not told" in columns of times.
NO_TIME: Final = np.int64(np.iinfo(np.int64).min)

#: The last millisecond of the year 9999; what is later is no time.
LAST_TIME: Final = 253_402_300_799_999

_NOT_MEASURED: Final = np.uint64((1 << 32) - 1)

_NTP_EPOCH: Final = 2_208_988_800
_NTP_ERA: Final = 1 << 32
#: The lower 11 bits of a fraction say nothing (RFC 7011, section 6.1.9), and those above may have
#: been rounded down: a whole number of milliseconds must not become the one before it.
_NTP_ROUNDED: Final = np.uint64(1 << 11)
#: A time in NTP format that is at most this long before the export surely is one.
_NTP_SURE: Final = 366 * 86_400_000
#: Flows end no later than this after their export.
_AFTER_EXPORT: Final = 86_400_000

_FLOATS: Final = {4: ">f", 8: ">d"}

_RCODES: Final = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE",
)  # fmt: skip

_DNS_RESPONSE: Final = 0x8000

_DENIED: Final = 3
_INGRESS_LIST: Final = 1001
_EGRESS_LIST: Final = 1002
_EXCEPTION: Final = 2
_FORWARDED: Final = 64
_DROPPED: Final = 128
_ACL_DENIED: Final = 129

#: Longest text that is kept, in characters; what a datagram can hold is cut to this.
MAX_TEXT: Final = 1024


def unsigned(field: Array, dtype: np.dtype[Any] | type[Any]) -> Array:
    """A field of big-endian unsigned integers as ``dtype``; larger values lose their high bits."""
    if field.ndim == 2:
        padded = np.zeros((len(field), 8), np.uint8)
        padded[:, 8 - field.shape[1] :] = field
        field = padded.view(">u8")[:, 0]
    out = np.empty(len(field), dtype)
    out[:] = field
    return out


def addresses(field: Array) -> NDArray[np.uint8]:
    """IPv4 (``u4`` in memory order) or IPv6 (``V16``) as rows of 16 octets."""
    count = len(field)
    if field.dtype.itemsize == 16 and field.flags.c_contiguous:
        return field.view(np.uint8).reshape(count, 16)
    out = np.empty((count, 16), np.uint8)
    if field.dtype.itemsize == 4:
        out.view(np.complex128)[:] = _MAPPED_ADDRESS
        out.view(np.uint32)[:, 3] = field
    else:
        out.view("V16")[:, 0] = field
    return out


def no_address(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows are ``::`` or ``0.0.0.0``."""
    words = values.view(np.uint64)
    low = words[:, 1]
    empty: NDArray[np.bool_] = (words[:, 0] == 0) & ((low == 0) | (low == _MAPPED_ZERO))
    return empty


def no_ipv4(values: NDArray[np.uint8]) -> bool:
    """Whether it is plain that none of the rows is ``::`` or IPv4: none begins with ``::``."""
    return bool(values.view(np.uint64)[:, 0].min(initial=1))


def ntp_milliseconds(field: Array, exported: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    """Times in NTP format as milliseconds since the epoch.

    Devices exist that send a plain count of micro- or nanoseconds since the epoch instead
    (``divisor`` of them to the millisecond). Read in NTP format, that is some day in 2036 or later;
    so the reading holds that is not after the export, and of two such readings the closer one: a
    probe that reads an old capture exports times of years ago.

    pmacct's probe has 16 octets: seconds since the epoch, and the micro- or nanoseconds of it.
    """
    if field.ndim == 2:
        whole = milliseconds(np.ascontiguousarray(field[:, 0]), 1000)
        part = np.minimum(field[:, 1] // np.uint64(divisor), np.uint64(999))
        return whole + part.astype(np.int64)
    raw = unsigned(field, np.uint64)
    seconds = (raw >> np.uint64(32)).astype(np.int64)
    seconds += np.where(seconds < 1 << 31, _NTP_ERA - _NTP_EPOCH, -_NTP_EPOCH)
    fraction = ((raw & np.uint64(0xFFFFFFFF)) + _NTP_ROUNDED) * np.uint64(1000) >> np.uint64(32)
    times = seconds * 1000 + fraction.astype(np.int64)
    late = times > exported + _AFTER_EXPORT
    if not (late | (times < exported - _NTP_SURE)).any():
        return times
    plain = (raw // np.uint64(divisor)).astype(np.int64)
    closer = np.abs(plain - exported) < np.abs(times - exported)
    odd = np.where(late == (plain > exported + _AFTER_EXPORT), closer, late)
    return np.where(odd, plain, times)


def milliseconds(field: Array, scale: int) -> NDArray[np.int64]:
    """A count since the epoch of ``scale`` milliseconds each; beyond year 10000 it is no time."""
    raw = unsigned(field, np.uint64)
    last = np.uint64(LAST_TIME // scale)
    if raw.max(initial=0) > last:
        np.minimum(raw, last, out=raw)
    if scale != 1:
        raw *= np.uint64(scale)
    return raw.view(np.int64)


def directions(told: NDArray[np.uint8]) -> NDArray[np.int8]:
    """flowDirection (61) as :class:`exporter.schema.Direction`, which has one more for each.

    Computed, as looking each row up in a table takes several times as long.
    """
    known = (told + np.uint8(1)) * (told < Direction.EGRESS)
    return known.view(np.int8)


def latency(microseconds: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Seconds; 0 for what devices tell as not measured, 32 bits of ones."""
    measured = np.where(microseconds == _NOT_MEASURED, np.uint64(0), microseconds)
    return (measured / 1e6).astype(np.float32)


def fixed_bytes(field: Array) -> tuple[NDArray[np.uint32], list[bytes]]:
    """Codes and different values of a field of octets (``V<length>``)."""
    length = field.dtype.itemsize
    packed = np.ascontiguousarray(field)
    array = pa.Array.from_buffers(pa.binary(length), len(packed), [None, pa.py_buffer(packed)])
    encoded = array.dictionary_encode()
    return encoded.indices.to_numpy().view(np.uint32), encoded.dictionary.to_pylist()


def texts(codes: NDArray[np.uint32], shown: Sequence[str]) -> DictColumn:
    """A text column of ``shown``, one text per code; equal texts become one value."""
    index = dict.fromkeys(shown)
    if len(index) == len(shown):
        return DictColumn(codes, list(shown))
    places = dict(zip(index, range(len(index)), strict=True))
    return DictColumn(np.array([places[text] for text in shown], np.uint32)[codes], list(index))


def label_stacks(stacks: NDArray[np.uint32], depth: NDArray[np.int64]) -> DictColumn:
    """A column of MPLS labels: the first ``depth`` of each row of ``stacks``, whose rest is 0."""
    depth = np.minimum(depth, stacks.shape[1])
    levels = int(depth.max(initial=0))
    keys = np.empty((len(stacks), levels + 1), np.uint32)
    keys[:, 0], keys[:, 1:] = depth, stacks[:, :levels]
    codes, found = fixed_bytes(keys.view(f"V{keys.itemsize * (levels + 1)}")[:, 0])
    shown = np.frombuffer(b"".join(found), np.uint32).reshape(-1, levels + 1).tolist()
    return DictColumn(codes, [tuple(key[1 : key[0] + 1]) for key in shown])


def clean_text(raw: bytes) -> str:
    """UTF-8 up to the first NUL, without surrounding blanks; wrong octets become U+FFFD."""
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()[:MAX_TEXT]


def clean_texts(raws: Sequence[bytes]) -> list[str]:
    """:func:`clean_text` of each; all at once where none has a NUL or a wrong octet."""
    try:
        found = b"\0".join(raws).decode().split("\0")
    except UnicodeDecodeError:
        found = []
    if len(found) != len(raws) or max(map(len, found), default=0) > MAX_TEXT:
        return [clean_text(raw) for raw in raws]
    return list(map(str.strip, found))


def floating_point(raw: bytes) -> float | None:
    """A number of 8 octets, or reduced to 4 (RFC 7011, section 6.2); nothing for what is none."""
    form = _FLOATS.get(len(raw))
    number: float = math.nan if form is None else struct.unpack(form, raw)[0]
    return number if math.isfinite(number) else None


def application_id(raw: bytes) -> str:
    """RFC 6759 applicationId as ``engine:selector`` (``20:enterprise:selector``); 0 is empty."""
    if not raw.strip(b"\0"):
        return ""
    engine, selector = raw[0], raw[1:]
    if engine == 20 and len(selector) > 4:
        enterprise = int.from_bytes(selector[:4], "big")
        return f"20:{enterprise}:{int.from_bytes(selector[4:12], 'big')}"
    return f"{engine}:{int.from_bytes(selector[:8], 'big')}"


def avc_host(raw: bytes) -> str:
    """The HTTP host out of Cisco's sub-application fields, which all have one element number."""
    return clean_text(raw[6:]) if raw[4:6] == b"\x34\x02" else ""


def number_text(value: int) -> str:
    """A number as text; 0 as nothing."""
    return str(value) if value else ""


def rcode(value: int) -> str:
    """A DNS response code by name (RFC 6895)."""
    return _RCODES[value] if value < len(_RCODES) else str(value)


def dns_flags(value: int) -> str:
    """The response code in the second word of a DNS header (RFC 1035), if it is a response's."""
    return rcode(value & 0xF) if value & _DNS_RESPONSE else ""


def route_distinguisher(raw: bytes) -> str:
    """A route distinguisher (RFC 4364, section 4.2) as ``administrator:number``; 0 is empty."""
    if len(raw) != 8 or not raw.strip(b"\0"):
        return ""
    kind = int.from_bytes(raw[:2], "big")
    if kind == 1:
        return f"{'.'.join(map(str, raw[2:6]))}:{int.from_bytes(raw[6:], 'big')}"
    split = 6 if kind == 2 else 4
    return f"{int.from_bytes(raw[2:split], 'big')}:{int.from_bytes(raw[split:], 'big')}"


# What firewalls and line cards tell of a packet's fate, as forwardingStatus (RFC 7270, section
# 4.12); 0 where they tell of none.


def firewall_event(event: NDArray[Any]) -> NDArray[np.uint8]:
    """IANA's firewallEvent: a denied flow was dropped."""
    return np.where(event == _DENIED, _DROPPED, 0).astype(np.uint8)


def firewall_reason(event: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The extended event of Cisco's ASA: flows that access lists denied."""
    listed = (event == _INGRESS_LIST) | (event == _EGRESS_LIST)
    return np.where(listed, _ACL_DENIED, 0).astype(np.uint8)


def juniper_properties(value: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Juniper's forwarding exception codes, whose meaning depends on the platform; 0 is none."""
    fate = np.where(value & 0x3FF, _DROPPED, _FORWARDED)
    return np.where(value >> 10 == _EXCEPTION, fate, 0).astype(np.uint8)


def distinct(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Different values and, per row, which one it is; quickest where they are small."""
    if not len(values):
        return values, np.zeros(0, np.intp)
    low, high = values.min(), values.max()
    if low == high:
        return values[:1], np.zeros(len(values), np.intp)
    if high < 1 << 17:
        seen = np.zeros(int(high) + 1, np.bool_)
        seen[values] = True
        found = np.flatnonzero(seen)
        place = np.zeros(int(high) + 1, np.intp)
        place[found] = np.arange(len(found))
        return found.astype(values.dtype), place[values]
    if len(values) < _FEW:
        return np.unique(values, return_inverse=True)
    encoded = pa.array(values).dictionary_encode()
    return encoded.dictionary.to_numpy(), encoded.indices.to_numpy().astype(np.intp)


def distinct_pairs(
    first: NDArray[np.intp], second: NDArray[Any]
) -> tuple[list[tuple[int, int]], NDArray[np.intp]]:
    """Different pairs of two numbers, the second below 2**32, and, per row, which one it is."""
    if not first.any():
        found, places = distinct(second)
        return [(0, number) for number in found.tolist()], places
    width = int(second.max(initial=0)) + 1
    found, places = distinct(first * width + second.astype(np.int64))
    return [divmod(pair, width) for pair in found.tolist()], places


def fill(first: Array | DictColumn, further: Array | DictColumn) -> Array | DictColumn:
    """``first``, with ``further`` in the rows where it is empty."""
    if isinstance(first, DictColumn):
        assert isinstance(further, DictColumn)
        if "" not in first.values:
            return first
        empty = first.codes == first.values.index("")
        index = {value: code for code, value in enumerate(first.values)}
        mapping = np.array(
            [index.setdefault(value, len(index)) for value in further.values], np.uint32
        )
        return DictColumn(np.where(empty, mapping[further.codes], first.codes), list(index))
    assert not isinstance(further, DictColumn)
    if first.ndim == 2:
        empty = no_address(first) & ~no_address(further)
        if empty.any():
            first[empty] = further[empty]
        return first
    empty = first == 0
    if first.dtype == np.int64:  # times
        empty |= first == NO_TIME
    if empty.any():
        first[empty] = further[empty]
    return first


#: Readings that give a text from octets.
TEXT_READINGS: Final = {
    Reading.TEXT: clean_text,
    Reading.APPLICATION: application_id,
    Reading.AVC_HOST: avc_host,
    Reading.DISTINGUISHER: route_distinguisher,
}
#: Readings that give a text from a number.
NUMBER_READINGS: Final = {
    Reading.NUMBER_TEXT: number_text,
    Reading.VRF: number_text,
    Reading.RCODE: rcode,
    Reading.DNS_FLAGS: dns_flags,
}
#: Readings that give a forwarding status from a number of at most 16 bits.
STATUS_READINGS: Final = {
    Reading.FIREWALL_REASON: firewall_reason,
    Reading.JUNIPER_PROPERTIES: juniper_properties,
}
