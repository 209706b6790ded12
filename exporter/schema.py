"""The one table of flow columns, from which the DDL check, the Arrow schema and decoders follow.

A flow column exists because it stands in :data:`COLUMNS`, a column of DNS queries because it
stands in :data:`DNS_QUERIES`. ``clickhouse/migrations`` spells the same columns in SQL (with codecs
and comments); a test compares both, so neither drifts.

Values in memory, one array per column (see :mod:`exporter.batch`):

======================  =============================================================
``Kind.TIME``           ``int64``, milliseconds since the epoch, UTC
``Kind.ADDRESS``        ``uint8`` of shape ``(n, 16)``: IPv6, IPv4 as ``::ffff:a.b.c.d``
``Kind.MAC``            ``uint64``, the 48 bits of the address in the low end
``Kind.UINT8`` … 64     unsigned integers of that width
``Kind.FLOAT32``        ``float32``
``Kind.ENUM``           ``int8``, a value of the column's ``enum``
``Kind.TEXT``           :class:`exporter.batch.DictColumn` of ``str``, few different values
``Kind.NAME``           :class:`exporter.batch.DictColumn` of ``str``, many different values
``Kind.LABELS``         :class:`exporter.batch.DictColumn` of ``tuple[int, ...]``
``Kind.ADDRESSES``      :class:`exporter.batch.DictColumn` of ``tuple[bytes, ...]``, 16 bytes each
======================  =============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from types import MappingProxyType
from typing import Final


class Kind(Enum):
    """How a column's values are held in memory; ``clickhouse`` is the type of the stored column."""

    TIME = auto()
    ADDRESS = auto()
    MAC = auto()
    UINT8 = auto()
    UINT16 = auto()
    UINT32 = auto()
    UINT64 = auto()
    FLOAT32 = auto()
    ENUM = auto()
    TEXT = auto()
    NAME = auto()
    LABELS = auto()
    ADDRESSES = auto()


_CLICKHOUSE_TYPES: Final = {
    Kind.TIME: "DateTime64(3, 'UTC')",
    Kind.ADDRESS: "IPv6",
    Kind.MAC: "UInt64",
    Kind.UINT8: "UInt8",
    Kind.UINT16: "UInt16",
    Kind.UINT32: "UInt32",
    Kind.UINT64: "UInt64",
    Kind.FLOAT32: "Float32",
    Kind.TEXT: "LowCardinality(String)",
    Kind.NAME: "String",
    Kind.LABELS: "Array(UInt32)",
    Kind.ADDRESSES: "Array(IPv6)",
}


class Source(IntEnum):
    """The protocol that brought a flow."""

    UNKNOWN = 0
    NETFLOW5 = 1
    NETFLOW9 = 2
    IPFIX = 3
    SFLOW5 = 4
    EBPF = 5


class SamplingSource(IntEnum):
    """Where ``sampling_rate`` was learned. ``unknown`` rows count as sampled 1 in 1."""

    UNKNOWN = 0
    RECORD = 1
    OPTIONS = 2
    CONFIGURED = 3


class TimeSource(IntEnum):
    """Whether flow times are the device's or, for want of sane ones, the time of reception."""

    RECORD = 0
    RECEIVED = 1


