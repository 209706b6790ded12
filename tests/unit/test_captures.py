"""Captures of real devices: counts and every stored field agree with an independent decoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter import config
from exporter.decode import Decoder
from exporter.decode.devices import Device
from exporter.decode.files import FileDecoder

CAPTURES = Path(__file__).parents[1] / "captures"

Row = dict[str, Any]
Check = Callable[[Row, Any], bool]


@dataclass
class Decoded:
    """What our decoder makes of a case."""

    rows: list[Row]
    reported: int
    options: int
    faults: list[str]
    device: Device
    decoder: Decoder


def cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{case['name'].strip()} {len(case['files'])}")
        for name in ("expected.json", "further.json")
        for case in json.loads((CAPTURES / name).read_text())
    ]


def decode(files: list[str]) -> Decoded:
    faults: list[str] = []
    reader = FileDecoder(config.Decode(), [], faults.append)
    paths = [CAPTURES / name for name in files]
    rows = [row for batch in reader.decode(paths) for row in batch.rows()]
    reader.finish()
    state = reader.decoder.state
    streams = list(state.streams())
    return Decoded(
        rows,
        sum(stream.records for stream in streams),
        sum(stream.options for stream in streams),
        faults,
        next(iter(state.devices.values())),
        reader.decoder,
    )


def time(text: str) -> int:
    """ISO 8601 as milliseconds since the epoch."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    return round(moment.timestamp() * 1000)


def same(name: str, show: Callable[[Any], Any] = lambda value: value) -> Check:
    """The column holds exactly this."""
    return lambda row, value: row[name] == show(value)


def of_station(part: str) -> Check:
    """The source's, but of egress flows the destination's."""
    sides = {"egress": "dst"}
    return lambda row, value: row[f"{sides.get(row['direction'], 'src')}_{part}"] == value


def instead(name: str) -> Check:
    """Fills the column where the element that goes first is zero."""
    return lambda row, value: value == 0 or row[name] != 0


def counted(name: str) -> Check:
    """Counters are stored as estimates."""
    return lambda row, value: row[name] == value * row["sampling_rate"]


def before(name: str) -> Check:
    """A count before a middlebox: where it is 0, the one after it is stored."""
    return lambda row, value: value == 0 or row[name] == value * row["sampling_rate"]


def uptime(name: str) -> Check:
    """The other decoder may be a second late, does not see times before the start, and believes
    all times."""

    def check(row: Row, value: str) -> bool:
        late = (time(value) - time(row[name])) % 2**32
        ahead = time(value) - time(row["time_received"])
        return late in (0, 1000) or (row["time_source"] == "received" and ahead > 3_600_000)

    return check


def some(name: str) -> Check:
    """One of the addresses of a record that has one of each family; the other one is empty."""
    return lambda row, value: value in ("::", row[name])


def moment(name: str, unit: int = 1) -> Check:
    """A time as text, or a number of ``unit`` milliseconds since the epoch."""
    return lambda row, value: (
        time(row[name]) == (time(value) if isinstance(value, str) else value * unit)
    )


def icmp(row: Row, value: int) -> bool:
    return (row["icmp_type"], row["icmp_code"]) == (value >> 8, value & 0xFF)


def both_ways(row: Row, value: int) -> bool:
    """In the flow as reported or, if it counts anything, in the one of the other direction."""
    return value == 0 or any(other["bytes"] == value for other in row["_all"])


def direction(value: int) -> str:
    return {0: "ingress", 1: "egress"}[value]


def number(value: int) -> str:
    return str(value) if value else ""


def text(value: str) -> str:
    """As another decoder shows text: without NULs, cut where it ends."""
    return value.partition("\0")[0].strip()


def application(row: Row, value: str) -> bool:
    """A number only where no name is told."""
    return row["app"] in (value.replace("..", ":"), *row["_names"])


def uptime_without_start(row: Row, value: int) -> bool:
    """Uptimes in IPFIX need the device's start; without it only the duration is known."""
    return row["time_source"] == "received" or value <= 2**32


