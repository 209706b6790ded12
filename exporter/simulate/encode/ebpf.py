"""What the NetObserv eBPF agent sends: ``pbflow.Records`` (``exporter/proto/pbflow.proto``)."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import numpy as np

from exporter.batch import FlowBatch
from exporter.proto import pbflow_pb2 as pb
from exporter.schema import Direction
from exporter.simulate.encode.columns import of_ipv4

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
#: Records in a message, a hundredth of what the agent allows itself by default.
_PER_MESSAGE: Final = 1000


class EbpfEncoder:
    """The agent on one host. Messages are whole requests of ``pbflow.Collector/Send``."""

    def __init__(self, *, agent: str) -> None:
        self._agent = _ip(ipaddress.ip_address(agent).packed)

    def encode(self, batch: FlowBatch, now: int) -> list[bytes]:
        """The messages that carry ``batch``; see :class:`~exporter.simulate.encode.Encoder`."""
        del now  # only the flows' own times are told
        records = [self._record(row) for row in _rows(batch)]
        return [
            pb.Records(entries=records[first : first + _PER_MESSAGE]).SerializeToString()
            for first in range(0, len(records), _PER_MESSAGE)
        ]

    def _record(self, row: dict[str, Any]) -> pb.Record:
        egress = row["direction"] == Direction.EGRESS
        way = pb.EGRESS if egress else pb.INGRESS
        interface = row["out_if_name" if egress else "in_if_name"]
        record = pb.Record(
            eth_protocol=_IPV4 if row["ipv4"] else _IPV6,
            direction=way,
            network=pb.Network(
                src_addr=_ip(_short(row, "src_addr")), dst_addr=_ip(_short(row, "dst_addr"))
            ),
            transport=pb.Transport(
                src_port=row["src_port"], dst_port=row["dst_port"], protocol=row["proto"]
            ),
            bytes=row["bytes"],
            packets=row["packets"],
            flags=row["tcp_flags"],
            agent_ip=self._agent,
            sampling=1,
            dup_list=[pb.DupMapEntry(interface=interface, direction=way)],
        )
        record.time_flow_start.FromMilliseconds(row["time_flow_start"])
        record.time_flow_end.FromMilliseconds(row["time_flow_end"])
        return record


_NUMBERS: Final = (
    "time_flow_start", "time_flow_end", "bytes", "packets", "proto", "src_port", "dst_port",
    "tcp_flags", "direction",
)  # fmt: skip


def _rows(batch: FlowBatch) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {name: batch.array(name).tolist() for name in _NUMBERS}
    for name in ("in_if_name", "out_if_name"):
        held = batch.dictionary(name)
        columns[name] = [held.values[code] for code in held.codes]
    for name in ("src_addr", "dst_addr"):
        columns[name] = [row.tobytes() for row in batch.array(name)]
    columns["ipv4"] = np.atleast_1d(of_ipv4(batch.array("src_addr"))).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _short(row: dict[str, Any], name: str) -> bytes:
    address: bytes = row[name]
    return address[12:] if row["ipv4"] else address


def _ip(address: bytes) -> pb.IP:
    if len(address) == 4:
        return pb.IP(ipv4=int.from_bytes(address, "big"))
    return pb.IP(ipv6=address)
