"""sFlow version 5 (sflow.org, "sFlow Version 5", July 2004; called the specification below)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter.batch import Array, FlowBatch
from exporter.simulate.encode.columns import (
    cut,
    families,
    icmp_type_code,
    octets,
    reported,
    scatter,
)
from exporter.simulate.encode.packets import packet_headers

_FLOW_SAMPLE: Final = 1
_COUNTERS_SAMPLE: Final = 2
_RAW_HEADER: Final = 1
_EXTENDED_SWITCH: Final = 1001
_EXTENDED_ROUTER: Final = 1002
_EXTENDED_GATEWAY: Final = 1003
_ETHERNET: Final = 1
#: Octets of a packet that a switch copies into a sample, as is usual.
_HEADER_OCTETS: Final = 128
#: Frame check sequence, counted in frame_length and told as stripped.
_FCS: Final = 4
_ETHERNET_OCTETS: Final = 14


@dataclass(frozen=True, slots=True)
class InterfaceCounters:
    """Generic interface counters (specification, 5.4, ``if_counters``), totals since boot."""

    if_index: int
    speed: int
    in_octets: int
    in_packets: int
    out_octets: int
    out_packets: int
    in_errors: int = 0
    in_discards: int = 0
    out_errors: int = 0
    out_discards: int = 0


class SFlow5Encoder:
    """One sub-agent of one switch.

    A flow is one sampled packet: ``packets`` equals the sampling rate and ``bytes`` is that rate
    times the frame's length, which counts Ethernet header and frame check sequence (18 octets more
    than the IP packet). Each sample carries the raw header (Ethernet, IPv4 or IPv6,
    TCP, UDP or ICMP; up to 128 octets), the extended switch record (VLANs), the extended router
    record (next hop, prefix lengths) and the extended gateway record (AS numbers).
    """

    def __init__(
        self,
        *,
        agent: str,
        boot: int,
        sampling_rate: int,
        observation_domain: int = 0,
        mtu: int = 1400,
    ) -> None:
        address = ipaddress.ip_address(agent)
        self._agent = struct.pack("!I", 1 if address.version == 4 else 2) + address.packed
        self._boot = boot
        self._rate = sampling_rate
        self._domain = observation_domain
        self._mtu = mtu
        self._datagrams = 0
        self._samples: dict[int, int] = {}
        self._counter_samples: dict[int, int] = {}

    def encode(self, batch: FlowBatch, now: int) -> list[bytes]:
        """The datagrams that carry ``batch``; see :class:`~exporter.simulate.encode.Encoder`."""
        datagrams: list[bytes] = []
        for family, part in families(batch):
            samples, ends = self._flow_samples(family, part)
            datagrams += self._datagrams_of(samples, ends, now)
        return datagrams

    def encode_counters(self, counters: Sequence[InterfaceCounters], now: int) -> list[bytes]:
        """Datagrams of counter samples, one for each interface."""
        samples = [self._counters_sample(c) for c in counters]
        ends = np.cumsum(np.array([len(s) for s in samples], np.int64))
        return self._datagrams_of(b"".join(samples), ends, now)

    def _datagrams_of(self, samples: bytes, ends: NDArray[np.int64], now: int) -> list[bytes]:
        # Header: version, agent address, sub-agent, sequence, uptime, number of samples.
        fixed = struct.pack("!I", 5) + self._agent
        uptime = (now - self._boot) & 0xFFFFFFFF
        datagrams = []
        for first, last in cut(ends, self._mtu - len(fixed) - 16):
            start = int(ends[first - 1]) if first else 0
            self._datagrams += 1
            rest = struct.pack("!4I", self._domain, self._datagrams, uptime, last - first)
            datagrams.append(fixed + rest + samples[start : int(ends[last - 1])])
        return datagrams

    def _flow_samples(self, family: int, batch: FlowBatch) -> tuple[bytes, NDArray[np.int64]]:
        if (reported(batch, "packets", self._rate) != 1).any():
            raise ValueError("an sFlow sample is one packet: packets must equal the sampling rate")
        frames = reported(batch, "bytes", self._rate).astype(np.int64)
        lengths = frames - _ETHERNET_OCTETS - _FCS
        headers = packet_headers(family, batch, lengths, icmp_type_code(batch), _HEADER_OCTETS)
        copied = np.minimum(lengths + _ETHERNET_OCTETS, _HEADER_OCTETS)
        shown = copied + (-copied % 4)

        records = _extended_records(family, batch)
        before = np.zeros((len(batch), 15), ">u4")
        sample_length = 4 * 14 + shown + records.shape[1]
        in_if = batch.array("in_if")
        ranks, totals = self._sample_numbers(in_if)
        for column, value in enumerate(
            (
                _FLOW_SAMPLE,
                sample_length,
                ranks,
                in_if & 0xFFFFFF,
                self._rate,
                ranks.astype(np.uint64) * np.uint64(self._rate) & np.uint64(0xFFFFFFFF),
                0,  # drops
                in_if,
                batch.array("out_if"),
                4,  # records
                _RAW_HEADER,
                16 + shown,
                _ETHERNET,
                frames,
                _FCS,
            )
        ):
            before[:, column] = value
        self._samples |= totals
        fixed = before.view(np.uint8).reshape(len(batch), -1)
        # The header's own length comes after the raw header record's three numbers.
        fixed = np.concatenate([fixed, octets(copied, 4)], axis=1)

        sizes = fixed.shape[1] + shown + records.shape[1]
        ends = np.cumsum(sizes)
        flat = np.empty(int(ends[-1]), np.uint8)
        position = ends - sizes
        scatter(flat, position, fixed)
        position += fixed.shape[1]
        for size in np.unique(shown):
            rows = np.flatnonzero(shown == size)
            scatter(flat, position[rows], headers[rows, :size])
        scatter(flat, position + shown, records)
        return flat.tobytes(), ends

    def _sample_numbers(self, in_if: Array) -> tuple[NDArray[np.int64], dict[int, int]]:
        """Sequence number of each sample within its data source, and the new totals."""
        order = np.argsort(in_if, kind="stable")
        interfaces, first, counts = np.unique(in_if[order], return_index=True, return_counts=True)
        known = np.array([self._samples.get(int(i), 0) for i in interfaces], np.int64)
        ranks = np.empty(len(in_if), np.int64)
        ranks[order] = np.arange(len(in_if)) - np.repeat(first - known, counts) + 1
        totals = dict(zip(interfaces.tolist(), (known + counts).tolist(), strict=True))
        return ranks, totals

    def _counters_sample(self, counters: InterfaceCounters) -> bytes:
        number = self._counter_samples.get(counters.if_index, 0) + 1
        self._counter_samples[counters.if_index] = number
        c = counters
        generic = struct.pack(
            "!IIQIIQIIIIIIQIIIIII",
            c.if_index, 6, c.speed, 1, 3,  # ethernetCsmacd, full duplex, up
            c.in_octets & (1 << 64) - 1, c.in_packets & 0xFFFFFFFF, 0, 0,
            c.in_discards, c.in_errors, 0,
            c.out_octets & (1 << 64) - 1, c.out_packets & 0xFFFFFFFF, 0, 0,
            c.out_discards, c.out_errors, 0,
        )  # fmt: skip
        record = struct.pack("!II", 1, len(generic)) + generic
        body = struct.pack("!III", number, c.if_index & 0xFFFFFF, 1) + record
        return struct.pack("!II", _COUNTERS_SAMPLE, len(body)) + body


def _extended_records(family: int, batch: FlowBatch) -> NDArray[np.uint8]:
    """Extended switch, router and gateway records (specification, 5.3), ``(n, octets)``.

    The AS path has one segment, the destination's sequence, of one AS number.
    """
    octets_of = 4 if family == 4 else 16
    kind = 1 if family == 4 else 2
    next_hop = batch.array("next_hop")[:, 16 - octets_of :]

    def numbers(*values: Array | int) -> NDArray[np.uint8]:
        block = np.zeros((len(batch), len(values)), ">u4")
        for column, value in enumerate(values):
            block[:, column] = value
        return block.view(np.uint8).reshape(len(batch), -1)

    src_as = batch.array("src_as")
    return np.concatenate(
        [
            numbers(_EXTENDED_SWITCH, 16, batch.array("src_vlan"), 0, batch.array("dst_vlan"), 0),
            numbers(_EXTENDED_ROUTER, 12 + octets_of, kind),
            next_hop,
            numbers(batch.array("src_prefix_len"), batch.array("dst_prefix_len")),
            numbers(_EXTENDED_GATEWAY, 40 + octets_of, kind),
            next_hop,
            # Our AS (not told), source's, source peer's; one segment of type 2 (sequence) with
            # one number; no communities; local preference.
            numbers(0, src_as, src_as, 1, 2, 1, batch.array("dst_as"), 0, 100),
        ],
        axis=1,
    )
