"""``pbflow.Records`` to flow columns.

Source: netobserv/netobserv-ebpf-agent, ``proto/flow.proto`` for what there is and
``pkg/pbflow/proto.go`` for what the agent puts there. Each field is one pass over the records, in
C; messages inside of records are read as arrays (see ``parts``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from exporter import config
from exporter.address import pack_address
from exporter.batch import Array, DictColumn, FlowBatch
from exporter.decode.times import flow_times
from exporter.decode.values import LAST_TIME, MAX_TEXT, NO_TIME, no_address, rcode
from exporter.proto import pbflow_pb2 as pb
from exporter.proto.pbflow_rows_pb2 import Rows
from exporter.receive.grpc.parts import fields_exceed, networks, numbers, packed, read_all
from exporter.schema import Direction, SamplingSource, Source

#: Records of one message; the agent's default is 10,000 at most. One that says nothing is two
#: octets long and takes a thousand here.
MAX_RECORDS: Final = 50_000
#: Interfaces of one flow that are looked at.
_MAX_PASSED: Final = 64

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


class TooManyRecordsError(Exception):
    """A message of more than :data:`MAX_RECORDS` records."""


class RecordReader:
    """Makes flow batches of messages; ``devices`` may tell sampling rates of agents.

    Safe for use by several threads.
    """

    def __init__(self, devices: Sequence[config.Device]) -> None:
        self.configure(devices)

    def configure(self, devices: Sequence[config.Device]) -> None:
        """Use another configuration of the devices from now on."""
        self._devices = {pack_address(device.address): device for device in devices}

    def read(self, message: bytes, peer: bytes, received: int) -> tuple[FlowBatch, Counter[str]]:
        """The flows of a ``pbflow.Records``, and by reason what was wrong with it.

        ``peer`` is the address that it came from, packed, for records that do not tell their
        agent's; ``received`` is in milliseconds since the epoch.

        Reasons: ``invalid_address`` (neither 4 nor 16 octets: reads ``::``), ``out_of_range`` (a
        number that its field in a packet cannot hold: reads 0), ``times_replaced`` (times that
        cannot be become that of reception), ``malformed_part`` (a message in a record that is
        none: reads as empty), and ``duplicate``: what an agent of before
        ``dup_list`` reports once more for another interface is left out.

        Raises:
            google.protobuf.message.DecodeError: it is no such message.
            TooManyRecordsError: it has too many records.
        """
        if fields_exceed(message, MAX_RECORDS):
            raise TooManyRecordsError(f"more than {MAX_RECORDS} records")
        faults: Counter[str] = Counter()
        rows: _Rows = list(Rows.FromString(message).entries)
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
        self._interfaces()
        self._dns()
        self._encryption()
        self._translated()
        return FlowBatch(count, self._columns)

    def _packets(self) -> None:
        """Headers and sizes."""
        rows, columns = self._rows, self._columns
        etype = self._numbers(rows, "eth_protocol", np.uint16)
        columns["etype"] = etype
        source, destination, dscp = networks(_all(rows, "network"), self._fault)
        for name, addresses in (("src_addr", source), ("dst_addr", destination)):
            # Frames without IP come with zeros.
            addresses[no_address(addresses) & (etype != _IPV4)] = 0
            columns[name] = addresses
        columns["tos"] = self._narrow(dscp, np.uint8, limit=63) << np.uint8(2)
        ports = {"src_port": 1, "dst_port": 2, "protocol": 3}
        transport = numbers(_all(rows, "transport"), ports, pb.Transport, self._fault)
        columns["proto"] = self._narrow(transport["protocol"], np.uint8)
        for name in ("src_port", "dst_port"):
            columns[name] = self._narrow(transport[name], np.uint16)
        flags = self._numbers(rows, "flags", np.uint16)
        for bit, both in _BOTH_FLAGS:
            flags |= np.where(flags & bit, np.uint16(both), np.uint16(0))
        columns["tcp_flags"] = flags & np.uint16(0xFF)
        for name in ("icmp_type", "icmp_code"):
            columns[name] = self._numbers(rows, name, np.uint8)
        macs = {"src_mac": 1, "dst_mac": 2}
        for name, mac in numbers(_all(rows, "data_link"), macs, pb.DataLink, self._fault).items():
            columns[name] = mac & _MAC
        for name in ("bytes", "packets"):
            columns[name] = _plain(rows, name, np.uint64)
        # Drops are seen by another hook of the kernel, which does not sample.
        _add(columns, "drop_bytes", _plain(rows, "pkt_drop_bytes", np.uint64))
        _add(columns, "drop_packets", _plain(rows, "pkt_drop_packets", np.uint64))

    def _times(self, received: int) -> None:
        rows, columns = self._rows, self._columns
        told: dict[str, Array] = {
            name: _milliseconds(*self._moments(name, Timestamp))
            for name in ("time_flow_start", "time_flow_end")
        }
        start, end, source, odd = flow_times(told, np.full(len(rows), received, np.int64))
        columns["time_flow_start"], columns["time_flow_end"] = start, end
        columns["time_source"] = source
        if odd:
            self._faults["times_replaced"] += odd
        _add(columns, "rtt", _seconds(*self._moments("time_flow_rtt", Duration)))

    def _moments(
        self, name: str, kind: type[Timestamp] | type[Duration]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Seconds and nanoseconds."""
        fields = {"seconds": 1, "nanos": 2}
        found = numbers(_all(self._rows, name), fields, kind, self._fault)
        return found["seconds"].view(np.int64), found["nanos"].view(np.int64)

    def _agents(self, devices: dict[bytes, config.Device], peer: bytes) -> None:
        """Who reports, and one in how many packets it sees."""
        rows, columns = self._rows, self._columns
        told = DictColumn.encode(_all(rows, "agent_ip"))
        known = [packed(ip, self._fault) for ip in read_all(told.values, pb.IP, self._fault)]
        agents = [peer if address == _NO_ADDRESS else address for address in known]
        columns["device_addr"] = _rows(agents)[told.codes]
        rate = _plain(rows, "sampling", np.uint32)
        source = np.where(rate > 0, np.int8(SamplingSource.RECORD), np.int8(0))
        for place, address in enumerate(agents):
            device = devices.get(address)
            if device is None:
                continue
            configured = device.sampling_rate_override or device.sampling_rate
            if configured:
                where = told.codes == place
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
            _add(columns, "dns_latency", _seconds(*self._moments("dns_latency", Duration)))

    def _encryption(self) -> None:
        """TLS by its version, or QUIC, as application."""
        versions = self._numbers(self._rows, "ssl_version", np.uint16).tolist()
        quic = list(map(bool, _all(self._rows, "quic")))
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
        parts = _all(self._rows, "xlat")
        if not any(parts):
            return
        after = read_all(parts, pb.Xlat, self._fault)
        for side in ("src", "dst"):
            addresses = [packed(getattr(one, f"{side}_addr"), self._fault) for one in after]
            self._columns[f"nat_{side}_addr"] = _rows(addresses)
            self._columns[f"nat_{side}_port"] = self._numbers(after, f"{side}_port", np.uint16)

    def _interfaces(self) -> None:
        """Where packets came in and went out, where they were seen first, and their network.

        A packet passes several interfaces of a host (bridges, ends of virtual links), each seen
        entering or leaving: the flow came in at the first it entered and went out at the last it
        left.
        """
        listed = [
            tuple(row.dup_list[:_MAX_PASSED]) or (row.interface, row.direction)
            for row in self._rows
        ]
        ways = DictColumn.encode(listed)
        passed = [self._way(way) for way in ways.values]
        names = ("in_if_name", "out_if_name", "vrf")
        for name, values in zip(names, zip(*passed, strict=True), strict=True):
            if any(values):
                few = DictColumn.encode(values)
                self._columns[name] = DictColumn(few.codes[ways.codes], few.values)
        seen = np.fromiter(map(attrgetter("direction"), self._rows), np.int64)
        direction = np.where(seen == pb.INGRESS, np.int8(Direction.INGRESS), np.int8(0))
        direction[seen == pb.EGRESS] = Direction.EGRESS
        self._columns["direction"] = direction

    def _way(self, listed: tuple[Any, ...]) -> tuple[str, str, str]:
        """Interface in, interface out and user-defined network."""
        if isinstance(listed[0], str):
            name, direction = listed
            entries = [pb.DupMapEntry(interface=name, direction=direction)]
        else:
            entries = read_all(listed, pb.DupMapEntry, self._fault)
        entered = [entry.interface for entry in entries if entry.direction == pb.INGRESS]
        left = [entry.interface for entry in entries if entry.direction == pb.EGRESS]
        told = [entry.udn for entry in entries if entry.udn]
        return (
            entered[0][:MAX_TEXT] if entered else "",
            left[-1][:MAX_TEXT] if left else "",
            told[0][:MAX_TEXT] if told else "",
        )

    def _numbers(
        self, rows: _Rows, name: str, dtype: type[np.unsignedinteger[Any]]
    ) -> NDArray[Any]:
        return self._narrow(_plain(rows, name, np.uint32), dtype)

    def _narrow(
        self, wide: NDArray[Any], dtype: type[np.unsignedinteger[Any]], limit: int = 0
    ) -> NDArray[Any]:
        """Numbers that a packet has fewer bits for; what does not fit reads 0."""
        large = wide > (limit or np.iinfo(dtype).max)
        if large.any():
            self._faults["out_of_range"] += int(np.count_nonzero(large))
            wide[large] = 0
        return wide.astype(dtype)

    def _fault(self, reason: str) -> None:
        self._faults[reason] += 1


def _plain(rows: Iterable[Any], name: str, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    return np.fromiter(map(attrgetter(name), rows), dtype)


def _add(columns: dict[str, Array | DictColumn], name: str, values: Array) -> None:
    """A column that most messages do not have."""
    if values.any():
        columns[name] = values


def _all(rows: _Rows, name: str) -> list[Any]:
    return list(map(attrgetter(name), rows))


def _rows(addresses: Sequence[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(addresses), np.uint8).reshape(-1, 16)


def _milliseconds(seconds: NDArray[np.int64], nanos: NDArray[np.int64]) -> NDArray[np.int64]:
    """``google.protobuf.Timestamp``; none where the field is absent or absurd."""
    told = (seconds > 0) & (seconds < LAST_TIME // 1000) & (np.abs(nanos) < 1_000_000_000)
    return np.where(told, np.where(told, seconds, 0) * 1000 + nanos // 1_000_000, NO_TIME)


def _seconds(seconds: NDArray[np.int64], nanos: NDArray[np.int64]) -> NDArray[np.float32]:
    """``google.protobuf.Duration``; a negative one is none."""
    return np.maximum(seconds + nanos / 1e9, 0.0).astype(np.float32)