class Direction(IntEnum):
    """IPFIX 61 flowDirection, shifted so that an absent field reads ``unknown``."""

    UNKNOWN = 0
    INGRESS = 1
    EGRESS = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One flow column: its name, kind, meaning, and how a group of flows may use it."""

    name: str
    kind: Kind
    description: str
    enum: type[IntEnum] | None = None
    unit: str = ""

    @property
    def clickhouse_type(self) -> str:
        """The type as ClickHouse spells it in ``system.columns``."""
        if self.enum is not None:
            members = ", ".join(f"'{m.name.lower()}' = {m.value}" for m in self.enum)
            return f"Enum8({members})"
        return _CLICKHOUSE_TYPES[self.kind]


def _columns() -> tuple[Column, ...]:
    k = Kind
    c = Column
    return (
        c("time_received", k.TIME, "When the exporter received the datagram."),
        c("time_flow_start", k.TIME, "First packet of the flow."),
        c("time_flow_end", k.TIME, "Last packet of the flow."),
        c("time_source", k.ENUM, "Whether the flow times are the device's or ours.", TimeSource),
        c("device_addr", k.ADDRESS, "Address the device sent from (or reports as its own)."),
        c("device", k.TEXT, "Name of the device; its address as text when not configured."),
        c("observation_domain", k.UINT32, "Observation domain, source id, engine or sub-agent."),
        c("source", k.ENUM, "Protocol of the record.", Source),
        c("sampling_rate", k.UINT32, "1 in N packets were seen; 1 when not sampled or unknown."),
        c("sampling_source", k.ENUM, "Where the sampling rate was learned.", SamplingSource),
        c("bytes", k.UINT64, "Estimate: reported bytes times sampling rate.", unit="bytes"),
        c("packets", k.UINT64, "Estimate: reported packets times sampling rate.", unit="packets"),
        c("src_addr", k.ADDRESS, "Source address."),
        c("dst_addr", k.ADDRESS, "Destination address."),
        c("etype", k.UINT16, "EtherType of the payload (0x0800 IPv4, 0x86DD IPv6)."),
        c("proto", k.UINT8, "IP protocol number."),
        c("src_port", k.UINT16, "Source port."),
        c("dst_port", k.UINT16, "Destination port."),
        c("tcp_flags", k.UINT16, "TCP flags seen, or-ed over the flow's packets."),
        c("tos", k.UINT8, "IPv4 type of service or IPv6 traffic class."),
        c("icmp_type", k.UINT8, "ICMP type."),
        c("icmp_code", k.UINT8, "ICMP code."),
        c("ttl", k.UINT8, "IPv4 time to live or IPv6 hop limit; the lowest one where given."),
        c("in_if", k.UINT32, "Index of the input interface (ifIndex)."),
        c("out_if", k.UINT32, "Index of the output interface (ifIndex)."),
        c("in_if_name", k.TEXT, "Name of the input interface."),
        c("out_if_name", k.TEXT, "Name of the output interface."),
        c("src_vlan", k.UINT16, "VLAN id on the input side."),
        c("dst_vlan", k.UINT16, "VLAN id on the output side."),
        c("src_mac", k.MAC, "Source MAC address; MACNumToString() shows it."),
        c("dst_mac", k.MAC, "Destination MAC address; MACNumToString() shows it."),
        c("src_as", k.UINT32, "Source AS number."),
        c("dst_as", k.UINT32, "Destination AS number."),
        c("src_prefix_len", k.UINT8, "Length of the source's routing prefix."),
        c("dst_prefix_len", k.UINT8, "Length of the destination's routing prefix."),
        c("next_hop", k.ADDRESS, "Next hop address."),
        c("vrf", k.TEXT, "VRF by name where the device tells it, else by number."),
        c("mpls_labels", k.LABELS, "MPLS labels, top of the stack first."),
        c("nat_src_addr", k.ADDRESS, "Source address after translation."),
        c("nat_dst_addr", k.ADDRESS, "Destination address after translation."),
        c("nat_src_port", k.UINT16, "Source port after translation."),
        c("nat_dst_port", k.UINT16, "Destination port after translation."),
        c("direction", k.ENUM, "Whether seen entering or leaving the interface.", Direction),
        c("forwarding_status", k.UINT8,
          "RFC 7270 forwardingStatus: 64-127 forwarded, 128-191 dropped."),
        c("flow_label", k.UINT32, "IPv6 flow label."),
        c("src_host", k.TEXT, "Name of the source."),
        c("dst_host", k.TEXT, "Name of the destination."),
        c("src_network", k.TEXT, "Named network of the source."),
        c("dst_network", k.TEXT, "Named network of the destination."),
        c("src_internal", k.UINT8, "1 where the source is ours: by its network, else private."),
        c("dst_internal", k.UINT8, "The same of the destination."),
        c("src_country", k.TEXT, "Country of the source, ISO 3166 alpha-2."),
        c("dst_country", k.TEXT, "Country of the destination, ISO 3166 alpha-2."),
        c("service", k.TEXT, "Name of the service that the flow belongs to."),
        c("src_service", k.TEXT, "Service name of the source port, if it is one."),
        c("dst_service", k.TEXT, "Service name of the destination port, if it is one."),
        c("site", k.TEXT, "Site of the device."),
        c("role", k.TEXT, "Role of the device."),
        c("owner", k.TEXT, "Owner of the device."),
        c("app", k.TEXT, "Application as the device classified it (NBAR, PAN-OS, nDPI)."),
        c("dns_name", k.NAME, "Name asked for in DNS."),
        c("dns_rcode", k.TEXT, "DNS response code by name (NOERROR, NXDOMAIN)."),
        c("dns_latency", k.FLOAT32, "Time from DNS query to response.", unit="seconds"),
        c("rtt", k.FLOAT32, "TCP round-trip time.", unit="seconds"),
        c("drop_bytes", k.UINT64, "Bytes dropped by the device's kernel.", unit="bytes"),
        c("drop_packets", k.UINT64, "Packets dropped by the device's kernel.", unit="packets"),
        c("http_host", k.NAME, "HTTP Host header."),
        c("http_status", k.UINT16, "HTTP status code."),
        c("tls_sni", k.NAME, "TLS server name indication."),
    )  # fmt: skip


#: All flow columns in table order.
COLUMNS: Final[tuple[Column, ...]] = _columns()

#: The same by name.
BY_NAME: Final = MappingProxyType({column.name: column for column in COLUMNS})


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ClickHouse that the exporter inserts into, with its columns in order."""

    name: str
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


FLOWS: Final = Table("flows", COLUMNS)

#: One row per DNS query, as a resolver told of it.
DNS_QUERIES: Final = Table(
    "dns_queries",
    (
        Column("time_received", Kind.TIME, "When the exporter heard of the query."),
        Column("device", Kind.TEXT, "Name of the device that reported it."),
        Column("source", Kind.TEXT, "How it was seen: dnstap, or the protocol of a flow."),
        Column("src_addr", Kind.ADDRESS, "Who asked."),
        Column("dst_addr", Kind.ADDRESS, "Which resolver was asked."),
        Column("src_host", Kind.TEXT, "Name of who asked."),
        Column("src_network", Kind.TEXT, "Named network of who asked."),
        Column("dns_name", Kind.NAME, "Name asked for."),
        Column("dns_type", Kind.TEXT, "Record type asked for (A, AAAA, MX)."),
        Column("dns_rcode", Kind.TEXT, "Response code by name (NOERROR, NXDOMAIN)."),
        Column("dns_latency", Kind.FLOAT32, "Seconds from query to response."),
        Column("answers", Kind.ADDRESSES, "Addresses that the name resolved to then."),
    ),
)