#: Fields that flow columns store, in the names of the other decoder.
STORED: dict[str, Check] = {
    "in_bytes": before("bytes"), "in_pkts": before("packets"),
    "octetDeltaCount": before("bytes"), "packetDeltaCount": before("packets"),
    "out_bytes": instead("bytes"), "out_pkts": instead("packets"),
    "octetTotalCount": instead("bytes"), "packetTotalCount": instead("packets"),
    "in_permanent_bytes": counted("bytes"), "in_permanent_pkts": counted("packets"),
    "fwd_flow_delta_bytes": counted("bytes"), "rev_flow_delta_bytes": both_ways,
    "reverseOctetTotalCount": both_ways, "ixiaRevOctetDeltaCount": both_ways,
    "proceraOutgoingOctets": instead("bytes"), "proceraIncomingOctets": instead("bytes"),
    "ipv4_src_addr": same("src_addr"), "ipv4_dst_addr": same("dst_addr"),
    "ipv6_src_addr": same("src_addr"), "ipv6_dst_addr": same("dst_addr"),
    "sourceIPv4Address": same("src_addr"), "destinationIPv4Address": same("dst_addr"),
    "sourceIPv6Address": some("src_addr"), "destinationIPv6Address": some("dst_addr"),
    "staIPv4Address": of_station("addr"), "staMacAddress": of_station("mac"),
    "ipv4_src_prefix": lambda row, value: True if value == "0.0.0.0" else row["src_addr"] == value,
    "l4_src_port": same("src_port"), "l4_dst_port": same("dst_port"),
    "sourceTransportPort": same("src_port"), "destinationTransportPort": same("dst_port"),
    "tcp_src_port": instead("src_port"), "udp_dst_port": instead("dst_port"),
    "protocol": same("proto"), "protocolIdentifier": same("proto"),
    "tcp_flags": same("tcp_flags"), "tcpControlBits": same("tcp_flags"),
    "initialTCPFlags": lambda row, value: row["tcp_flags"] & value == value,
    "unionTCPFlags": lambda row, value: row["tcp_flags"] & value == value,
    "src_tos": same("tos"), "ipClassOfService": same("tos"),
    "ip_dscp": lambda row, value: value == 0 or row["tos"] >> 2 == value,
    "ipDiffServCodePoint": lambda row, value: row["tos"] >> 2 == value,
    "maximumTTL": same("ttl"),
    "input_snmp": same("in_if"), "output_snmp": same("out_if"),
    "ingressInterface": same("in_if"), "egressInterface": same("out_if"),
    "ingressPhysicalInterface": instead("in_if"), "egressPhysicalInterface": instead("out_if"),
    "direction": same("direction", direction), "flowDirection": same("direction", direction),
    "in_src_mac": same("src_mac"), "in_dst_mac": same("dst_mac"),
    "out_src_mac": same("src_mac"), "out_dst_mac": same("dst_mac"),
    "sourceMacAddress": same("src_mac"),
    "src_vlan": same("src_vlan"), "dst_vlan": same("dst_vlan"), "vlanId": same("src_vlan"),
    "ethernetType": same("etype"),
    "ipVersion": lambda row, value: row["etype"] == {4: 0x0800, 6: 0x86DD}[value],
    "ip_protocol_version": lambda row, value: row["etype"] == {4: 0x0800, 6: 0x86DD}[value],
    "src_as": same("src_as"), "dst_as": same("dst_as"),
    "bgpSourceAsNumber": same("src_as"), "bgpDestinationAsNumber": same("dst_as"),
    "src_mask": same("src_prefix_len"), "dst_mask": same("dst_prefix_len"),
    "ipv4_next_hop": same("next_hop"), "ipNextHopIPv4Address": same("next_hop"),
    "ipNextHopIPv6Address": same("next_hop"),
    "bgp_ipv4_next_hop": lambda row, value: value == "0.0.0.0" or row["next_hop"] == value,
    "icmp_type": lambda row, value: (
        icmp(row, value) if row["source"] == "netflow9" and "nat_src_addr" not in row
        else row["icmp_type"] == value
    ),
    "icmp_code": same("icmp_code"), "icmpTypeCodeIPv4": icmp,
    "forwarding_status": same("forwarding_status", lambda v: v["status"] << 6 | v["reason"]),
    "VRFname": same("vrf", text), "ingressVRFID": same("vrf", number),
    "egressVRFID": lambda row, value: row["vrf"] != "" or value == 0,
    "natInsideSvcid": same("vrf", number), "viptelaVPNId": same("vrf", number),
    "xlate_src_addr_ipv4": same("nat_src_addr"), "xlate_dst_addr_ipv4": same("nat_dst_addr"),
    "xlate_src_port": same("nat_src_port"), "xlate_dst_port": same("nat_dst_port"),
    "postNATSourceIPv4Address": same("nat_src_addr"),
    "postNATDestinationIPv4Address": same("nat_dst_addr"),
    "BindIPv4Address": same("nat_src_addr"), "ConnIPv4Address": same("nat_dst_addr"),
    "BindTransportPort": same("nat_src_port"), "ConnTransportPort": same("nat_dst_port"),
    "firewallEvent": lambda row, value: (row["forwarding_status"] >= 128) == (value == 3),
    "fw_event": lambda row, value: (row["forwarding_status"] >= 128) == (value == 3),
    "fw_ext_event": lambda row, value: (row["forwarding_status"] == 129) == (value in (1001, 1002)),
    "first_switched": uptime("time_flow_start"), "last_switched": uptime("time_flow_end"),
    "flowStartSeconds": moment("time_flow_start", 1000),
    "flowEndSeconds": moment("time_flow_end", 1000),
    "flow_start_msec": moment("time_flow_start"), "event_time_msec": moment("time_flow_end"),
    "flowStartMilliseconds": moment("time_flow_start"),
    "flowEndMilliseconds": moment("time_flow_end"),
    "flowStartMicroseconds": moment("time_flow_start"),
    "flowEndMicroseconds": moment("time_flow_end"),
    "flowStartSysUpTime": uptime_without_start, "flowEndSysUpTime": uptime_without_start,
    "flowDurationMilliseconds": lambda row, value: (
        time(row["time_flow_end"]) - time(row["time_flow_start"]) == value
    ),
    "sampling_interval": lambda row, value: row["sampling_rate"] == max(value, 1),
    "application_id": application, "app_id": same("app", text),
    "application_name": lambda row, value: text(value) in ("", row["app"]),
    "nprobe_proto_name": lambda row, value: text(value) == "" or row["app"] == text(value),
    "nprobe_proto": lambda row, value: row["app"] != "",
    "ServiceName": same("app", text), "ixiaL7AppName": same("app", text),
    "proceraService": same("app", text), "proceraBaseService": lambda row, value: row["app"] != "",
    "silkAppLabel": same("app", number),
    "netscalerHttpReqHost": same("http_host"), "ixiaHttpHostName": same("http_host"),
    "netscalerHttpDomainName": lambda row, value: row["http_host"] != "",
    "streamcore_hostname": same("http_host", text),
}  # fmt: skip

