"""sFlow version 5: sampled packets as flows, interface counters as metrics."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from exporter import config
from exporter.batch import Array, DictColumn, FlowBatch
from exporter.decode import values
from exporter.decode.elements import ElementTable
from exporter.decode.grouping import ByStream
from exporter.decode.packet import dissect
from exporter.decode.recent import DATAGRAMS_AHEAD, Numbered, RecentDatagrams
from exporter.decode.sflow.accounting import Accounting, Agent, Agents
from exporter.decode.sflow.interfaces import (
    GENERIC_COUNTERS,
    PORT_NAME,
    InterfaceCounters,
)
from exporter.decode.sflow.packets import Packets
from exporter.decode.sflow.records import read_packets
from exporter.decode.sflow.samples import Samples, read_samples
from exporter.decode.sflow.walk import (
    COUNTERS_SAMPLE,
    DISCARDED_PACKET,
    EXPANDED_COUNTERS_SAMPLE,
    EXPANDED_FLOW_SAMPLE,
    FLOW_SAMPLE,
    MAX_RECORDS,
    MAX_SAMPLES,
    Buffer,
    Headers,
    Index,
    Parts,
    read_headers,
    walk,
)
from exporter.decode.state import State
from exporter.decode.times import MAX_FUTURE, MAX_PAST
from exporter.decode.tunnels import dissect_inner
from exporter.receive.datagrams import DatagramBatch
from exporter.schema import Direction, SamplingSource, Source, TimeSource

log = logging.getLogger(__name__)

_KINDS: Final = {
    FLOW_SAMPLE: "flow",
    EXPANDED_FLOW_SAMPLE: "expanded_flow",
    COUNTERS_SAMPLE: "counters",
    EXPANDED_COUNTERS_SAMPLE: "expanded_counters",
    DISCARDED_PACKET: "discarded_packet",
}


class SflowDecoder:
    """Decodes batches of sFlow datagrams; ``state`` is what all decoders know of devices.

    The device of a flow is the agent whose address stands in the datagram (the sender where that
    is unknown), its observation domain the sub-agent. Packets and bytes are estimates: one sample
    stands for ``sampling_rate`` packets of the sampled frame's length.
    """

    def __init__(
        self,
        settings: config.Decode,
        devices: Sequence[config.Device],
        state: State | None = None,
    ) -> None:
        if state is None:
            state = State(settings, devices, ElementTable(settings.elements))
        self._state = state
        self._dissect = dissect_inner if settings.inner_packets else dissect
        self._recent = RecentDatagrams()
        self.accounting = Accounting(state)
        self.interfaces = InterfaceCounters()

    def decode(self, batch: DatagramBatch) -> list[FlowBatch]:
        """The flows of a batch's packet samples; counter samples go to ``interfaces``.

        Nothing that a datagram holds makes this raise: faults are counted by device and reason,
        and what is sound beside them is used.
        """
        if not len(batch):
            return []
        buffer = Buffer.of(batch)
        headers = read_headers(buffer)
        senders, times = batch.senders, batch.time_received
        if not headers.valid.all():
            self._refuse(np.flatnonzero(~headers.valid), senders, times)
            rows = np.flatnonzero(headers.valid)
            if not len(rows):
                return []
            buffer.starts, buffer.ends = buffer.starts[rows], buffer.ends[rows]
            headers = headers.take(rows)
            senders, times = senders[rows], times[rows]
        agents = self.accounting.agents(buffer, headers, senders, times)
        repeated = self._repeated(buffer, headers, agents)
        if repeated.any():
            rows = np.flatnonzero(~repeated)
            if not len(rows):
                return []
            buffer.starts, buffer.ends = buffer.starts[rows], buffer.ends[rows]
            headers, agents = headers.take(rows), Agents(agents.agents, agents.of[rows])
            times = times[rows]
        self.accounting.sequences(headers, agents, times)
        parts = walk(buffer.words, headers.body, buffer.ends, headers.samples, MAX_SAMPLES)
        self._errors(agents, parts.broken, "truncated_sample")
        self._count_kinds(parts)
        self._read_counters(buffer, parts, agents, times)
        return self._flows(buffer, parts, agents, times)

    def _repeated(self, buffer: Buffer, headers: Headers, agents: Agents) -> NDArray[np.bool_]:
        """Which datagrams came twice; those of agents that there was no room for pass unchecked."""
        streams = [agent.stream for agent in agents.agents]
        known = [stream for stream in streams if stream is not None]
        repeated = np.zeros(len(agents.of), np.bool_)
        rows = np.arange(len(agents.of))
        of = agents.of
        if len(known) < len(streams):
            places = np.cumsum([stream is not None for stream in streams]) - 1
            rows = np.flatnonzero(np.array([stream is not None for stream in streams])[of])
            of = places[of[rows]]
        start = buffer.starts[rows] << 2
        numbered = Numbered(
            buffer.data.data, start, (buffer.ends[rows] << 2) - start,
            headers.sequence[rows].astype(np.int64), of, DATAGRAMS_AHEAD,
        )  # fmt: skip
        groups = ByStream.one(len(of)) if len(known) == 1 else ByStream.group(of)
        repeated[rows] = self._recent.repeated(numbered, known, groups)
        return repeated

    def _refuse(self, rows: Index, senders: NDArray[np.uint8], times: Index) -> None:
        for row in rows.tolist():
            device = self.accounting.sender(senders[row].tobytes(), int(times[row]))
            self.accounting.error(device, "bad_sflow_header")

    def _errors(self, agents: Agents, datagrams: Index, reason: str) -> None:
        """Count a fault once for each of ``datagrams``."""
        if len(datagrams):
            for index, count in enumerate(np.bincount(agents.of[datagrams]).tolist()):
                if count:
                    self.accounting.error(agents.agents[index].device, reason, count)

    def _count_kinds(self, parts: Parts) -> None:
        known = 0
        for kind, (owner, _, _) in parts.by_kind(_KINDS).items():
            self.accounting.samples[_KINDS[kind]] += len(owner)
            known += len(owner)
        if known < len(parts):
            self.accounting.samples["unknown"] += len(parts) - known

    def _flows(self, buffer: Buffer, parts: Parts, agents: Agents, times: Index) -> list[FlowBatch]:
        samples = read_samples(buffer.words, parts)
        self._errors(agents, samples.short, "short_sample")
        if not len(samples.datagram):
            return []
        self.accounting.sources(samples, agents, int(times[-1]))
        records = walk(buffer.words, samples.records, samples.end, samples.count, MAX_RECORDS)
        self._errors(agents, samples.datagram[records.broken], "truncated_record")
        packets = read_packets(buffer, records, len(samples.datagram), self._dissect)
        if packets.bad.any():
            self._errors(agents, samples.datagram[packets.bad], "short_record")
        flows = self._batch(samples, packets, agents, times)
        if not packets.seen.all():
            # About something else than a packet: what an application did, for example.
            self.accounting.samples["no_packet"] += int(np.count_nonzero(~packets.seen))
            flows = flows.take(packets.seen)
        owners = agents.of[samples.datagram[packets.seen]]
        for index, count in enumerate(np.bincount(owners).tolist()):
            stream = agents.agents[index].stream
            if stream is not None:
                stream.records += count
        return [flows] if len(flows) else []

    def _batch(self, samples: Samples, packets: Packets, agents: Agents, times: Index) -> FlowBatch:
        length = len(samples.datagram)
        columns = packets.columns
        received = times[samples.datagram]
        agent = agents.of[samples.datagram]
        columns["time_received"] = received
        _times(columns, packets.observed, received)
        sixteen = agents.addresses().view("V16")[:, 0]
        columns["device_addr"] = sixteen[agent].view(np.uint8).reshape(length, 16)
        columns["observation_domain"] = agents.sub_agents()[agent]
        columns["source"] = np.full(length, Source.SFLOW5, np.int8)
        rate, columns["sampling_source"] = self._sampling(samples, agents, agent)
        columns["sampling_rate"] = rate
        wide = rate.astype(np.uint64)
        estimate = packets.size * wide
        dropped = (samples.status != 0) & packets.counted
        if dropped.any():
            columns["forwarding_status"] = np.where(dropped, samples.status, np.uint8(0))
            columns["drop_bytes"] = np.where(dropped, estimate, np.uint64(0))
            columns["drop_packets"] = np.where(dropped, wide, np.uint64(0))
        counted = samples.counted & packets.counted
        if not counted.all():
            estimate = np.where(counted, estimate, np.uint64(0))
            wide = np.where(counted, wide, np.uint64(0))
        columns["bytes"] = estimate
        columns["packets"] = wide
        columns["in_if"] = samples.in_if
        columns["out_if"] = samples.out_if
        columns["direction"] = _direction(samples)
        _name_interfaces(columns, agents, agent)
        return FlowBatch(length, columns)

    def _sampling(
        self, samples: Samples, agents: Agents, agent: Index
    ) -> tuple[NDArray[np.uint32], Array]:
        """Sampling rates and where they were learned."""
        rate = samples.rate
        source = np.full(len(rate), SamplingSource.RECORD, np.int8)
        unknown = rate == 0
        if unknown.any():
            rate = np.where(unknown, np.uint32(1), rate)
            source[unknown] = SamplingSource.UNKNOWN
        for index, known in enumerate(agents.agents):
            device = known.device
            if device is None or not (device.sampling_rate_override or device.sampling_rate):
                continue
            rows = (agent == index) & samples.counted
            if not device.sampling_rate_override:
                rows &= unknown
            rate = np.where(
                rows, np.uint32(device.sampling_rate_override or device.sampling_rate), rate
            )
            source[rows] = SamplingSource.CONFIGURED
        for index, count in enumerate(np.bincount(agent[source == 0]).tolist()):
            device = agents.agents[index].device
            if device is not None:
                device.unknown_sampling += count
        return rate, source

    def _read_counters(self, buffer: Buffer, parts: Parts, agents: Agents, times: Index) -> None:
        # sequence, source (class and index when expanded), number of records
        heads = {COUNTERS_SAMPLE: 3, EXPANDED_COUNTERS_SAMPLE: 4}
        for kind, (datagram, body, end) in parts.by_kind(heads).items():
            head = heads[kind]
            whole = body + head <= end
            self._errors(agents, datagram[~whole], "short_sample")
            datagram, body, end = datagram[whole], body[whole], end[whole]
            count = buffer.words[body + head - 1]
            records = walk(buffer.words, body + head, end, count, MAX_RECORDS)
            self._errors(agents, datagram[records.broken], "truncated_record")
            contents = {
                kind: _contents(buffer, *found)
                for kind, found in records.by_kind((GENERIC_COUNTERS, PORT_NAME)).items()
            }
            names = {
                owner: values.clean_text(content[4 : 4 + int.from_bytes(content[:4], "big")])
                for owner, content in contents.get(PORT_NAME, ())
            }
            for owner, content in contents.get(GENERIC_COUNTERS, ()):
                row = int(datagram[owner])
                agent = agents.agents[agents.of[row]]
                self._count_interface(agent, content, names.get(owner, ""), int(times[row]))

    def _count_interface(self, agent: Agent, content: bytes, name: str, now: int) -> None:
        configured = agent.device is not None and agent.device.configured
        fault = self.interfaces.update(agent.address, content, name, now, configured=configured)
        if fault is not None:
            self.accounting.error(agent.device, fault)
        elif agent.device is not None:
            index = int.from_bytes(content[:4], "big")
            self._state.learn_name(agent.device, agent.device.interfaces, index, name)


def _contents(buffer: Buffer, owner: Index, start: Index, end: Index) -> list[tuple[int, bytes]]:
    """Owners and contents of records."""
    rows = zip(owner.tolist(), start.tolist(), end.tolist(), strict=True)
    return [(number, buffer.content(begin, stop)) for number, begin, stop in rows]


def _name_interfaces(columns: dict[str, Array | DictColumn], agents: Agents, agent: Index) -> None:
    """``in_if_name`` and ``out_if_name`` where counter samples told names of interfaces."""
    known = [known.device.interfaces if known.device else {} for known in agents.agents]
    if not any(known):
        return
    for name in ("in_if", "out_if"):
        pairs, places = values.distinct(agent << 32 | np.asarray(columns[name]))
        told = [known[pair >> 32].get(pair & 0xFFFFFFFF, "") for pair in pairs.tolist()]
        columns[f"{name}_name"] = values.texts(places.astype(np.uint32), told)


def _times(columns: dict[str, Array | DictColumn], observed: Index | None, received: Index) -> None:
    """When packets were seen: by the device where it tells (and that can be), else received."""
    columns["time_source"] = source = np.full(len(received), TimeSource.RECEIVED, np.int8)
    seen = received
    if observed is not None:
        sane = (observed >= received - MAX_PAST) & (observed <= received + MAX_FUTURE)
        seen = np.where(sane, observed, received)
        source[sane] = TimeSource.RECORD
    columns["time_flow_start"], columns["time_flow_end"] = seen.copy(), seen.copy()


def _direction(samples: Samples) -> Array:
    """Ingress or egress where the sampled interface is the packet's input or its output."""
    inward = samples.source == samples.in_if
    outward = samples.source == samples.out_if
    direction = np.where(outward, np.int8(Direction.EGRESS), np.int8(Direction.UNKNOWN))
    return np.where(inward, np.int8(Direction.INGRESS), direction)
