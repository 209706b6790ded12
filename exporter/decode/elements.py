"""The information elements that are stored: which element fills which flow column, and how.

One table for NetFlow v9 and IPFIX: element numbers 1 to 127 mean the same in both, and what
devices send above in v9 without an enterprise number is listed under :data:`V9`. Elements are
keyed by (enterprise number, element number); 0 is IANA's registry.

Sources named in the table:

* IANA: https://www.iana.org/assignments/ipfix (RFC 7012), RFC 3954 for NetFlow v9
* RFC 5103 (reverse elements), RFC 7270 (Cisco's elements in IANA's registry)
* ASA: Cisco Secure Firewall ASA NetFlow Implementation Guide
* AVC: Cisco Application Visibility and Control Field Definition Guide
* nProbe: nProbe User Guide, Flow Information Elements (35632.N is 57472 + N in NetFlow v9)
* Juniper: Junos Flow Monitoring, "Inline Monitoring Services", common properties of a packet
* CERT: CERT IPFIX registry; elements from 16384 on are the reverse of those before
* CESNET, Flowmon: libfds, the vendors' registry in ``config/system/elements``
* Ericsson, Gigamon, Ixia, Niagara: Wireshark's dissector of NetFlow and IPFIX
* PAN-OS: Palo Alto Networks, NetFlow Templates
* Cisco NVM: AnyConnect Network Visibility Module Collector (nvzFlow)
* F5: BIG-IP, IPFIX Templates for AFM, PEM and CGNAT Events
* SonicWall: SonicOS, "IPFIX with extensions", in ElastiFlow's definitions
* others: the vendor's IPFIX field list, named in the row
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final

from exporter.config import Element as ConfiguredElement
from exporter.schema import BY_NAME, Kind

#: Pseudo enterprise of NetFlow v9 elements that IPFIX numbers otherwise.
V9: Final = -9
#: Pseudo enterprise of NetFlow v9 scope types (RFC 3954, section 6.1).
V9_SCOPE: Final = -1
#: Enterprise number under which RFC 5103 keeps the reverse of IANA's elements.
REVERSE: Final = 29305
#: Enterprise number of CERT, which numbers the reverse of its elements itself.
CERT: Final = 6871


class Reading(IntEnum):
    """How an element's octets become a value."""

    UNSIGNED = auto()  # big-endian, any length (reduced-size encoding, RFC 7011 section 6.2)
    ADDRESS = auto()  # 4 or 16 octets
    MAC = auto()  # 6 octets
    TEXT = auto()  # UTF-8, cut at the first NUL
    NUMBER_TEXT = auto()  # a number shown as text; 0 is empty
    AVC_HOST = auto()  # an application id of 4 octets, sub-application 0x3402, text
    APPLICATION = auto()  # RFC 6759 applicationId: engine, selector
    VRF = auto()  # VRF number, shown by its name where the device tells it
    DISTINGUISHER = auto()  # RFC 4364 route distinguisher, shown as 65000:1
    DIRECTION = auto()  # 0 ingress, 1 egress
    DSCP = auto()  # the upper six bits of the type of service
    PRECEDENCE = auto()  # the upper three bits of the type of service
    ICMP = auto()  # type * 256 + code
    FIREWALL_REASON = auto()  # Cisco ASA's extended event: which list denied the flow
    JUNIPER_PROPERTIES = auto()  # 6 bits of kind; kind 2: why the packet was dropped, or 0
    LABEL = auto()  # 20 bits of MPLS label, 4 bits of the rest
    RCODE = auto()  # DNS response code
    DNS_FLAGS = auto()  # second word of a DNS header: the response code of a response
    SECONDS = auto()  # since the epoch
    MILLISECONDS = auto()  # since the epoch
    NTP_MICROSECONDS = auto()  # RFC 7011 section 6.1.9: NTP format; or 16 octets of pmacct
    NTP_NANOSECONDS = auto()  # RFC 7011 section 6.1.10: NTP format; or 16 octets of pmacct
    UPTIME = auto()  # milliseconds since the device started
    BEFORE_EXPORT = auto()  # microseconds before the export time
    DURATION_US = auto()  # microseconds
    LATENCY_MS = auto()  # milliseconds, stored as seconds
    LATENCY_US = auto()  # microseconds, stored as seconds; 0xFFFFFFFF is not measured
    FRAME = auto()  # the beginning of an Ethernet frame
    PACKET = auto()  # the beginning of an IP packet
    LABELLED = auto()  # an MPLS label stack, and the packet after it as far as it is there


#: Readings of octets of a sampled packet.
SECTION_READINGS: Final = frozenset({Reading.FRAME, Reading.PACKET, Reading.LABELLED})


class Fill(Enum):
    """When a further element may fill a column that an earlier one fills too."""

    ZERO = auto()  # in the rows where the earlier one is zero or empty
    ABSENT = auto()  # only where the record has none of the earlier ones
    BITS = auto()  # in all rows: its bits are added to those of the earlier one


@dataclass(frozen=True, slots=True)
class Element:
    """A row of the table. ``column`` is a flow column, or one of :data:`WORKING`."""

    enterprise: int
    id: int
    name: str
    column: str
    reading: Reading
    source: str
    fill: Fill = Fill.ZERO