#: Fields that have no column: identifiers, headers, and what only the device's owner can use.
NOT_STORED = {
    "AuditCounter", "FW_Rule", "LogOp", "Reason", "ReasonText", "Timestamp", "TrafficType",
    "application_description", "conn_id", "dst_traffic_index", "egress_acl_id", "engine_id",
    "engine_type", "exportProtocolVersion", "exportTransportProtocol", "exportingProcessId",
    "flowAttributes", "flowEndReason", "flowId", "flow_end_reason",
    "flow_records", "flow_sampler_id", "flow_seq_num", "flows", "flowset_id", "ingress_acl_id",
    "ipPrecedence", "ipv4_ident",
    "ixiaBrowserId", "ixiaBrowserName", "ixiaDeviceId", "ixiaDeviceName", "ixiaDstAsName",
    "ixiaDstLatitude", "ixiaDstLongitude", "ixiaHttpUri", "ixiaHttpUserAgent", "ixiaL7AppId",
    "ixiaLatency", "ixiaRevPacketDeltaCount", "ixiaSrcAsName", "ixiaSrcLatitude",
    "ixiaSrcLongitude", "ixiaThreatIPv4", "ixiaThreatType", "layer2SegmentId",
    "maximumIpTotalLength", "minimumIpTotalLength", "mpls_label_stack_octets", "natOutsideSvcid",
    "natSubString", "netscalerAaaUsername", "netscalerAppNameAppId", "netscalerAppUnitNameAppId",
    "netscalerConnectionChainHopCount", "netscalerConnectionChainID", "netscalerConnectionId",
    "netscalerFlowFlags", "netscalerHttpContentType", "netscalerHttpReqAuthorization",
    "netscalerHttpReqCookie", "netscalerHttpReqMethod", "netscalerHttpReqReferer",
    "netscalerHttpReqUrl", "netscalerHttpReqUserAgent", "netscalerHttpReqVia",
    "netscalerHttpReqXForwardedFor", "netscalerHttpResForwFB", "netscalerHttpResForwLB",
    "netscalerTransactionId", "netscalerUnknown330", "observationPointId",
    "postIpDiffServCodePoint", "privateEnterpriseNumber", "proceraContentCategories",
    "proceraFlowBehavior", "proceraHttpContentType", "proceraHttpFileLength",
    "proceraHttpLocation", "proceraHttpUrl", "proceraSubscriberIdentifier",
    "proceraTemplateName", "reverseFlowAttributes", "reverseFlowDeltaMilliseconds",
    "reverseIcmpTypeCodeIPv4", "reverseInitialTCPFlags", "reverseIpClassOfService",
    "reversePacketTotalCount", "reverseTcpSequenceNumber", "reverseUnionTCPFlags",
    "reverseVlanId", "sampling_algorithm", "src_traffic_index", "streamcore_call_direction",
    *(f"streamcore_id_rule_{number}" for number in range(1, 11)), "streamcore_net_app_resp_time",
    "streamcore_tcp_retrans_rate", "streamcore_total_app_resp_time", "streamcore_url",
    "streamcore_wan_rtt", "tcpOptions", "tcpSequenceNumber", "user_id", "username", "version",
    "vmwareEgressInterfaceAttr", "vmwareIngressInterfaceAttr", "vmwareUnknown888",
    "vmwareUnknown889", "vmwareUnknown890", "vmwareVxlanExportRole", "wlanSSID", "wtpMacAddress",
}  # fmt: skip

