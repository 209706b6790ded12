"""``pbflow.Records`` to flow columns.

Source: netobserv/netobserv-ebpf-agent, ``proto/flow.proto`` for what there is and
``pkg/pbflow/proto.go`` for what the agent puts there. Each field is one pass over the records, in
C: reading fields one record at a time takes twice as long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter import config
from exporter.batch import Array, DictColumn, FlowBatch
from exporter.decode.times import flow_times
from exporter.decode.values import LAST_TIME, MAX_TEXT, NO_TIME, rcode
from exporter.distinct import mapped, pack_address
from exporter.proto import pbflow_pb2 as pb
from exporter.schema import Direction, SamplingSource, Source

_IPV4: Final = 0x0800
_NO_ADDRESS: Final = bytes(16)
_MAC: Final = np.uint64((1 << 48) - 1)
#: The second word of a DNS header (RFC 1035 section 4.1.1): it is a response; its code.
_DNS_RESPONSE: Final = 0x8000
_DNS_RCODE: Final = 0xF
#: The agent's bits for two TCP flags in one packet, of which it then does not set the bits.
_BOTH_FLAGS: Final = ((0x100, 0x12), (0x200, 0x11), (0x400, 0x14))
#: RFC 8446 section 4.2.1 and before.
_TLS_VERSIONS: Final = {
    0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3",
}  # fmt: skip

_Rows = Sequence[Any]


class RecordReader:
    """Makes flow batches of messages; ``devices`` may tell sampling rates of agents.

    Safe for use by several threads.
    """

    def __init__(self, devices: Sequence[config.Device]) -> None:
        self.configure(devices)

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from now on."""
        self._devices = {pack_address(device.address): device for device in devices}

    def read(
        self, records: pb.Records, peer: bytes, received: int
    ) -> tuple[FlowBatch, Counter[str]]:
        """The flows of a message, and by reason what was wrong with it.

        ``peer`` is the address that it came from, packed, for records that do not tell their
        agent's; ``received`` is in milliseconds since the epoch.

        Reasons: ``invalid_address`` (neither 4 nor 16 octets: reads ``::``), ``out_of_range`` (a
        number that its field in a packet cannot hold: reads 0), ``times_replaced`` (times that
        cannot be become that of reception), and ``duplicate``: what an agent of before
        ``dup_list`` reports once more for another interface is left out.
        """
        faults: Counter[str] = Counter()
        rows: _Rows = list(records.entries)
        if any(map(attrgetter("duplicate"), rows)):
            kept = [row for row in rows if not row.duplicate]
            faults["duplicate"] = len(rows) - len(kept)
            rows = kept
        if not rows:
            return FlowBatch(0), faults
        return _Message(rows, faults).flows(self._devices, peer, received), faults


