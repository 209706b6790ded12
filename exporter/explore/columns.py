"""What the flows can be grouped by, and what is summed or counted of a group."""

from __future__ import annotations

from dataclasses import dataclass

#: Flow columns to group by, with the words shown for them.
DIMENSIONS = (
    ("Source address", "src_addr"),
    ("Destination address", "dst_addr"),
    ("Source host", "src_host"),
    ("Destination host", "dst_host"),
    ("Source port", "src_port"),
    ("Destination port", "dst_port"),
    ("Service", "service"),
    ("Source service", "src_service"),
    ("Destination service", "dst_service"),
    ("IP protocol", "proto"),
    ("Source AS", "src_as"),
    ("Destination AS", "dst_as"),
    ("Source network", "src_network"),
    ("Destination network", "dst_network"),
    ("Source country", "src_country"),
    ("Destination country", "dst_country"),
    ("Device", "device"),
    ("Device address", "device_addr"),
    ("Site", "site"),
    ("Role", "role"),
    ("Input interface", "in_if"),
    ("Output interface", "out_if"),
    ("Input interface name", "in_if_name"),
    ("Output interface name", "out_if_name"),
    ("Direction", "direction"),
    ("Next hop", "next_hop"),
    ("VRF", "vrf"),
    ("Source VLAN", "src_vlan"),
    ("Destination VLAN", "dst_vlan"),
    ("Source MAC", "src_mac"),
    ("Destination MAC", "dst_mac"),
    ("Source address after NAT", "nat_src_addr"),
    ("Destination address after NAT", "nat_dst_addr"),
    ("EtherType", "etype"),
    ("TCP flags", "tcp_flags"),
    ("Type of service", "tos"),
    ("ICMP type", "icmp_type"),
    ("Forwarding status", "forwarding_status"),
    ("Application", "app"),
    ("DNS name", "dns_name"),
    ("DNS response code", "dns_rcode"),
    ("TLS server name", "tls_sni"),
    ("HTTP host", "http_host"),
    ("Protocol of the record", "source"),
    ("Sampling rate", "sampling_rate"),
)

#: Stands for "no second dimension".
NO_DIMENSION = "none"

#: The column that tells more about a key, by dimension.
NAMES = {
    "src_addr": "src_host",
    "dst_addr": "dst_host",
    "src_port": "src_service",
    "dst_port": "dst_service",
    "in_if": "in_if_name",
    "out_if": "out_if_name",
    "device": "owner",
    "port": "service",
}

#: The lower one of both ports, which the rollups have: to group by where the question is ours.
PORT = "port"
#: What flows do not have as a column.
EXPRESSIONS = {PORT: "least(src_port, dst_port)"}

#: Those of them that are not called as the dimension is, and ``_name``.
OTHER_NAMES = {
    name: told for name, told in NAMES.items() if told != f"{name}_name" and name not in EXPRESSIONS
}

#: Columns of the rollups flows_1m and flows_1h to group by.
ROLLUP_COLUMNS = (
    "device", "device_addr", "site", "role", "in_if", "out_if", "in_if_name", "out_if_name",
    "proto", "service", PORT,
)  # fmt: skip

#: Columns of the rollup networks_1h to group by, and of hosts_1h from either side.
NETWORK_COLUMNS = (
    "src_network", "dst_network", "src_country", "dst_country", "src_as", "dst_as",
)  # fmt: skip
HOST_COLUMNS = ("addr", "host", "network")

#: Columns of few different values: with one of them a key has hardly more values than without.
NARROW_COLUMNS = (
    "proto", "device", "device_addr", "site", "role", "direction", "vrf", "src_country",
    "dst_country", "src_network", "dst_network", "in_if_name", "out_if_name", "etype", "tcp_flags",
    "tos", "icmp_type", "forwarding_status", "dns_rcode", "source", "sampling_rate",
)  # fmt: skip

#: Columns whose different values can be counted, with the words shown for them.
COUNTED = {
    "src_addr": "sources",
    "dst_addr": "destinations",
    "src_port": "source ports",
    "dst_port": "destination ports",
    "src_as": "source ASes",
    "dst_as": "destination ASes",
}


@dataclass(frozen=True)
class Measure:
    """What is summed or counted over a group of flows.

    ``amount`` is a flow's part in it, over flow columns; ``rollup_amount`` that of a row of a
    rollup, where it can tell. The sum of amounts, times ``factor``, is the total; ``distinct``:
    the number of different ones instead. ``per_second`` says whether a bucket shows the total
    divided by its length. ``total_unit`` is Grafana's unit of the total over the whole range.
    """

    name: str
    label: str
    amount: str
    unit: str
    total_unit: str
    rollup_amount: str = ""
    factor: int = 1
    distinct: bool = False
    per_second: bool = False


#: The measure whose total is a percentage of that of all keys.
SHARE = "share_of_total"

#: A TCP flow that never got past its first packet.
_SYN_ONLY = "toUInt8(proto = 6 AND bitAnd(tcp_flags, 0x17) = 0x02)"

MEASURES = (
    Measure(
        "bits_per_second", "Bits/s", "bytes", "bps", "decbits", "bytes", factor=8, per_second=True
    ),
    Measure(
        "packets_per_second", "Packets/s", "packets", "pps", "short", "packets", per_second=True
    ),
    Measure("flows_per_second", "Flows/s", "toUInt64(1)", "cps", "short", "flows", per_second=True),
    Measure(
        "syn_only_flows_per_second", "SYN-only flows/s", _SYN_ONLY, "cps", "short", per_second=True
    ),
    Measure(SHARE, "Share of total bytes", "bytes", "percent", "percent", "bytes"),
    *(
        Measure(f"unique_{name}", f"Unique {words}", name, "short", "short", distinct=True)
        for name, words in COUNTED.items()
    ),
)
