"""IPFIX (RFC 7011), with the elements of IANA's registry (RFC 7012)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from exporter.simulate.encode.layout import VARIABLE, Field, Layout, of_ipv6, variable_length
from exporter.simulate.encode.templated import TemplatedEncoder, a_set

#: RFC 7011, section 3.1.
_HEADER: Final = np.dtype(
    [
        ("version", ">u2"),
        ("length", ">u2"),
        ("export_time", ">u4"),
        ("sequence", ">u4"),
        ("domain", ">u4"),
    ]
)

#: What a router tells of an IPv4 flow.
IPV4: Final = Layout(
    256,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(15, 4, "next_hop"),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(1, 8, "bytes"),
        Field(2, 8, "packets"),
        Field(152, 8, "time_flow_start"),
        Field(153, 8, "time_flow_end"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(16, 4, "src_as"),
        Field(17, 4, "dst_as"),
        Field(9, 1, "src_prefix_len"),
        Field(13, 1, "dst_prefix_len"),
        Field(6, 2, "tcp_flags"),
        Field(4, 1, "proto"),
        Field(5, 1, "tos"),
        Field(61, 1, "direction"),
        Field(89, 1, "forwarding_status"),
        Field(302, 1, "sampler"),
        Field(32, 2, "icmp_type_code"),
        Field(58, 2, "src_vlan"),
        Field(59, 2, "dst_vlan"),
    ),
)
#: The same of an IPv6 flow.
IPV6: Final = Layout(257, of_ipv6(IPV4.fields))
_TEXTS: Final = (
    Field(96, VARIABLE, "app"),
    Field(236, VARIABLE, "vrf"),
    Field(460, VARIABLE, "http_host"),
)
#: The layouts above with applicationName, VRFname and httpRequestHost in variable length.
VARIABLE_LAYOUTS: Final[Mapping[int, Layout]] = {
    4: Layout(260, IPV4.fields + _TEXTS),
    6: Layout(261, IPV6.fields + _TEXTS),
}
#: The layouts above with the addresses and ports after translation (elements 225 to 228).
NAT_LAYOUTS: Final[Mapping[int, Layout]] = {
    4: Layout(
        262,
        (
            *IPV4.fields,
            Field(225, 4, "nat_src_addr"),
            Field(226, 4, "nat_dst_addr"),
            Field(227, 2, "nat_src_port"),
            Field(228, 2, "nat_dst_port"),
        ),
    ),
    6: IPV6,
}

_SAMPLING_TEMPLATE: Final = 258
_INTERFACES_TEMPLATE: Final = 259
_ENTERPRISE_BIT: Final = 0x8000


class IpfixEncoder(TemplatedEncoder):
    """One observation domain of one device's IPFIX.

    The sampling rate N is told as systematic count-based sampling (RFC 5477, section 8.2.1): an
    interval of 1 packet and a space of N - 1, scoped by selectorId.
    """

    header_size = _HEADER.itemsize

    def __init__(
        self, *, boot: int = 0, layouts: Mapping[int, Layout] | None = None, **options: Any
    ) -> None:
        super().__init__(boot=boot, layouts=layouts or {4: IPV4, 6: IPV6}, **options)

    def _descriptions(self) -> Iterator[tuple[bytes, int, int]]:
        for layout in self._layouts.values():
            yield a_set(2, _template(layout)), 1, 0
        rate = self._origin.sampling_rate
        if rate > 1:
            yield _options_template(_SAMPLING_TEMPLATE, [(302, 1), (304, 2), (305, 4), (306, 4)])
            record = struct.pack("!BHII", self._origin.sampler, 1, 1, rate - 1)
            yield a_set(_SAMPLING_TEMPLATE, record), 0, 1
        if self._interfaces:
            yield _options_template(_INTERFACES_TEMPLATE, [(10, 4), (82, VARIABLE)])
        for index, name in self._interfaces.items():
            record = struct.pack("!I", index) + variable_length(name.encode())
            yield a_set(_INTERFACES_TEMPLATE, record), 0, 1

    def _headers(self, records: Any, lengths: Any, now: int) -> bytes:
        header = np.zeros(len(records), _HEADER)
        header["version"] = 10
        header["length"] = lengths
        header["export_time"] = now // 1000
        # Counts data records (options data too) before this message, per domain.
        header["sequence"] = (self._sequence + np.cumsum(records) - records) & 0xFFFFFFFF
        header["domain"] = self._domain
        self._sequence += int(records.sum())
        return header.tobytes()

    def _message(self, content: bytes, templates: int, data: int, now: int) -> bytes:
        del templates
        length = np.array([self.header_size + len(content)])
        return self._headers(np.array([data]), length, now) + content


def _template(layout: Layout) -> bytes:
    """Template record with its field specifiers (RFC 7011, sections 3.2 and 3.4.1)."""
    return struct.pack("!HH", layout.template, len(layout.fields)) + b"".join(
        struct.pack("!HH", field.element, field.length)
        if not field.enterprise
        else struct.pack("!HHI", field.element | _ENTERPRISE_BIT, field.length, field.enterprise)
        for field in layout.fields
    )


def _options_template(template: int, fields: list[tuple[int, int]]) -> tuple[bytes, int, int]:
    """A set with one options template whose first field is its scope (RFC 7011, 3.4.2.2)."""
    numbers = [number for pair in fields for number in pair]
    return a_set(3, struct.pack(f"!{3 + len(numbers)}H", template, len(fields), 1, *numbers)), 1, 0