#: Values that a record tells about itself and from which flow columns are derived.
WORKING: Final = {
    "firewall_event": "`forwarding_status`: 128 where it is 3, a flow that was denied",
    "flow_id": "whose octets the end of a connection tells once more",
    "ip_version": "tells whether addresses of 0 are IPv4 or IPv6",
    "icmp": "`icmp_type` and `icmp_code`",
    "sampler": "picks the sampling rate told in options",
    "selected_packets": "with `skipped_packets`: `sampling_rate`",
    "skipped_packets": "with `selected_packets`: `sampling_rate`",
    "system_init": "start of the device, for uptimes",
    "duration": "the flow time that the record lacks",
    "event_time": "the flow times that the record lacks",
    "client_latency": "`rtt`: twice the latencies of both sides",
    "server_latency": "`rtt`: twice the latencies of both sides",
    "frame_type": "what kind of frame a section begins with: 1 Ethernet, 2 IEEE 802.11",
    "section_octets": "how many octets of a section are the packet's, the rest being padding",
    "packet_section": "the columns that the packet's headers give",
    "frame_size": "`bytes` of a record that carries a packet's headers",
    "inner_src_addr": "`src_addr`, with `decode.inner_packets`",
    "inner_dst_addr": "`dst_addr`, with `decode.inner_packets`",
    "inner_proto": "`proto`, with `decode.inner_packets`",
    "inner_src_port": "`src_port`, with `decode.inner_packets`",
    "inner_dst_port": "`dst_port`, with `decode.inner_packets`",
    "reverse_bytes": "`bytes` of a second flow in the other direction",
    "reverse_packets": "`packets` of a second flow in the other direction",
    "outgoing_bytes": "`bytes` of the flow from the subscriber, if no other element tells any",
    "outgoing_packets": "`packets` of that flow",
    "incoming_bytes": "`bytes` of the flow to the subscriber, if no other element tells any",
    "incoming_packets": "`packets` of that flow",
    "behavior": "which of these flows has the record's source: incoming, if `SERVER_IS_LOCAL`",
    "station_addr": "`src_addr`; of egress flows `dst_addr`",
    "station_mac": "`src_mac`; of egress flows `dst_mac`",
    **{f"mpls_label_{depth}": "`mpls_labels`" for depth in range(1, 11)},
}


