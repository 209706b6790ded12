"""What is sent: the same datagrams to everyone, with their totals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from pathlib import Path

import numpy as np

from exporter.simulate.encode import (
    Encoder,
    IpfixEncoder,
    NetFlow5Encoder,
    NetFlow9Encoder,
    SFlow5Encoder,
)
from exporter.simulate.encode.ipfix import VARIABLE_LAYOUTS
from tests.support.flows import one_packet_flows, random_flows

#: Uptime of the devices, in milliseconds.
UPTIME = 10_000_000
SFLOW_RATE = 512


@dataclass(frozen=True)
class Workload:
    """Datagrams of one protocol from one or more devices, in sending order.

    ``senders`` gives the device, a number from 0 on, of each datagram; ``flows_before`` the flows
    of all datagrams before each one, and at the end of all. ``now`` is when the flows were
    exported, in milliseconds: not long ago, for whoever receives them to believe their times.
    """

    name: str
    datagrams: list[bytes]
    senders: np.ndarray
    flows_before: np.ndarray
    bytes: int
    now: int

    @property
    def flows(self) -> int:
        return int(self.flows_before[-1])

    def until(self, flows: int) -> int:
        """How many datagrams hold at least that many flows."""
        return min(int(np.searchsorted(self.flows_before, flows)), len(self.datagrams))

    def datagrams_per_second(self, flows_per_second: float) -> float:
        """At how many datagrams a second they come to that many flows."""
        return flows_per_second * len(self.datagrams) / self.flows

    def save(self, path: Path) -> None:
        """For the sending process."""
        np.savez(
            path,
            payload=np.frombuffer(b"".join(self.datagrams), np.uint8),
            lengths=np.array([len(d) for d in self.datagrams]),
            senders=self.senders,
            now=self.now,
        )


def _netflow5(_: int, boot: int) -> Encoder:
    return NetFlow5Encoder(boot=boot)


def _netflow9(_: int, boot: int) -> Encoder:
    return NetFlow9Encoder(boot=boot)


def _ipfix(_: int, boot: int) -> Encoder:
    return IpfixEncoder()


def _ipfix_variable(_: int, boot: int) -> Encoder:
    return IpfixEncoder(layouts=VARIABLE_LAYOUTS)


def _sflow5(number: int, boot: int) -> Encoder:
    return SFlow5Encoder(agent=f"127.0.1.{number + 1}", boot=boot, sampling_rate=SFLOW_RATE)


@dataclass(frozen=True)
class Kind:
    """How a workload is made: ``encoder`` takes a device's number and when it started."""

    name: str
    encoder: Callable[[int, int], Encoder]
    family: int = 4
    devices: int = 1


KINDS = (
    Kind("netflow5", _netflow5),
    Kind("netflow9 IPv4", _netflow9),
    Kind("netflow9 IPv6", _netflow9, family=6),
    Kind("netflow9 IPv4, 16 devices", _netflow9, devices=16),
    Kind("ipfix IPv4", _ipfix),
    Kind("ipfix IPv6", _ipfix, family=6),
    Kind("ipfix variable-length", _ipfix_variable),
    Kind("sflow5", _sflow5),
)


def build(kind: Kind, flows: int) -> Workload:
    """About that many flows, the devices' datagrams in turns."""
    each = flows // kind.devices
    now = int(time.time()) * 1000
    total = 0
    queues: list[list[tuple[bytes, int, int]]] = []
    for number in range(kind.devices):
        if kind.encoder is _sflow5:
            batch = one_packet_flows(each, rate=SFLOW_RATE, seed=number)
        else:
            texts = kind.encoder is _ipfix_variable
            batch = random_flows(each, seed=number, family=kind.family, now=now, texts=texts)
        total += int(batch.array("bytes").sum())
        datagrams = kind.encoder(number, now - UPTIME).encode(batch, now)
        counts = flow_counts(datagrams, each)
        queues.append([(d, n, number) for d, n in zip(datagrams, counts, strict=True)])
    ordered = [x for x in chain.from_iterable(zip_longest(*queues)) if x is not None]
    before = np.concatenate([[0], np.cumsum([count for _, count, _ in ordered])])
    assert before[-1] == each * kind.devices
    return Workload(
        kind.name,
        [datagram for datagram, _, _ in ordered],
        np.array([number for _, _, number in ordered]),
        before,
        total,
        now,
    )


def flow_counts(datagrams: list[bytes], flows: int) -> list[int]:
    """Flows in each datagram of one of our encoders, all of them together having that many."""

    def number(datagram: bytes, start: int, size: int) -> int:
        return int.from_bytes(datagram[start : start + size], "big")

    match number(datagrams[0], 0, 4) >> 16:
        case 0:  # sFlow over IPv4: samples
            return [number(d, 24, 4) for d in datagrams]
        case 5:
            return [number(d, 2, 2) for d in datagrams]
        case 9:  # the count is of templates too, which come in datagrams of their own
            return [number(d, 2, 2) if number(d, 20, 2) > 255 else 0 for d in datagrams]
        case _:  # IPFIX counts records in its sequence numbers
            sequence = [number(d, 8, 4) for d in datagrams]
            return [after - before for before, after in pairwise([*sequence, flows])]
