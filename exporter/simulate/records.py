"""Flow records of a stream, as columns, and who reports each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from exporter.address import pack_address
from exporter.batch import Array, DictColumn, FlowBatch, concat
from exporter.schema import Direction
from exporter.simulate.devices import AGENT_INTERFACE
from exporter.simulate.site import SERVICES
from exporter.simulate.streams import AGENTS, Stream

_PROTOCOLS: Final = {"tcp": 6, "udp": 17}
_TCP_FLAGS: Final = 0x1B  # FIN, SYN, PSH, ACK: a connection from begin to end
_FORWARDED: Final = 64
_INSIDE: Final = 2
_OUTSIDE: Final = 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn of a stream: one row per flow.

    ``sources`` and ``destinations`` are rows of the stream's pools; ``packets`` were seen, before
    scaling up; ``ends`` are milliseconds since the epoch and ``durations`` milliseconds.
    """

    sources: NDArray[np.int64]
    destinations: NDArray[np.int64]
    packets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ends: NDArray[np.int64]
    durations: NDArray[np.int64]


def packet_sizes(stream: Stream, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Octets of a packet, one value per flow."""
    sizes = rng.normal(stream.packet_size, stream.packet_size / 8, count)
    return np.clip(sizes, 78, 1500).astype(np.int64)


def records(stream: Stream, drawn: Drawn, rng: np.random.Generator) -> dict[str, FlowBatch]:
    """The flows as records, by the device that reports them.

    Agents on the hosts report them too, each flow as the one on its source saw it leave and as the
    one at its end saw it come. The columns are those that devices report; bytes and packets are
    estimates.
    """
    batch = _batch(stream, drawn, rng)
    if not len(batch):
        return {}
    found = _by_agent(stream, drawn, batch)
    if stream.device != AGENTS:
        batch.columns |= _network(stream, drawn)
        if stream.nat_address:
            batch.columns |= _translated(stream, batch, rng)
        found[stream.device] = batch
    return found


def _batch(stream: Stream, drawn: Drawn, rng: np.random.Generator) -> FlowBatch:
    count = len(drawn.ends)
    rate = stream.sampling_rate
    transport, port = SERVICES[stream.service]
    proto = _PROTOCOLS[transport]
    service_port = np.full(count, port, np.uint16)
    other_port = rng.integers(32768, 61000, count).astype(np.uint16)
    src, dst = drawn.sources, drawn.destinations
    src_addr = stream.sources.addresses[src]
    dst_addr = stream.destinations.addresses[dst]
    columns: dict[str, Array] = {
        "time_flow_start": drawn.ends - drawn.durations,
        "time_flow_end": drawn.ends,
        "bytes": (drawn.packets * drawn.sizes * rate).astype(np.uint64),
        "packets": (drawn.packets * rate).astype(np.uint64),
        "src_addr": src_addr,
        "dst_addr": dst_addr,
        "proto": np.full(count, proto, np.uint8),
        "src_port": service_port if stream.reply else other_port,
        "dst_port": other_port if stream.reply else service_port,
        "tcp_flags": np.full(count, _TCP_FLAGS if proto == 6 else 0, np.uint16),
    }
    return FlowBatch(count, dict(columns))


def _network(stream: Stream, drawn: Drawn) -> dict[str, Array]:
    """What routers and switches know beyond the packets: interfaces, routes, and MACs."""
    src, dst = drawn.sources, drawn.destinations
    if stream.is_sampled_packets:
        in_if, out_if = stream.sources.port[src], stream.destinations.port[dst]
    else:
        first, second = (_OUTSIDE, _INSIDE) if stream.inbound else (_INSIDE, _OUTSIDE)
        in_if, out_if = _full(len(src), first), _full(len(src), second)
    return {
        "in_if": in_if,
        "out_if": out_if,
        "src_as": stream.sources.asn[src],
        "dst_as": stream.destinations.asn[dst],
        "src_prefix_len": stream.sources.prefix_len[src],
        "dst_prefix_len": stream.destinations.prefix_len[dst],
        "src_mac": _macs(stream.sources.addresses[src]),
        "dst_mac": _macs(stream.destinations.addresses[dst]),
        "direction": np.full(len(src), Direction.INGRESS, np.int8),
        "forwarding_status": np.full(len(src), _FORWARDED, np.uint8),
    }


def _translated(stream: Stream, batch: FlowBatch, rng: np.random.Generator) -> dict[str, Array]:
    """Addresses before and after translation: on the way in, packets come to the NAT's address."""
    count = len(batch)
    public = np.tile(np.frombuffer(pack_address(stream.nat_address), np.uint8), (count, 1))
    port = rng.integers(32768, 61000, count).astype(np.uint16)
    if not stream.inbound:
        return {"nat_src_addr": public, "nat_src_port": port}
    return {
        "dst_addr": public,
        "dst_port": port,
        "nat_dst_addr": batch.array("dst_addr"),
        "nat_dst_port": batch.array("dst_port"),
    }


def _by_agent(stream: Stream, drawn: Drawn, batch: FlowBatch) -> dict[str, FlowBatch]:
    found: dict[str, list[FlowBatch]] = {}
    for pool, chosen, direction in (
        (stream.sources, drawn.sources, Direction.EGRESS),
        (stream.destinations, drawn.destinations, Direction.INGRESS),
    ):
        for name, members in pool.by_agent.items():
            rows = np.flatnonzero(members[chosen])
            if len(rows):
                found.setdefault(name, []).append(_seen(batch.take(rows), direction))
    return {name: concat(parts) for name, parts in found.items()}


def _seen(batch: FlowBatch, direction: Direction) -> FlowBatch:
    """Flows as an agent tells them, who knows interfaces by name."""
    side = "in" if direction is Direction.INGRESS else "out"
    batch.columns |= {
        "direction": np.full(len(batch), direction, np.int8),
        f"{side}_if_name": DictColumn.constant(AGENT_INTERFACE, len(batch)),
    }
    return batch


def _full(count: int, value: int) -> NDArray[np.uint32]:
    return np.full(count, value, np.uint32)


def _macs(addresses: NDArray[Any]) -> NDArray[np.uint64]:
    """Locally administered MAC addresses that repeat the last four octets of the address."""
    low = np.ascontiguousarray(addresses[:, 12:]).view(">u4").astype(np.uint64)
    return low.reshape(-1) | np.uint64(0x02_00 << 32)