def _builtin() -> tuple[Element, ...]:
    e = Element
    r = Reading
    absent = Fill.ABSENT
    return (
        # Counters. Totals count only where a record has no deltas.
        e(0, 1, "octetDeltaCount", "bytes", r.UNSIGNED, "IANA"),
        e(0, 2, "packetDeltaCount", "packets", r.UNSIGNED, "IANA"),
        e(9, 8338, "clientBytesNetwork", "bytes", r.UNSIGNED, "AVC", absent),
        e(V9, 41106, "clientBytesNetwork", "bytes", r.UNSIGNED, "AVC", absent),
        e(9, 8337, "serverBytesNetwork", "reverse_bytes", r.UNSIGNED, "AVC"),
        e(V9, 41105, "serverBytesNetwork", "reverse_bytes", r.UNSIGNED, "AVC"),
        e(9, 9265, "clientPackets", "packets", r.UNSIGNED, "AVC", absent),
        e(V9, 42033, "clientPackets", "packets", r.UNSIGNED, "AVC", absent),
        e(9, 9266, "serverPackets", "reverse_packets", r.UNSIGNED, "AVC"),
        e(V9, 42034, "serverPackets", "reverse_packets", r.UNSIGNED, "AVC"),
        # Of the host that reports, which is the source.
        e(9, 12347, "nvzFlowL4ByteCountOut", "bytes", r.UNSIGNED, "Cisco NVM", absent),
        e(V9, 45115, "nvzFlowL4ByteCountOut", "bytes", r.UNSIGNED, "Cisco NVM", absent),
        e(9, 12346, "nvzFlowL4ByteCountIn", "reverse_bytes", r.UNSIGNED, "Cisco NVM"),
        e(V9, 45114, "nvzFlowL4ByteCountIn", "reverse_bytes", r.UNSIGNED, "Cisco NVM"),
        # Since the last report, and since the connection began.
        e(8741, 170, "initToRespDeltaOctets", "bytes", r.UNSIGNED, "SonicWall", absent),
        e(8741, 14, "initToRespOctets", "bytes", r.UNSIGNED, "SonicWall", absent),
        e(8741, 169, "initToRespDeltaPackets", "packets", r.UNSIGNED, "SonicWall", absent),
        e(8741, 13, "initToRespPackets", "packets", r.UNSIGNED, "SonicWall", absent),
        e(8741, 172, "respToInitDeltaOctets", "reverse_bytes", r.UNSIGNED, "SonicWall"),
        e(8741, 16, "respToInitOctets", "reverse_bytes", r.UNSIGNED, "SonicWall", absent),
        e(8741, 171, "respToInitDeltaPackets", "reverse_packets", r.UNSIGNED, "SonicWall"),
        e(8741, 15, "respToInitPackets", "reverse_packets", r.UNSIGNED, "SonicWall", absent),
        e(0, 231, "initiatorOctets", "bytes", r.UNSIGNED, "IANA, ASA", absent),
        e(0, 298, "initiatorPackets", "packets", r.UNSIGNED, "IANA, ASA", absent),
        e(0, 232, "responderOctets", "reverse_bytes", r.UNSIGNED, "IANA, ASA"),
        e(0, 299, "responderPackets", "reverse_packets", r.UNSIGNED, "IANA, ASA"),
        e(0, 23, "postOctetDeltaCount", "bytes", r.UNSIGNED, "IANA"),
        e(0, 24, "postPacketDeltaCount", "packets", r.UNSIGNED, "IANA"),
        e(0, 85, "octetTotalCount", "bytes", r.UNSIGNED, "IANA, ASA", absent),
        e(0, 86, "packetTotalCount", "packets", r.UNSIGNED, "IANA, ASA", absent),
        e(0, 171, "postOctetTotalCount", "bytes", r.UNSIGNED, "IANA", absent),
        e(0, 172, "postPacketTotalCount", "packets", r.UNSIGNED, "IANA", absent),
        e(0, 352, "layer2OctetDeltaCount", "bytes", r.UNSIGNED, "IANA", absent),
        e(0, 353, "layer2OctetTotalCount", "bytes", r.UNSIGNED, "IANA", absent),
        e(0, 417, "postLayer2OctetDeltaCount", "bytes", r.UNSIGNED, "IANA", absent),
        e(0, 420, "postLayer2OctetTotalCount", "bytes", r.UNSIGNED, "IANA", absent),
        e(0, 430, "layer2FrameDeltaCount", "packets", r.UNSIGNED, "IANA", absent),
        e(0, 431, "layer2FrameTotalCount", "packets", r.UNSIGNED, "IANA", absent),
        e(0, 132, "droppedOctetDeltaCount", "drop_bytes", r.UNSIGNED, "IANA"),
        e(0, 133, "droppedPacketDeltaCount", "drop_packets", r.UNSIGNED, "IANA"),
        e(V9, 37000, "PACKETS_DROPPED", "drop_packets", r.UNSIGNED, "Cisco Performance Monitor"),
        e(9, 4232, "PACKETS_DROPPED", "drop_packets", r.UNSIGNED, "Cisco Performance Monitor"),
        e(0, 134, "droppedOctetTotalCount", "drop_bytes", r.UNSIGNED, "IANA", absent),
        e(0, 424, "droppedLayer2OctetDeltaCount", "drop_bytes", r.UNSIGNED, "IANA", absent),
        e(0, 425, "droppedLayer2OctetTotalCount", "drop_bytes", r.UNSIGNED, "IANA", absent),
        e(0, 135, "droppedPacketTotalCount", "drop_packets", r.UNSIGNED, "IANA", absent),
        e(3054, 176, "reverseOctetDeltaCount", "reverse_bytes", r.UNSIGNED, "Ixia IxFlow"),
        e(3054, 177, "reversePacketDeltaCount", "reverse_packets", r.UNSIGNED, "Ixia IxFlow"),
        # Of the subscriber, who may be source or destination.
        e(15397, 4, "outgoingOctets", "outgoing_bytes", r.UNSIGNED, "Procera PacketLogic"),
        e(15397, 3, "incomingOctets", "incoming_bytes", r.UNSIGNED, "Procera PacketLogic"),
        e(15397, 6, "outgoingPackets", "outgoing_packets", r.UNSIGNED, "Procera PacketLogic"),
        e(15397, 5, "incomingPackets", "incoming_packets", r.UNSIGNED, "Procera PacketLogic"),
        e(15397, 15, "flowBehavior", "behavior", r.TEXT, "Procera PacketLogic"),
        # Network layer.
        e(0, 8, "sourceIPv4Address", "src_addr", r.ADDRESS, "IANA"),
        e(0, 27, "sourceIPv6Address", "src_addr", r.ADDRESS, "IANA"),
        e(0, 44, "sourceIPv4Prefix", "src_addr", r.ADDRESS, "IANA"),
        e(0, 170, "sourceIPv6Prefix", "src_addr", r.ADDRESS, "IANA"),
        e(V9, 24632, "IPV4_INT_ADDR", "src_addr", r.ADDRESS, "Ericsson NAT log"),
        e(0, 366, "staIPv4Address", "station_addr", r.ADDRESS, "IANA, Cisco WLC"),
        e(9, 12236, "clientIPv4Address", "src_addr", r.ADDRESS, "AVC"),
        e(V9, 45004, "clientIPv4Address", "src_addr", r.ADDRESS, "AVC"),
        e(9, 12238, "clientIPv6Address", "src_addr", r.ADDRESS, "AVC"),
        e(V9, 45006, "clientIPv6Address", "src_addr", r.ADDRESS, "AVC"),
        e(8741, 5, "initiatorIPv4Address", "src_addr", r.ADDRESS, "SonicWall"),
        e(0, 12, "destinationIPv4Address", "dst_addr", r.ADDRESS, "IANA"),
        e(0, 28, "destinationIPv6Address", "dst_addr", r.ADDRESS, "IANA"),
        e(0, 45, "destinationIPv4Prefix", "dst_addr", r.ADDRESS, "IANA"),
        e(0, 169, "destinationIPv6Prefix", "dst_addr", r.ADDRESS, "IANA"),
        e(9, 12237, "serverIPv4Address", "dst_addr", r.ADDRESS, "AVC"),
        e(V9, 45005, "serverIPv4Address", "dst_addr", r.ADDRESS, "AVC"),
        e(9, 12239, "serverIPv6Address", "dst_addr", r.ADDRESS, "AVC"),
        e(V9, 45007, "serverIPv6Address", "dst_addr", r.ADDRESS, "AVC"),
        e(8741, 6, "responderIPv4Address", "dst_addr", r.ADDRESS, "SonicWall"),
        # Of a packet inside of VXLAN.
        e(6876, 881, "tenantSourceIPv4", "inner_src_addr", r.ADDRESS, "VMware NSX"),
        e(6876, 883, "tenantSourceIPv6", "inner_src_addr", r.ADDRESS, "VMware NSX"),
        e(6876, 882, "tenantDestIPv4", "inner_dst_addr", r.ADDRESS, "VMware NSX"),
        e(6876, 884, "tenantDestIPv6", "inner_dst_addr", r.ADDRESS, "VMware NSX"),
        e(6876, 880, "tenantProtocol", "inner_proto", r.UNSIGNED, "VMware NSX"),
        e(6876, 886, "tenantSourcePort", "inner_src_port", r.UNSIGNED, "VMware NSX"),
        e(6876, 887, "tenantDestPort", "inner_dst_port", r.UNSIGNED, "VMware NSX"),
        e(0, 256, "ethernetType", "etype", r.UNSIGNED, "IANA"),
        e(0, 60, "ipVersion", "ip_version", r.UNSIGNED, "IANA"),
        e(0, 4, "protocolIdentifier", "proto", r.UNSIGNED, "IANA"),
        e(0, 193, "nextHeaderIPv6", "proto", r.UNSIGNED, "IANA", absent),
        e(8741, 20, "protocolType", "proto", r.UNSIGNED, "SonicWall", absent),
        e(0, 5, "ipClassOfService", "tos", r.UNSIGNED, "IANA"),
        e(0, 195, "ipDiffServCodePoint", "tos", r.DSCP, "IANA"),
        e(0, 196, "ipPrecedence", "tos", r.PRECEDENCE, "IANA", absent),
        e(0, 98, "postIpDiffServCodePoint", "tos", r.DSCP, "IANA", absent),
        e(0, 55, "postIpClassOfService", "tos", r.UNSIGNED, "IANA", absent),
        e(0, 257, "postIpPrecedence", "tos", r.PRECEDENCE, "IANA", absent),
        e(0, 52, "minimumTTL", "ttl", r.UNSIGNED, "IANA"),
        e(0, 192, "ipTTL", "ttl", r.UNSIGNED, "IANA"),
        e(0, 53, "maximumTTL", "ttl", r.UNSIGNED, "IANA"),
        e(0, 31, "flowLabelIPv6", "flow_label", r.UNSIGNED, "IANA"),
        e(0, 89, "forwardingStatus", "forwarding_status", r.UNSIGNED, "RFC 7270"),
        e(2636, 137, "commonPropertiesId", "forwarding_status", r.JUNIPER_PROPERTIES, "Juniper"),
        e(V9, 33002, "NF_F_FW_EXT_EVENT", "forwarding_status", r.FIREWALL_REASON, "ASA"),
        e(0, 233, "firewallEvent", "firewall_event", r.UNSIGNED, "IANA, ASA"),
        e(V9, 40005, "NF_F_FW_EVENT", "firewall_event", r.UNSIGNED, "ASA"),
        e(V9, 148, "NF_F_CONN_ID", "flow_id", r.UNSIGNED, "ASA"),
        # Transport layer.
        e(0, 7, "sourceTransportPort", "src_port", r.UNSIGNED, "IANA"),
        e(0, 180, "udpSourcePort", "src_port", r.UNSIGNED, "IANA"),
        e(0, 182, "tcpSourcePort", "src_port", r.UNSIGNED, "IANA"),
        e(9, 12240, "clientTransportPort", "src_port", r.UNSIGNED, "AVC"),
        e(V9, 45008, "clientTransportPort", "src_port", r.UNSIGNED, "AVC"),
        e(8741, 11, "initiatorPort", "src_port", r.UNSIGNED, "SonicWall"),
        e(0, 11, "destinationTransportPort", "dst_port", r.UNSIGNED, "IANA"),
        e(0, 181, "udpDestinationPort", "dst_port", r.UNSIGNED, "IANA"),
        e(0, 183, "tcpDestinationPort", "dst_port", r.UNSIGNED, "IANA"),
        e(9, 12241, "serverTransportPort", "dst_port", r.UNSIGNED, "AVC"),
        e(V9, 45009, "serverTransportPort", "dst_port", r.UNSIGNED, "AVC"),
        e(8741, 12, "responderPort", "dst_port", r.UNSIGNED, "SonicWall"),
        e(0, 6, "tcpControlBits", "tcp_flags", r.UNSIGNED, "IANA"),
        # Of the first packet, and of all others.
        e(CERT, 14, "initialTCPFlags", "tcp_flags", r.UNSIGNED, "CERT YAF"),
        e(CERT, 15, "unionTCPFlags", "tcp_flags", r.UNSIGNED, "CERT YAF", Fill.BITS),
        e(0, 32, "icmpTypeCodeIPv4", "icmp", r.ICMP, "IANA"),
        e(0, 139, "icmpTypeCodeIPv6", "icmp", r.ICMP, "IANA"),
        e(0, 176, "icmpTypeIPv4", "icmp_type", r.UNSIGNED, "IANA, ASA"),
        e(0, 178, "icmpTypeIPv6", "icmp_type", r.UNSIGNED, "IANA, ASA"),
        e(0, 177, "icmpCodeIPv4", "icmp_code", r.UNSIGNED, "IANA, ASA"),
        e(0, 179, "icmpCodeIPv6", "icmp_code", r.UNSIGNED, "IANA, ASA"),
        # Headers of a sampled packet.
        e(0, 312, "dataLinkFrameSize", "frame_size", r.UNSIGNED, "IANA, RFC 7133"),
        e(0, 103, "layer2packetSectionSize", "frame_size", r.UNSIGNED, "RFC 3954 (Cisco)"),
        e(0, 242, "ethernetTotalLength", "frame_size", r.UNSIGNED, "IANA", absent),
        e(0, 224, "ipTotalLength", "frame_size", r.UNSIGNED, "IANA", absent),
        e(0, 408, "dataLinkFrameType", "frame_type", r.UNSIGNED, "IANA, RFC 7133"),
        e(0, 410, "sectionExportedOctets", "section_octets", r.UNSIGNED, "IANA, RFC 7133"),
        e(0, 315, "dataLinkFrameSection", "packet_section", r.FRAME, "IANA, RFC 7133", absent),
        e(0, 104, "layer2packetSectionData", "packet_section", r.FRAME, "RFC 3954 (Cisco)", absent),
        e(0, 313, "ipHeaderPacketSection", "packet_section", r.PACKET, "IANA, RFC 5477", absent),
        e(0, 317, "mplsPayloadPacketSection", "packet_section", r.PACKET, "IANA, RFC 5477", absent),
        e(0, 316, "mplsLabelStackSection", "packet_section", r.LABELLED, "IANA, RFC 5477", absent),
        # Interfaces and the link layer.
        e(0, 10, "ingressInterface", "in_if", r.UNSIGNED, "IANA"),
        e(0, 252, "ingressPhysicalInterface", "in_if", r.UNSIGNED, "IANA"),
        e(8741, 9, "initiatorInterface", "in_if", r.UNSIGNED, "SonicWall"),
        e(0, 14, "egressInterface", "out_if", r.UNSIGNED, "IANA"),
        e(0, 253, "egressPhysicalInterface", "out_if", r.UNSIGNED, "IANA"),
        e(8741, 10, "responderInterface", "out_if", r.UNSIGNED, "SonicWall"),
        e(0, 61, "flowDirection", "direction", r.DIRECTION, "IANA"),
        e(6876, 954, "flowDirection", "direction", r.DIRECTION, "VMware NSX"),
        e(0, 56, "sourceMacAddress", "src_mac", r.MAC, "IANA"),
        e(0, 81, "postSourceMacAddress", "src_mac", r.MAC, "IANA"),
        e(0, 365, "staMacAddress", "station_mac", r.MAC, "IANA, Cisco WLC"),
        e(0, 414, "dot1qCustomerSourceMacAddress", "src_mac", r.MAC, "IANA"),
        e(8741, 3, "initiatorGatewayMac", "src_mac", r.MAC, "SonicWall"),
        e(0, 80, "destinationMacAddress", "dst_mac", r.MAC, "IANA"),
        e(0, 57, "postDestinationMacAddress", "dst_mac", r.MAC, "IANA"),
        e(0, 415, "dot1qCustomerDestinationMacAddress", "dst_mac", r.MAC, "IANA"),
        e(8741, 4, "responderGatewayMac", "dst_mac", r.MAC, "SonicWall"),
        e(0, 58, "vlanId", "src_vlan", r.UNSIGNED, "IANA"),
        e(0, 243, "dot1qVlanId", "src_vlan", r.UNSIGNED, "IANA"),
        e(0, 245, "dot1qCustomerVlanId", "src_vlan", r.UNSIGNED, "IANA"),
        e(0, 59, "postVlanId", "dst_vlan", r.UNSIGNED, "IANA"),
        e(0, 254, "postDot1qVlanId", "dst_vlan", r.UNSIGNED, "IANA"),
        e(0, 255, "postDot1qCustomerVlanId", "dst_vlan", r.UNSIGNED, "IANA"),
        *(
            e(0, 69 + depth, name, f"mpls_label_{depth}", r.LABEL, "IANA")
            for depth, name in enumerate(
                ("mplsTopLabelStackSection", *(f"mplsLabelStackSection{n}" for n in range(2, 11))),
                start=1,
            )
        ),
        # Routing.
        e(0, 16, "bgpSourceAsNumber", "src_as", r.UNSIGNED, "IANA"),
        e(0, 129, "bgpPrevAdjacentAsNumber", "src_as", r.UNSIGNED, "IANA", absent),
        e(0, 17, "bgpDestinationAsNumber", "dst_as", r.UNSIGNED, "IANA"),
        e(0, 128, "bgpNextAdjacentAsNumber", "dst_as", r.UNSIGNED, "IANA", absent),
        e(0, 9, "sourceIPv4PrefixLength", "src_prefix_len", r.UNSIGNED, "IANA"),
        e(0, 29, "sourceIPv6PrefixLength", "src_prefix_len", r.UNSIGNED, "IANA"),
        e(0, 13, "destinationIPv4PrefixLength", "dst_prefix_len", r.UNSIGNED, "IANA"),
        e(0, 30, "destinationIPv6PrefixLength", "dst_prefix_len", r.UNSIGNED, "IANA"),
        e(0, 15, "ipNextHopIPv4Address", "next_hop", r.ADDRESS, "IANA"),
        e(0, 62, "ipNextHopIPv6Address", "next_hop", r.ADDRESS, "IANA"),
        e(0, 18, "bgpNextHopIPv4Address", "next_hop", r.ADDRESS, "IANA"),
        e(0, 63, "bgpNextHopIPv6Address", "next_hop", r.ADDRESS, "IANA"),
        e(0, 236, "VRFname", "vrf", r.TEXT, "IANA"),
        e(0, 234, "ingressVRFID", "vrf", r.VRF, "IANA"),
        e(0, 235, "egressVRFID", "vrf", r.VRF, "IANA"),
        e(41916, 4321, "vpnId", "vrf", r.VRF, "Viptela"),
        e(9, 12434, "routingVrfService", "vrf", r.VRF, "Cisco SD-WAN"),
        e(V9, 45202, "routingVrfService", "vrf", r.VRF, "Cisco SD-WAN"),
        e(637, 91, "natInsideServiceId", "vrf", r.VRF, "Nokia 7750 SR"),
        e(V9, 24629, "CONTEXT_NAME", "vrf", r.TEXT, "Ericsson NAT log"),
        e(0, 90, "mplsVpnRouteDistinguisher", "vrf", r.DISTINGUISHER, "IANA"),
        # Address translation.
        e(0, 225, "postNATSourceIPv4Address", "nat_src_addr", r.ADDRESS, "IANA"),
        e(0, 281, "postNATSourceIPv6Address", "nat_src_addr", r.ADDRESS, "IANA"),
        e(V9, 40001, "NF_F_XLATE_SRC_ADDR_IPV4", "nat_src_addr", r.ADDRESS, "ASA"),
        e(V9, 24633, "IPV4_EXT_ADDR", "nat_src_addr", r.ADDRESS, "Ericsson NAT log"),
        e(39499, 7233, "xlateSrcAddrIpv4", "nat_src_addr", r.ADDRESS, "Flowmon"),
        e(10704, 8, "bindIPv4Address", "nat_src_addr", r.ADDRESS, "Barracuda CloudGen"),
        e(12326, 8, "bindIPv4Address", "nat_src_addr", r.ADDRESS, "Barracuda CloudGen"),
        e(12276, 28, "transSourceIPv4Address", "nat_src_addr", r.ADDRESS, "F5 BIG-IP"),
        e(12276, 29, "transSourceIPv6Address", "nat_src_addr", r.ADDRESS, "F5 BIG-IP"),
        e(0, 226, "postNATDestinationIPv4Address", "nat_dst_addr", r.ADDRESS, "IANA"),
        e(0, 282, "postNATDestinationIPv6Address", "nat_dst_addr", r.ADDRESS, "IANA"),
        e(V9, 40002, "NF_F_XLATE_DST_ADDR_IPV4", "nat_dst_addr", r.ADDRESS, "ASA"),
        e(39499, 7234, "xlateDstAddrIpv4", "nat_dst_addr", r.ADDRESS, "Flowmon"),
        e(10704, 10, "connIPv4Address", "nat_dst_addr", r.ADDRESS, "Barracuda CloudGen"),
        e(12326, 10, "connIPv4Address", "nat_dst_addr", r.ADDRESS, "Barracuda CloudGen"),
        e(12276, 31, "transDestinationIPv4Address", "nat_dst_addr", r.ADDRESS, "F5 BIG-IP"),
        e(12276, 32, "transDestinationIPv6Address", "nat_dst_addr", r.ADDRESS, "F5 BIG-IP"),
        e(0, 227, "postNAPTSourceTransportPort", "nat_src_port", r.UNSIGNED, "IANA"),
        e(V9, 40003, "NF_F_XLATE_SRC_PORT", "nat_src_port", r.UNSIGNED, "ASA"),
        e(V9, 24634, "EXT_PORT_FIRST", "nat_src_port", r.UNSIGNED, "Ericsson NAT log"),
        e(39499, 7235, "xlateSrcPort", "nat_src_port", r.UNSIGNED, "Flowmon"),
        e(10704, 9, "bindTransportPort", "nat_src_port", r.UNSIGNED, "Barracuda CloudGen"),
        e(12326, 9, "bindTransportPort", "nat_src_port", r.UNSIGNED, "Barracuda CloudGen"),
        e(12276, 30, "transSourcePort", "nat_src_port", r.UNSIGNED, "F5 BIG-IP"),
        # The first of a block of ports that a translator allots.
        e(0, 361, "portRangeStart", "nat_src_port", r.UNSIGNED, "IANA, RFC 8158", absent),
        e(0, 228, "postNAPTDestinationTransportPort", "nat_dst_port", r.UNSIGNED, "IANA"),
        e(V9, 40004, "NF_F_XLATE_DST_PORT", "nat_dst_port", r.UNSIGNED, "ASA"),
        e(39499, 7236, "xlateDstPort", "nat_dst_port", r.UNSIGNED, "Flowmon"),
        e(10704, 11, "connTransportPort", "nat_dst_port", r.UNSIGNED, "Barracuda CloudGen"),
        e(12326, 11, "connTransportPort", "nat_dst_port", r.UNSIGNED, "Barracuda CloudGen"),
        e(12276, 33, "transDestinationPort", "nat_dst_port", r.UNSIGNED, "F5 BIG-IP"),
        # Times.
        e(0, 160, "systemInitTimeMilliseconds", "system_init", r.UNSIGNED, "IANA"),
        e(0, 22, "flowStartSysUpTime", "time_flow_start", r.UPTIME, "IANA"),
        e(0, 152, "flowStartMilliseconds", "time_flow_start", r.MILLISECONDS, "IANA"),
        e(0, 154, "flowStartMicroseconds", "time_flow_start", r.NTP_MICROSECONDS, "IANA"),
        e(0, 156, "flowStartNanoseconds", "time_flow_start", r.NTP_NANOSECONDS, "IANA"),
        e(0, 150, "flowStartSeconds", "time_flow_start", r.SECONDS, "IANA"),
        e(0, 158, "flowStartDeltaMicroseconds", "time_flow_start", r.BEFORE_EXPORT, "IANA"),
        e(8741, 17, "flowStartTime", "time_flow_start", r.SECONDS, "SonicWall"),
        e(V9, 24630, "ASSIGN_TS_SEC", "time_flow_start", r.SECONDS, "Ericsson NAT log"),
        e(0, 21, "flowEndSysUpTime", "time_flow_end", r.UPTIME, "IANA"),
        e(0, 153, "flowEndMilliseconds", "time_flow_end", r.MILLISECONDS, "IANA"),
        e(0, 155, "flowEndMicroseconds", "time_flow_end", r.NTP_MICROSECONDS, "IANA"),
        e(0, 157, "flowEndNanoseconds", "time_flow_end", r.NTP_NANOSECONDS, "IANA"),
        e(0, 151, "flowEndSeconds", "time_flow_end", r.SECONDS, "IANA"),
        e(0, 159, "flowEndDeltaMicroseconds", "time_flow_end", r.BEFORE_EXPORT, "IANA"),
        e(8741, 18, "flowEndTime", "time_flow_end", r.SECONDS, "SonicWall"),
        e(V9, 24631, "UNASSIGN_TS_SEC", "time_flow_end", r.SECONDS, "Ericsson NAT log"),
        e(0, 161, "flowDurationMilliseconds", "duration", r.UNSIGNED, "IANA"),
        e(0, 162, "flowDurationMicroseconds", "duration", r.DURATION_US, "IANA"),
        e(0, 323, "observationTimeMilliseconds", "event_time", r.MILLISECONDS, "IANA, ASA"),
        e(0, 324, "observationTimeMicroseconds", "event_time", r.NTP_MICROSECONDS, "IANA"),
        e(0, 325, "observationTimeNanoseconds", "event_time", r.NTP_NANOSECONDS, "IANA"),
        e(0, 322, "observationTimeSeconds", "event_time", r.SECONDS, "IANA"),
        e(8741, 1, "timeStamp", "event_time", r.SECONDS, "SonicWall"),
        # Sampling.
        e(0, 34, "samplingInterval", "sampling_rate", r.UNSIGNED, "IANA"),
        e(0, 50, "samplerRandomInterval", "sampling_rate", r.UNSIGNED, "IANA"),
        e(0, 305, "samplingPacketInterval", "selected_packets", r.UNSIGNED, "IANA"),
        e(0, 306, "samplingPacketSpace", "skipped_packets", r.UNSIGNED, "IANA"),
        e(0, 48, "samplerId", "sampler", r.UNSIGNED, "IANA"),
        e(0, 302, "selectorId", "sampler", r.UNSIGNED, "IANA", absent),
        # Applications, names and latencies.
        e(0, 96, "applicationName", "app", r.TEXT, "IANA"),
        e(V9, 57591, "L7_PROTO_NAME", "app", r.TEXT, "nProbe"),
        e(35632, 119, "L7_PROTO_NAME", "app", r.TEXT, "nProbe"),
        e(V9, 56701, "App-ID", "app", r.TEXT, "PAN-OS"),
        e(V9, 57899, "APPLICATION_NAME", "app", r.TEXT, "nProbe"),
        e(35632, 427, "APPLICATION_NAME", "app", r.TEXT, "nProbe"),
        e(3054, 111, "l7ApplicationName", "app", r.TEXT, "Ixia IxFlow"),
        e(15397, 1, "service", "app", r.TEXT, "Procera PacketLogic"),
        e(15397, 2, "baseService", "app", r.TEXT, "Procera PacketLogic"),
        e(5951, 152, "appName", "app", r.TEXT, "Citrix NetScaler AppFlow"),
        e(10704, 5, "serviceName", "app", r.TEXT, "Barracuda CloudGen"),
        e(12326, 5, "serviceName", "app", r.TEXT, "Barracuda CloudGen"),
        e(9789, 2, "afcProtocolName", "app", r.TEXT, "enterprise 9789"),
        e(0, 95, "applicationId", "app", r.APPLICATION, "IANA, RFC 6759"),
        e(V9, 57590, "L7_PROTO", "app", r.NUMBER_TEXT, "nProbe"),
        e(35632, 118, "L7_PROTO", "app", r.NUMBER_TEXT, "nProbe"),
        e(CERT, 33, "silkAppLabel", "app", r.NUMBER_TEXT, "CERT YAF"),
        e(V9, 57677, "DNS_QUERY", "dns_name", r.TEXT, "nProbe"),
        e(35632, 205, "DNS_QUERY", "dns_name", r.TEXT, "nProbe"),
        e(CERT, 179, "dnsQName", "dns_name", r.TEXT, "CERT YAF"),
        e(3054, 189, "dnsQuery", "dns_name", r.TEXT, "Ixia IxFlow"),
        e(26866, 1958, "dnsQuery", "dns_name", r.TEXT, "Gigamon"),
        e(26866, 204, "DnsQueryName", "dns_name", r.TEXT, "Gigamon"),
        e(3054, 273, "dnsQueryName", "dns_name", r.TEXT, "Ixia IxFlow"),
        e(3054, 198, "dnsName", "dns_name", r.TEXT, "Ixia IxFlow"),
        e(47729, 203, "DnsQueryName", "dns_name", r.TEXT, "Niagara Networks"),
        e(8057, 2, "DNSName", "dns_name", r.TEXT, "CESNET"),
        e(12276, 7, "queryName", "dns_name", r.TEXT, "F5 BIG-IP"),
        e(39499, 121, "dnsQname", "dns_name", r.TEXT, "Flowmon"),
        e(V9, 57680, "DNS_RET_CODE", "dns_rcode", r.RCODE, "nProbe"),
        e(35632, 208, "DNS_RET_CODE", "dns_rcode", r.RCODE, "nProbe"),
        e(26866, 203, "DnsResponseCode", "dns_rcode", r.RCODE, "Gigamon"),
        e(3054, 257, "dnsMsgRcode", "dns_rcode", r.RCODE, "Ixia IxFlow"),
        e(47729, 202, "DnsResponseCode", "dns_rcode", r.RCODE, "Niagara Networks"),
        e(8057, 1, "DNSRCode", "dns_rcode", r.RCODE, "CESNET"),
        e(39499, 111, "dnsFlagsCodes", "dns_rcode", r.DNS_FLAGS, "Flowmon"),
        e(0, 460, "httpRequestHost", "http_host", r.TEXT, "IANA"),
        e(V9, 57659, "HTTP_HOST", "http_host", r.TEXT, "nProbe"),
        e(35632, 187, "HTTP_HOST", "http_host", r.TEXT, "nProbe"),
        e(5951, 142, "httpReqHost", "http_host", r.TEXT, "Citrix NetScaler AppFlow"),
        e(5951, 267, "httpDomainName", "http_host", r.TEXT, "Citrix NetScaler AppFlow"),
        e(3054, 183, "httpHostName", "http_host", r.TEXT, "Ixia IxFlow"),
        e(15397, 18, "serverHostname", "http_host", r.TEXT, "Procera PacketLogic"),
        e(26866, 4676, "httpHost", "http_host", r.TEXT, "Gigamon"),
        e(39499, 1, "httpHost", "http_host", r.TEXT, "Flowmon"),
        e(CERT, 117, "httpHost", "http_host", r.TEXT, "CERT YAF"),
        e(V9, 8256, "hostname", "http_host", r.TEXT, "StreamCore"),
        e(23867, 8, "applicationHttpHost", "http_host", r.TEXT, "Silver Peak EdgeConnect"),
        e(12276, 74, "httpHostname", "http_host", r.TEXT, "F5 BIG-IP"),
        e(44913, 20, "httpHostname", "http_host", r.TEXT, "RedSocks"),
        e(V9, 57833, "HTTP_SITE", "http_host", r.TEXT, "nProbe"),
        e(35632, 361, "HTTP_SITE", "http_host", r.TEXT, "nProbe"),
        e(0, 457, "httpStatusCode", "http_status", r.UNSIGNED, "IANA"),
        e(9, 12235, "httpHost", "http_host", r.AVC_HOST, "AVC"),
        e(V9, 45003, "httpHost", "http_host", r.AVC_HOST, "AVC"),
        e(V9, 57653, "HTTP_RET_CODE", "http_status", r.UNSIGNED, "nProbe"),
        e(35632, 181, "HTTP_RET_CODE", "http_status", r.UNSIGNED, "nProbe"),
        e(5951, 144, "httpRspStatus", "http_status", r.UNSIGNED, "Citrix NetScaler AppFlow"),
        e(26866, 2, "HttpRspStatus", "http_status", r.UNSIGNED, "Gigamon"),
        e(39499, 12, "httpStatusCode", "http_status", r.UNSIGNED, "Flowmon"),
        e(12276, 76, "httpResponseCode", "http_status", r.UNSIGNED, "F5 BIG-IP"),
        e(15397, 24, "httpResponseStatus", "http_status", r.UNSIGNED, "Procera PacketLogic"),
        e(3054, 283, "connectionAverageRoundTripTime", "rtt", r.LATENCY_US, "Ixia IxFlow"),
        e(9, 4248, "transportRoundTripTime", "rtt", r.LATENCY_US, "Cisco Performance Monitor"),
        e(V9, 37016, "TRANSPORT_ROUND_TRIP_TIME", "rtt", r.LATENCY_US, "Cisco Performance Monitor"),
        e(5951, 128, "roundTripTime", "rtt", r.LATENCY_MS, "Citrix NetScaler AppFlow"),
        e(V9, 57595, "CLIENT_NW_LATENCY_MS", "client_latency", r.UNSIGNED, "nProbe"),
        e(35632, 123, "CLIENT_NW_LATENCY_MS", "client_latency", r.UNSIGNED, "nProbe"),
        e(V9, 57596, "SERVER_NW_LATENCY_MS", "server_latency", r.UNSIGNED, "nProbe"),
        e(35632, 124, "SERVER_NW_LATENCY_MS", "server_latency", r.UNSIGNED, "nProbe"),
        e(V9, 57660, "TLS_SERVER_NAME", "tls_sni", r.TEXT, "nProbe"),
        e(35632, 188, "TLS_SERVER_NAME", "tls_sni", r.TEXT, "nProbe"),
        e(CERT, 294, "sslServerName", "tls_sni", r.TEXT, "CERT YAF"),
        e(26866, 112, "sslServerName", "tls_sni", r.TEXT, "Gigamon"),
        e(3054, 201, "tlsSni", "tls_sni", r.TEXT, "Ixia IxFlow"),
        e(47729, 100, "SslServerNameIndication", "tls_sni", r.TEXT, "Niagara Networks"),
        e(8057, 808, "TLSSNI", "tls_sni", r.TEXT, "CESNET"),
        e(8057, 890, "quicSNI", "tls_sni", r.TEXT, "CESNET"),
        e(39499, 338, "tlsSni", "tls_sni", r.TEXT, "Flowmon"),
    )  # fmt: skip


