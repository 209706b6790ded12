"""The site's devices as senders: each with its encoder, its way to the collector, and totals."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import grpc
import numpy as np

from exporter.batch import FlowBatch
from exporter.simulate.devices import DEVICES, PORT_SPEED, SimulatedDevice
from exporter.simulate.encode import (
    EbpfEncoder,
    Encoder,
    InterfaceCounters,
    IpfixEncoder,
    NetFlow5Encoder,
    NetFlow9Encoder,
    SFlow5Encoder,
)
from exporter.simulate.encode.ipfix import NAT_LAYOUTS

Target = tuple[str, int]

_TEMPLATE_SECONDS: Final = 20.0
_SEND_METHOD: Final = "/pbflow.Collector/Send"
#: An agent that waits longer holds up all others.
_SEND_SECONDS: Final = 1.0


@dataclass(slots=True)
class Totals:
    """What one device has sent; ``bytes`` and ``packets`` are estimates.

    ``messages`` are datagrams, or gRPC messages of agents; ``lost`` counts those that nobody took.
    """

    messages: int = 0
    flows: int = 0
    bytes: int = 0
    packets: int = 0
    lost: int = 0


class Way(Protocol):
    """How messages get to the collector."""

    def send(self, message: bytes) -> bool:
        """Send it; whether somebody may have taken it."""


@dataclass(frozen=True, slots=True)
class _Udp:
    socket: socket.socket
    target: Target

    def send(self, message: bytes) -> bool:
        self.socket.sendto(message, self.target)
        return True


class _Grpc:
    """One connection for all agents: each message tells whose it is."""

    def __init__(self, target: Target) -> None:
        host = f"[{target[0]}]" if ":" in target[0] else target[0]
        self._channel = grpc.insecure_channel(f"{host}:{target[1]}")
        # Messages are encoded already, and the answer is empty.
        self._send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            _SEND_METHOD
        )

    def send(self, message: bytes) -> bool:
        try:
            self._send(message, timeout=_SEND_SECONDS)
        except grpc.RpcError:
            return False
        return True

    def close(self) -> None:
        self._channel.close()


@dataclass(slots=True)
class Sender:
    """One device: its encoder, its way, and what it has sent."""

    device: SimulatedDevice
    encoder: Encoder
    way: Way
    totals: Totals = field(default_factory=Totals)
    interface_totals: dict[int, list[int]] = field(default_factory=dict)

    def send(self, batch: FlowBatch, now: int) -> None:
        """Export flows at ``now`` (milliseconds since the epoch)."""
        if not self._send(self.encoder.encode(batch, now)):
            return
        self.totals.flows += len(batch)
        self.totals.bytes += int(batch.array("bytes").sum())
        self.totals.packets += int(batch.array("packets").sum())
        if isinstance(self.encoder, SFlow5Encoder):
            self._count(batch, "in_if", 0)
            self._count(batch, "out_if", 2)

    def send_counters(self, now: int) -> None:
        """Interface counters, which only sFlow has."""
        if isinstance(self.encoder, SFlow5Encoder):
            counters = [
                InterfaceCounters(index, PORT_SPEED, *values)
                for index, values in sorted(self.interface_totals.items())
            ]
            self._send(self.encoder.encode_counters(counters, now))

    def _send(self, messages: list[bytes]) -> bool:
        """Whether all were taken."""
        sent = sum(self.way.send(message) for message in messages)
        self.totals.messages += sent
        self.totals.lost += len(messages) - sent
        return sent == len(messages)

    def _count(self, batch: FlowBatch, column: str, at: int) -> None:
        indexes, rows = np.unique(batch.array(column), return_inverse=True)
        octets = np.bincount(rows, batch.array("bytes").astype(np.float64))
        packets = np.bincount(rows, batch.array("packets").astype(np.float64))
        for index, size, number in zip(indexes.tolist(), octets, packets, strict=True):
            values = self.interface_totals.setdefault(index, [0, 0, 0, 0])
            values[at] += int(size)
            values[at + 1] += int(number)


def encoder_for(device: SimulatedDevice, *, boot: int) -> Encoder:
    """The encoder of a device's protocol, with its sampling rate, domain and interfaces."""
    match device.protocol:
        case "netflow5":
            return NetFlow5Encoder(
                boot=boot,
                observation_domain=device.observation_domain,
                sampling_rate=device.sampling_rate,
            )
        case "netflow9":
            return NetFlow9Encoder(
                boot=boot,
                observation_domain=device.observation_domain,
                sampling_rate=device.sampling_rate,
                interfaces=device.interfaces,
                refresh_seconds=_TEMPLATE_SECONDS,
            )
        case "ipfix":
            return IpfixEncoder(
                boot=boot,
                layouts=NAT_LAYOUTS if device.role == "nat" else None,
                observation_domain=device.observation_domain,
                sampling_rate=device.sampling_rate,
                interfaces=device.interfaces,
                refresh_seconds=_TEMPLATE_SECONDS,
            )
        case "sflow5":
            return SFlow5Encoder(
                agent=device.address,
                boot=boot,
                observation_domain=device.observation_domain,
                sampling_rate=device.sampling_rate,
            )
        case "ebpf":
            return EbpfEncoder(agent=device.address)


@contextmanager
def open_senders(
    target: Target, agents_target: Target | None, *, boot: int
) -> Iterator[dict[str, Sender]]:
    """A sender for each device, by name; without ``agents_target`` none for agents.

    Raises:
        OSError: no socket can be opened.
    """
    address = ipaddress.ip_address(target[0])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as opened:
        agents_way = None
        if agents_target is not None:
            agents_way = opened.enter_context(contextlib.closing(_Grpc(agents_target)))
        senders: dict[str, Sender] = {}
        for device in DEVICES.values():
            way: Way
            if device.protocol == "ebpf":
                if agents_way is None:
                    continue
                way = agents_way
            else:
                sock = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                # Elsewhere packets need an address that can be answered; domains tell devices
                # apart.
                if address.version == 4 and address.is_loopback:
                    sock.bind((device.address, 0))
                way = _Udp(sock, target)
            senders[device.name] = Sender(device, encoder_for(device, boot=boot), way)
        yield senders
