"""NetFlow v5 (Cisco, "NetFlow Export Datagram Format", tables B-3 and B-4)."""

from __future__ import annotations

from typing import Final

import numpy as np

from exporter.batch import FlowBatch
from exporter.simulate.encode.columns import (
    families,
    fits,
    icmp_type_code,
    reported,
    slices,
    uptime,
)

_HEADER: Final = np.dtype(
    [
        ("version", ">u2"),
        ("count", ">u2"),
        ("sys_uptime", ">u4"),
        ("unix_secs", ">u4"),
        ("unix_nsecs", ">u4"),
        ("flow_sequence", ">u4"),
        ("engine", ">u2"),
        ("sampling", ">u2"),
    ]
)
_RECORD: Final = np.dtype(
    [
        ("srcaddr", "u1", 4),
        ("dstaddr", "u1", 4),
        ("nexthop", "u1", 4),
        ("input", ">u2"),
        ("output", ">u2"),
        ("dPkts", ">u4"),
        ("dOctets", ">u4"),
        ("first", ">u4"),
        ("last", ">u4"),
        ("srcport", ">u2"),
        ("dstport", ">u2"),
        ("pad1", "u1"),
        ("tcp_flags", "u1"),
        ("prot", "u1"),
        ("tos", "u1"),
        ("src_as", ">u2"),
        ("dst_as", ">u2"),
        ("src_mask", "u1"),
        ("dst_mask", "u1"),
        ("pad2", ">u2"),
    ]
)
#: AS_TRANS (RFC 6793, section 4.2.2): what stands where an AS number needs 32 bits.
AS_TRANS: Final = 23456


class NetFlow5Encoder:
    """One device's NetFlow v5: IPv4 only, 16-bit interfaces, larger AS numbers as AS_TRANS.

    ``observation_domain`` is 256 times ``engine_type`` + ``engine_id``. A sampling rate above 1 is
    told in each header (mode 1 in the two high bits, 1 in N in the other 14).
    """

    def __init__(
        self, *, boot: int, observation_domain: int = 0, sampling_rate: int = 1, mtu: int = 1400
    ) -> None:
        if not 1 <= sampling_rate < 1 << 14:
            raise ValueError("NetFlow v5 carries sampling rates up to 1 in 16383")
        self._boot = boot
        self._domain = observation_domain
        self._rate = sampling_rate
        self._per_datagram = min(30, (mtu - _HEADER.itemsize) // _RECORD.itemsize)
        self._sequence = 0

    def encode(self, batch: FlowBatch, now: int) -> list[bytes]:
        """The datagrams that carry ``batch``; see :class:`~exporter.simulate.encode.Encoder`."""
        if any(family == 6 for family, _ in families(batch)):
            raise ValueError("NetFlow v5 carries IPv4 only")
        records = self._records(batch).tobytes()
        size = self._per_datagram
        bodies = slices(records, size * _RECORD.itemsize)
        header = np.zeros(len(bodies), _HEADER)
        header["version"] = 5
        header["count"] = size
        if bodies:
            header["count"][-1] = len(bodies[-1]) // _RECORD.itemsize
        header["sys_uptime"] = (now - self._boot) & 0xFFFFFFFF
        header["unix_secs"] = now // 1000
        header["unix_nsecs"] = now % 1000 * 1_000_000
        header["flow_sequence"] = (self._sequence + np.arange(len(bodies)) * size) & 0xFFFFFFFF
        header["engine"] = self._domain
        header["sampling"] = 0 if self._rate == 1 else 1 << 14 | self._rate
        self._sequence += len(batch)
        headers = slices(header.tobytes(), _HEADER.itemsize)
        return [head + body for head, body in zip(headers, bodies, strict=True)]

    def _records(self, batch: FlowBatch) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        record = np.zeros(len(batch), _RECORD)
        for name, column in (("srcaddr", "src_addr"), ("dstaddr", "dst_addr"),
                             ("nexthop", "next_hop")):  # fmt: skip
            record[name] = batch.array(column)[:, 12:]
        for name, column in (("input", "in_if"), ("output", "out_if"), ("tcp_flags", "tcp_flags")):
            record[name] = fits(batch.array(column), _RECORD[name].itemsize, column)
        record["dPkts"] = fits(reported(batch, "packets", self._rate), 4, "packets")
        record["dOctets"] = fits(reported(batch, "bytes", self._rate), 4, "bytes")
        record["first"] = uptime(batch.array("time_flow_start"), self._boot)
        record["last"] = uptime(batch.array("time_flow_end"), self._boot)
        for name in ("src_as", "dst_as"):
            number = batch.array(name)
            record[name] = np.where(number > 0xFFFF, AS_TRANS, number)
        proto = batch.array("proto")
        record["prot"] = proto
        record["srcport"] = batch.array("src_port")
        record["dstport"] = np.where(proto == 1, icmp_type_code(batch), batch.array("dst_port"))
        record["tos"] = batch.array("tos")
        record["src_mask"] = batch.array("src_prefix_len")
        record["dst_mask"] = batch.array("dst_prefix_len")
        return record