class _Message:
    """The records of one message, on their way to columns."""

    def __init__(self, rows: _Rows, faults: Counter[str]) -> None:
        self._rows = rows
        self._faults = faults
        self._columns: dict[str, Array | DictColumn] = {}

    def flows(self, devices: dict[bytes, config.Device], peer: bytes, received: int) -> FlowBatch:
        """All columns."""
        count = len(self._rows)
        self._columns["time_received"] = np.full(count, received, np.int64)
        self._columns["source"] = np.full(count, Source.EBPF, np.int8)
        self._packets()
        self._times(received)
        self._agents(devices, peer)
        self._columns |= _interfaces(self._rows)
        self._dns()
        self._encryption()
        self._translated()
        return FlowBatch(count, self._columns)

    def _packets(self) -> None:
        """Headers and sizes."""
        rows, columns = self._rows, self._columns
        etype = self._numbers(rows, "eth_protocol", np.uint16)
        columns["etype"] = etype
        networks = list(map(attrgetter("network"), rows))
        for name in ("src_addr", "dst_addr"):
            columns[name] = self._addresses(list(map(attrgetter(name), networks)), etype == _IPV4)
        columns["tos"] = self._numbers(networks, "dscp", np.uint8, limit=63) << np.uint8(2)
        transports = list(map(attrgetter("transport"), rows))
        columns["proto"] = self._numbers(transports, "protocol", np.uint8)
        for name in ("src_port", "dst_port"):
            columns[name] = self._numbers(transports, name, np.uint16)
        flags = self._numbers(rows, "flags", np.uint16)
        for bit, both in _BOTH_FLAGS:
            flags |= np.where(flags & bit, np.uint16(both), np.uint16(0))
        columns["tcp_flags"] = flags & np.uint16(0xFF)
        for name in ("icmp_type", "icmp_code"):
            columns[name] = self._numbers(rows, name, np.uint8)
        links = list(map(attrgetter("data_link"), rows))
        for name in ("src_mac", "dst_mac"):
            columns[name] = _plain(links, name, np.uint64) & _MAC
        for name in ("bytes", "packets"):
            columns[name] = _plain(rows, name, np.uint64)
        # Drops are seen by another hook of the kernel, which does not sample.
        _add(columns, "drop_bytes", _plain(rows, "pkt_drop_bytes", np.uint64))
        _add(columns, "drop_packets", _plain(rows, "pkt_drop_packets", np.uint64))

    def _times(self, received: int) -> None:
        rows, columns = self._rows, self._columns
        told: dict[str, Array] = {
            name: _times(list(map(attrgetter(name), rows)))
            for name in ("time_flow_start", "time_flow_end")
        }
        start, end, source, odd = flow_times(told, np.full(len(rows), received, np.int64))
        columns["time_flow_start"], columns["time_flow_end"] = start, end
        columns["time_source"] = source
        if odd:
            self._faults["times_replaced"] += odd
        rtt = _seconds(rows, "time_flow_rtt")
        if rtt is not None:
            columns["rtt"] = rtt

    def _agents(self, devices: dict[bytes, config.Device], peer: bytes) -> None:
        """Who reports, and one in how many packets it sees."""
        rows, columns = self._rows, self._columns
        addresses = self._addresses(list(map(attrgetter("agent_ip"), rows)))
        packed = addresses.view("V16")[:, 0]
        packed[packed == np.void(_NO_ADDRESS)] = np.void(peer)
        columns["device_addr"] = addresses
        rate = _plain(rows, "sampling", np.uint32)
        source = np.where(rate > 0, np.int8(SamplingSource.RECORD), np.int8(0))
        for address in set(packed.tolist()) & devices.keys():
            device = devices[address]
            configured = device.sampling_rate_override or device.sampling_rate
            if configured:
                where = packed == np.void(address)
                if not device.sampling_rate_override:
                    where &= rate == 0
                rate[where] = configured
                source[where] = SamplingSource.CONFIGURED
        rate[rate == 0] = 1
        columns["sampling_rate"], columns["sampling_source"] = rate, source
        if (rate != 1).any():
            for name in ("bytes", "packets"):
                columns[name] = _plain(rows, name, np.uint64) * rate

    def _dns(self) -> None:
        """What the agent read in DNS messages."""
        rows, columns = self._rows, self._columns
        flags = self._numbers(rows, "dns_flags", np.uint16)
        names = list(map(attrgetter("dns_name"), rows))
        if any(names):
            columns["dns_name"] = DictColumn.encode([name[:MAX_TEXT].rstrip(".") for name in names])
        if flags.any():
            columns["dns_rcode"] = DictColumn.encode(
                [rcode(f & _DNS_RCODE) if f & _DNS_RESPONSE else "" for f in flags.tolist()]
            )
            latency = _seconds(rows, "dns_latency")
            if latency is not None:
                columns["dns_latency"] = latency

    def _encryption(self) -> None:
        """TLS by its version, or QUIC, as application."""
        versions = self._numbers(self._rows, "ssl_version", np.uint16).tolist()
        quic = [row.HasField("quic") for row in self._rows]
        if any(versions) or any(quic):
            self._columns["app"] = DictColumn.encode(
                [
                    _TLS_VERSIONS.get(version, f"TLS {version:#06x}") if version
                    else "QUIC" if is_quic else ""
                    for version, is_quic in zip(versions, quic, strict=True)
                ]
            )  # fmt: skip

    def _translated(self) -> None:
        """Addresses and ports after translation."""
        if not any(row.HasField("xlat") for row in self._rows):
            return
        after = list(map(attrgetter("xlat"), self._rows))
        for side in ("src", "dst"):
            found = self._addresses(list(map(attrgetter(f"{side}_addr"), after)))
            self._columns[f"nat_{side}_addr"] = found
            self._columns[f"nat_{side}_port"] = self._numbers(after, f"{side}_port", np.uint16)

    def _numbers(
        self, rows: _Rows, name: str, dtype: type[np.unsignedinteger[Any]], limit: int = 0
    ) -> NDArray[Any]:
        """A field that a packet has fewer bits for; what does not fit reads 0."""
        wide = _plain(rows, name, np.uint32)
        large = wide > (limit or np.iinfo(dtype).max)
        if large.any():
            self._faults["out_of_range"] += int(np.count_nonzero(large))
            wide[large] = 0
        return wide.astype(dtype)

    def _addresses(
        self, addresses: Sequence[pb.IP], is_ipv4: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Rows of 16 octets. Without an address a row is ``::``, but ``0.0.0.0`` in IPv4."""
        numbers = _plain(addresses, "ipv4", np.uint32)
        found = mapped(numbers)
        for row in np.flatnonzero(numbers == 0).tolist():
            octets = addresses[row].ipv6
            if len(octets) != 16:
                if octets:
                    self._faults["invalid_address"] += 1
                elif is_ipv4 is not None and is_ipv4[row]:
                    continue
                octets = _NO_ADDRESS
            found[row] = np.frombuffer(octets, np.uint8)
        return found


def _plain(rows: Iterable[Any], name: str, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    return np.fromiter(map(attrgetter(name), rows), dtype)


def _add(columns: dict[str, Array | DictColumn], name: str, values: Array) -> None:
    """A column that most messages do not have."""
    if values.any():
        columns[name] = values


def _times(times: _Rows) -> NDArray[np.int64]:
    """``google.protobuf.Timestamp`` in milliseconds; none where the field is absent or absurd."""
    seconds = np.fromiter(map(attrgetter("seconds"), times), np.int64)
    nanos = np.fromiter(map(attrgetter("nanos"), times), np.int64)
    told = (seconds > 0) & (seconds < LAST_TIME // 1000)
    return np.where(told, np.where(told, seconds, 0) * 1000 + nanos // 1_000_000, NO_TIME)


def _seconds(rows: _Rows, name: str) -> NDArray[np.float32] | None:
    """``google.protobuf.Duration`` in seconds; ``None`` where no row has one."""
    durations = list(map(attrgetter(name), rows))
    nanos = np.fromiter(map(attrgetter("nanos"), durations), np.float64)
    seconds = np.fromiter(map(attrgetter("seconds"), durations), np.float64)
    found = np.maximum(seconds + nanos / 1e9, 0.0).astype(np.float32)
    return found if found.any() else None


def _interfaces(rows: _Rows) -> dict[str, Array | DictColumn]:
    """Where packets came in and went out, their direction where first seen, and their network.

    A packet passes several interfaces of a host (bridges, ends of virtual links), each seen
    entering or leaving: the flow came in at the first it entered and went out at the last it left.
    """
    shown: dict[tuple[tuple[str, int, str], ...], int] = {}
    passed: list[tuple[str, str, str]] = []
    places = []
    for row in rows:
        entries = row.dup_list
        key = (
            tuple([(entry.interface, entry.direction, entry.udn) for entry in entries])
            if entries
            else ((row.interface, row.direction, ""),)
        )
        place = shown.get(key)
        if place is None:
            place = shown[key] = len(passed)
            passed.append(_way(key))
        places.append(place)
    columns: dict[str, Array | DictColumn] = {}
    names = ("in_if_name", "out_if_name", "vrf")
    for name, values in zip(names, zip(*passed, strict=True), strict=True):
        if any(values):
            few = DictColumn.encode(values)
            columns[name] = DictColumn(few.codes[places], few.values)
    seen = np.fromiter(map(attrgetter("direction"), rows), np.int64)
    direction = np.where(seen == pb.INGRESS, np.int8(Direction.INGRESS), np.int8(0))
    direction[seen == pb.EGRESS] = Direction.EGRESS
    columns["direction"] = direction
    return columns


def _way(entries: Sequence[tuple[str, int, str]]) -> tuple[str, str, str]:
    """Interface in, interface out and user-defined network."""
    entered = [name for name, direction, _ in entries if direction == pb.INGRESS]
    left = [name for name, direction, _ in entries if direction == pb.EGRESS]
    networks = [network for _, _, network in entries if network]
    return (
        entered[0][:MAX_TEXT] if entered else "",
        left[-1][:MAX_TEXT] if left else "",
        networks[0][:MAX_TEXT] if networks else "",
    )