#: The built-in table. Order matters: of elements for one column, earlier ones go first.
ELEMENTS: Final = _builtin()

_READINGS: Final = {
    Kind.ADDRESS: Reading.ADDRESS,
    Kind.MAC: Reading.MAC,
    Kind.TEXT: Reading.TEXT,
    Kind.NAME: Reading.TEXT,
    Kind.TIME: Reading.MILLISECONDS,
    Kind.FLOAT32: Reading.LATENCY_MS,
}


class ElementTable:
    """The built-in elements and those of the configuration, which take precedence.

    ``inner_packets``: of packets in tunnels, in frames and packets, the inner ones are meant.
    """

    def __init__(
        self, configured: Iterable[ConfiguredElement] = (), *, inner_packets: bool = False
    ) -> None:
        self.inner_packets = inner_packets
        own = []
        for number, entry in enumerate(configured, start=1):
            column = BY_NAME[entry.column]
            reading = _READINGS.get(column.kind, Reading.UNSIGNED)
            if column.kind is Kind.TEXT and entry.column == "vrf":
                reading = Reading.VRF
            if column.name == "direction":
                reading = Reading.DIRECTION
            own.append(
                Element(
                    entry.enterprise, entry.id, f"configured {number}", column.name, reading,
                    "configuration",
                )
            )  # fmt: skip
        self._ranked: dict[tuple[int, int], tuple[int, Element]] = {}
        for rank, element in enumerate((*own, *ELEMENTS)):
            self._ranked.setdefault((element.enterprise, element.id), (rank, element))
        # NetFlow v9 has no enterprise numbers: configured IANA elements of any number are its too.

    def find(self, enterprise: int, number: int) -> tuple[int, Element] | None:
        """Rank and row of an element; of equal column, the lower rank goes first."""
        return self._ranked.get((enterprise, number))