#: What shows that a sample is an options record.
OPTIONS = {
    "scope_system", "systemInitTimeMilliseconds", "meteringProcessId", "exportedMessageTotalCount",
    "flow_active_timeout",
}  # fmt: skip


@pytest.mark.parametrize("case", cases())
def test_a_capture_holds_the_records_that_others_see(case: Row) -> None:
    decoded = decode(case["files"])
    if case["records"] is not None:
        assert decoded.reported + decoded.options == case["records"]
    records = [s["netflow"] for s in case["sample_records"] if "netflow" in s]
    for record in records:
        if record.keys() & OPTIONS or not is_flow(record):
            continue
        assert record.keys() <= STORED.keys() | NOT_STORED
        assert decoded.rows
        disagreements = [disagreement(row, record, decoded) for row in decoded.rows]
        assert [] in disagreements, min(disagreements, key=len)


def is_flow(record: Row) -> bool:
    return bool(record.keys() & {"protocol", "protocolIdentifier", "staMacAddress"}) or (
        "first_switched" in record
    )


def disagreement(row: Row, record: Row, decoded: Decoded) -> list[str]:
    """The fields in which our flow is not the other decoder's."""
    row = row | {"_all": decoded.rows, "_names": decoded.device.applications.values()}
    found = []
    for name, value in record.items():
        check = STORED.get(name)
        if check is None:
            continue
        try:
            agrees = check(row, value)
        except KeyError as missing:
            found.append(f"{name}: no column {missing}")
            continue
        if not agrees:
            found.append(f"{name}: {value!r}")
    return found


def test_every_capture_is_part_of_a_case() -> None:
    used = {name for case in cases() for name in case.values[0]["files"]}
    known = {path.name for path in CAPTURES.glob("*.dat")}
    assert used == known


