"""Messages as eBPF agents send them."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

from exporter.proto import pbflow_pb2 as pb


def set_address(field: Any, text: str) -> None:
    """Fill a ``pbflow.IP`` the way the agent does."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        field.ipv4 = int(address)
    else:
        field.ipv6 = address.packed


def record(
    src: str = "10.1.0.1",
    dst: str = "10.2.0.2",
    *,
    agent: str = "192.0.2.7",
    ended: float | None = None,
    interfaces: tuple[tuple[str, int], ...] = (("eth0", pb.INGRESS),),
    **fields: Any,
) -> pb.Record:
    """A flow of TCP to port 443 that took two seconds, but for what ``fields`` say."""
    end = time.time() if ended is None else ended
    made = pb.Record(
        **{"eth_protocol": 0x86DD if ":" in src else 0x0800, "bytes": 1500, "packets": 3} | fields
    )
    made.time_flow_start.FromMilliseconds(round(end * 1000) - 2000)
    made.time_flow_end.FromMilliseconds(round(end * 1000))
    set_address(made.network.src_addr, src)
    set_address(made.network.dst_addr, dst)
    if agent:
        set_address(made.agent_ip, agent)
    if not made.HasField("transport"):
        made.transport.MergeFrom(pb.Transport(src_port=40_000, dst_port=443, protocol=6))
    for name, direction in interfaces:
        made.dup_list.add(interface=name, direction=direction)
    return made
