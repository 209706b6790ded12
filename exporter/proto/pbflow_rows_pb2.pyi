from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Rows(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, entries: _Optional[_Iterable[_Union[Row, _Mapping]]] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("eth_protocol", "direction", "time_flow_start", "time_flow_end", "data_link", "network", "transport", "bytes", "packets", "interface", "duplicate", "agent_ip", "flags", "icmp_type", "icmp_code", "pkt_drop_bytes", "pkt_drop_packets", "dns_flags", "dns_latency", "time_flow_rtt", "dup_list", "xlat", "sampling", "dns_name", "ssl_version", "quic")
    ETH_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    TIME_FLOW_START_FIELD_NUMBER: _ClassVar[int]
    TIME_FLOW_END_FIELD_NUMBER: _ClassVar[int]
    DATA_LINK_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    AGENT_IP_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    ICMP_TYPE_FIELD_NUMBER: _ClassVar[int]
    ICMP_CODE_FIELD_NUMBER: _ClassVar[int]
    PKT_DROP_BYTES_FIELD_NUMBER: _ClassVar[int]
    PKT_DROP_PACKETS_FIELD_NUMBER: _ClassVar[int]
    DNS_FLAGS_FIELD_NUMBER: _ClassVar[int]
    DNS_LATENCY_FIELD_NUMBER: _ClassVar[int]
    TIME_FLOW_RTT_FIELD_NUMBER: _ClassVar[int]
    DUP_LIST_FIELD_NUMBER: _ClassVar[int]
    XLAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    DNS_NAME_FIELD_NUMBER: _ClassVar[int]
    SSL_VERSION_FIELD_NUMBER: _ClassVar[int]
    QUIC_FIELD_NUMBER: _ClassVar[int]
    eth_protocol: int
    direction: int
    time_flow_start: bytes
    time_flow_end: bytes
    data_link: bytes
    network: bytes
    transport: bytes
    bytes: int
    packets: int
    interface: str
    duplicate: bool
    agent_ip: bytes
    flags: int
    icmp_type: int
    icmp_code: int
    pkt_drop_bytes: int
    pkt_drop_packets: int
    dns_flags: int
    dns_latency: bytes
    time_flow_rtt: bytes
    dup_list: _containers.RepeatedScalarFieldContainer[bytes]
    xlat: bytes
    sampling: int
    dns_name: str
    ssl_version: int
    quic: bytes
    def __init__(self, eth_protocol: _Optional[int] = ..., direction: _Optional[int] = ..., time_flow_start: _Optional[bytes] = ..., time_flow_end: _Optional[bytes] = ..., data_link: _Optional[bytes] = ..., network: _Optional[bytes] = ..., transport: _Optional[bytes] = ..., bytes: _Optional[int] = ..., packets: _Optional[int] = ..., interface: _Optional[str] = ..., duplicate: _Optional[bool] = ..., agent_ip: _Optional[bytes] = ..., flags: _Optional[int] = ..., icmp_type: _Optional[int] = ..., icmp_code: _Optional[int] = ..., pkt_drop_bytes: _Optional[int] = ..., pkt_drop_packets: _Optional[int] = ..., dns_flags: _Optional[int] = ..., dns_latency: _Optional[bytes] = ..., time_flow_rtt: _Optional[bytes] = ..., dup_list: _Optional[_Iterable[bytes]] = ..., xlat: _Optional[bytes] = ..., sampling: _Optional[int] = ..., dns_name: _Optional[str] = ..., ssl_version: _Optional[int] = ..., quic: _Optional[bytes] = ...) -> None: ...