def test_interface_names_of_an_asr9000_are_kept() -> None:
    decoded = decode(["netflow9_test_cisco_asr9k_opttpl256.dat",
                      "netflow9_test_cisco_asr9k_data256.dat"])  # fmt: skip
    assert decoded.device.interfaces[104] == "TenGigE0_6_0_2"
    assert len(decoded.device.interfaces) == 19


def test_application_names_of_nbar_are_kept() -> None:
    decoded = decode(["netflow9_test_cisco_nbar_opttpl260.dat"])
    assert decoded.device.applications[b"\x01\0\0\x0d"] == "argus"


def test_sampling_told_in_options_of_an_srx_is_kept() -> None:
    decoded = decode(["netflow9_test_juniper_srx_tplopt.dat"])
    (stream,) = decoded.device.streams.values()
    assert stream.sampling.general == 1


def test_uptimes_in_ipfix_are_relative_to_the_start_told_in_options() -> None:
    decoded = decode(["ipfix.dat"])
    ends = {row["time_flow_end"] for row in decoded.rows}
    assert "2015-05-13T11:20:26.232Z" in ends  # 1431516013506 + 12726
    assert {row["time_source"] for row in decoded.rows} == {"record"}


def test_uptimes_in_ipfix_without_a_start_keep_the_duration() -> None:
    decoded = decode(["ipfix_test_barracuda_tpl.dat", "ipfix_test_barracuda_data256.dat"])
    assert {row["time_source"] for row in decoded.rows} == {"received"}
    lengths = {time(row["time_flow_end"]) - time(row["time_flow_start"]) for row in decoded.rows}
    assert 20368 in lengths


def test_the_rate_in_a_v5_header_makes_estimates() -> None:
    decoded = decode(["netflow5_test_juniper_mx80.dat"])
    assert {row["sampling_rate"] for row in decoded.rows} == {1000}
    assert {row["sampling_source"] for row in decoded.rows} == {"record"}
    assert all(row["bytes"] % 1000 == 0 for row in decoded.rows)


def test_a_repeated_datagram_counts_once_and_what_waited_is_decoded() -> None:
    decoded = decode(["ipfix_test_netscaler_data.dat", "ipfix_test_netscaler_tpl.dat",
                      "ipfix_test_netscaler_tpl.dat", "ipfix_test_netscaler_data.dat"])  # fmt: skip
    (stream,) = decoded.device.streams.values()
    assert len(decoded.rows) == 3
    assert stream.duplicates == 2
    assert decoded.faults == [
        "device ::, domain 0: template 280 never came; sets of records not decoded: 1 (104 octets)"
    ]


def test_connections_of_an_asa_count_once() -> None:
    """Eight connections, of which seven have an update and an end that tells the same."""
    decoded = decode(["netflow9_test_cisco_asa_2_tpl_26x.dat",
                      "netflow9_test_cisco_asa_2_tpl_27x.dat",
                      "netflow9_test_cisco_asa_2_data.dat"])  # fmt: skip
    there = {(row["src_port"], row["bytes"]) for row in decoded.rows if row["dst_port"] == 80}
    counted = [octets for _, octets in there if octets]
    assert sorted(counted) == [69, 69, 69, 75, 81, 81, 81, 81]
    assert sum(row["bytes"] for row in decoded.rows if row["dst_port"] == 80) == sum(counted)
    back = 763 + 6207 + 9075 + 5536 + 14179 + 14178 + 881 + 14178
    assert sum(row["bytes"] for row in decoded.rows if row["src_port"] == 80) == back


def test_both_directions_of_a_connection_are_two_flows() -> None:
    decoded = decode(["netflow9_test_cisco_asa_2_tpl_26x.dat",
                      "netflow9_test_cisco_asa_2_tpl_27x.dat",
                      "netflow9_test_cisco_asa_2_data.dat"])  # fmt: skip
    there = [row for row in decoded.rows if row["src_addr"] == "192.168.0.1" and row["bytes"]]
    back = [row for row in decoded.rows if row["dst_addr"] == "192.168.0.1" and row["bytes"]]
    assert decoded.reported == 19
    assert there
    assert back
    assert any(
        (a["src_port"], a["dst_port"], a["in_if"]) == (b["dst_port"], b["src_port"], b["out_if"])
        for a in there
        for b in back
    )
