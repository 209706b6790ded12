"""NetFlow v9 (RFC 3954)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from exporter.simulate.encode.layout import Field, Layout, of_ipv6
from exporter.simulate.encode.templated import TemplatedEncoder, a_set

#: RFC 3954, section 5.1.
_HEADER: Final = np.dtype(
    [
        ("version", ">u2"),
        ("count", ">u2"),
        ("sys_uptime", ">u4"),
        ("unix_secs", ">u4"),
        ("sequence", ">u4"),
        ("source_id", ">u4"),
    ]
)

#: What a router tells of an IPv4 flow, by the field types of RFC 3954, section 8 (56 and above:
#: Cisco's list and IANA's registry, which continues it).
IPV4: Final = Layout(
    256,
    (
        Field(8, 4, "src_addr"),
        Field(12, 4, "dst_addr"),
        Field(15, 4, "next_hop"),
        Field(10, 4, "in_if"),
        Field(14, 4, "out_if"),
        Field(1, 4, "bytes"),
        Field(2, 4, "packets"),
        Field(22, 4, "uptime_start"),
        Field(21, 4, "uptime_end"),
        Field(7, 2, "src_port"),
        Field(11, 2, "dst_port"),
        Field(16, 4, "src_as"),
        Field(17, 4, "dst_as"),
        Field(9, 1, "src_prefix_len"),
        Field(13, 1, "dst_prefix_len"),
        Field(6, 1, "tcp_flags"),
        Field(4, 1, "proto"),
        Field(5, 1, "tos"),
        Field(61, 1, "direction"),
        Field(89, 1, "forwarding_status"),
        Field(48, 1, "sampler"),
        Field(32, 2, "icmp_type_code"),
        Field(58, 2, "src_vlan"),
        Field(59, 2, "dst_vlan"),
    ),
)
#: The same of an IPv6 flow.
IPV6: Final = Layout(257, of_ipv6(IPV4.fields))

_SAMPLING_TEMPLATE: Final = 258
_INTERFACES_TEMPLATE: Final = 259
_SCOPE_SYSTEM: Final = 1
_SCOPE_INTERFACE: Final = 2
_NAME_OCTETS: Final = 32


class NetFlow9Encoder(TemplatedEncoder):
    """One source id of one device's NetFlow v9.

    Export times are rounded up to whole seconds: the header has no finer ones, and this way
    flow times, sent as milliseconds since the start of the device, come out exactly and never
    after the time of export. ``boot`` must be a whole second for the same reason.
    """

    header_size = _HEADER.itemsize

    def __init__(
        self, *, boot: int, layouts: Mapping[int, Layout] | None = None, **options: Any
    ) -> None:
        if boot % 1000:
            raise ValueError("the boot time must be a whole second")
        super().__init__(boot=boot, layouts=layouts or {4: IPV4, 6: IPV6}, **options)

    def _descriptions(self) -> Iterator[tuple[bytes, int, int]]:
        for layout in self._layouts.values():
            yield a_set(0, _template(layout)), 1, 0
        rate = self._origin.sampling_rate
        if rate > 1:
            # Sampler id, mode (2: random) and interval, for the whole device.
            yield _options_template(
                _SAMPLING_TEMPLATE, (_SCOPE_SYSTEM, 4), [(48, 1), (49, 1), (50, 4)]
            )
            record = struct.pack("!IBBI", 0, self._origin.sampler, 2, rate)
            yield a_set(_SAMPLING_TEMPLATE, record), 0, 1
        if self._interfaces:
            yield _options_template(
                _INTERFACES_TEMPLATE, (_SCOPE_INTERFACE, 4), [(82, _NAME_OCTETS)]
            )
        for index, name in self._interfaces.items():
            record = struct.pack(f"!I{_NAME_OCTETS}s", index, name.encode())
            yield a_set(_INTERFACES_TEMPLATE, record), 0, 1

    def _headers(self, records: Any, lengths: Any, now: int) -> bytes:
        del lengths
        header = np.zeros(len(records), _HEADER)
        seconds = -(-now // 1000)
        header["version"] = 9
        header["count"] = records
        header["sys_uptime"] = (seconds * 1000 - self._boot) & 0xFFFFFFFF
        header["unix_secs"] = seconds
        # Counts export packets, per source id.
        header["sequence"] = (self._sequence + np.arange(len(records))) & 0xFFFFFFFF
        header["source_id"] = self._domain
        self._sequence += len(records)
        return header.tobytes()

    def _message(self, content: bytes, templates: int, data: int, now: int) -> bytes:
        # The count is of all records, templates included.
        return self._headers(np.array([templates + data]), None, now) + content


def _template(layout: Layout) -> bytes:
    """Template record (RFC 3954, section 5.2)."""
    pairs = [number for field in layout.fields for number in (field.element, field.length)]
    return struct.pack(f"!{2 + len(pairs)}H", layout.template, len(layout.fields), *pairs)


def _options_template(
    template: int, scope: tuple[int, int], options: list[tuple[int, int]]
) -> tuple[bytes, int, int]:
    """A set with one options template (RFC 3954, section 6.1), the lengths in octets first."""
    numbers = [number for pair in (scope, *options) for number in pair]
    record = struct.pack(f"!{3 + len(numbers)}H", template, 4, 4 * len(options), *numbers)
    return a_set(1, record), 1, 0
