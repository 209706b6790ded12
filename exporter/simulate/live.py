"""Sending stories as packets, second by second."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from exporter.batch import FlowBatch
from exporter.simulate.devices import DEVICES, SimulatedDevice
from exporter.simulate.drawing import Traffic
from exporter.simulate.encode import (
    Encoder,
    InterfaceCounters,
    IpfixEncoder,
    NetFlow5Encoder,
    NetFlow9Encoder,
    SFlow5Encoder,
)
from exporter.simulate.encode.ipfix import NAT_LAYOUTS
from exporter.simulate.scenarios import Story

#: How long devices have been up when sending begins.
_UPTIME: Final = 3 * 86_400_000
_TEMPLATE_SECONDS: Final = 20.0
_COUNTER_SECONDS: Final = 20
_PORT_SPEED: Final = 10_000_000_000
#: A sender that is this far behind (the machine slept) leaves out what it missed.
_LAG_SECONDS: Final = 10


@dataclass(slots=True)
class Totals:
    """What one device has sent; ``bytes`` and ``packets`` are estimates."""

    datagrams: int = 0
    flows: int = 0
    bytes: int = 0
    packets: int = 0


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


@dataclass(slots=True)
class _Sender:
    """One device: its encoder, its socket, and what it has sent."""

    device: SimulatedDevice
    encoder: Encoder
    socket: socket.socket
    target: tuple[str, int]
    totals: Totals = field(default_factory=Totals)
    interface_totals: dict[int, list[int]] = field(default_factory=dict)

    def send(self, batch: FlowBatch, now: int) -> None:
        self._send(self.encoder.encode(batch, now))
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
                InterfaceCounters(index, _PORT_SPEED, *values)
                for index, values in sorted(self.interface_totals.items())
            ]
            self._send(self.encoder.encode_counters(counters, now))

    def _send(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.socket.sendto(datagram, self.target)
        self.totals.datagrams += len(datagrams)

    def _count(self, batch: FlowBatch, column: str, at: int) -> None:
        indexes, rows = np.unique(batch.array(column), return_inverse=True)
        octets = np.bincount(rows, batch.array("bytes").astype(np.float64))
        packets = np.bincount(rows, batch.array("packets").astype(np.float64))
        for index, size, number in zip(indexes.tolist(), octets, packets, strict=True):
            values = self.interface_totals.setdefault(index, [0, 0, 0, 0])
            values[at] += int(size)
            values[at + 1] += int(number)


@contextmanager
def _senders(target: tuple[str, int], boot: int) -> Iterator[dict[str, _Sender]]:
    address = ipaddress.ip_address(target[0])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    opened: dict[str, _Sender] = {}
    try:
        for device in DEVICES.values():
            sender = socket.socket(family, socket.SOCK_DGRAM)
            opened[device.name] = _Sender(device, encoder_for(device, boot=boot), sender, target)
            # Elsewhere packets need an address that can be answered; domains tell devices apart.
            if address.version == 4 and address.is_loopback:
                sender.bind((device.address, 0))
        yield opened
    finally:
        for entry in opened.values():
            entry.socket.close()


def send_live(
    story: Story,
    target: tuple[str, int],
    *,
    seed: int = 1,
    flows_per_second: float = 0.0,
    speed: float = 1.0,
    duration: float | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Totals]:
    """Send until ``duration`` seconds have passed or ``stop`` is set; what each device sent.

    The story's origin is now. Each second the flows that ended in it go out, stamped with the real
    time. ``speed`` is how much faster than the clock the story's own time (and the daily rhythm)
    passes.

    Raises:
        OSError: the target cannot be sent to.
    """
    stop = stop or threading.Event()
    traffic = Traffic(story.streams, seed=seed, flows_per_second=flows_per_second)
    begin = time.time()
    boot = int(begin) * 1000 - _UPTIME
    second = 0
    with _senders(target, boot) as senders:
        while duration is None or second < duration:
            if stop.wait(max(0.0, begin + second + 1 - time.time())):
                break
            behind = int(time.time() - begin) - second
            if behind > _LAG_SECONDS:
                second += behind
            start = int((begin + second) * 1000)
            now = start + 1000
            elapsed = second * speed
            flows = traffic.flows(
                start, elapsed, rhythm_time=int((begin + elapsed) * 1000), seconds=1.0
            )
            for name, batch in flows.items():
                senders[name].send(batch, now)
            if second % _COUNTER_SECONDS == 0:
                for sender in senders.values():
                    sender.send_counters(now)
            second += 1
        return {name: sender.totals for name, sender in senders.items()}
