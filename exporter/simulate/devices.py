"""Who reports the datacenter's flows: routers, a NAT, a WiFi controller, a switch, host agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from exporter.simulate.site import (
    MACHINES,
    TRANSIT_NORTH,
    TRANSIT_SOUTH,
    WORKERS,
    WORKERS_ON_EACH,
    responsible,
)

Protocol = Literal["netflow5", "netflow9", "ipfix", "sflow5", "ebpf"]


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A device of the site: by which address it is known, what it speaks and how it samples.

    Agents tell their address themselves; others send from it. ``providers`` names who is behind an
    interface.
    """

    name: str
    address: str
    role: str
    protocol: Protocol
    sampling_rate: int
    observation_domain: int
    interfaces: Mapping[int, str] = field(default_factory=dict)
    owner: str = "network"
    providers: Mapping[int, str] = field(default_factory=dict)


#: Bits per second of every interface.
PORT_SPEED: Final = 10_000_000_000
#: The interface that agents report.
AGENT_INTERFACE: Final = "eth0"
#: Machines that run an agent, by the first letters of their names.
_WITH_AGENTS: Final = ("ag", "wk", "k")

#: Machines behind the switch, in the order of its ports.
_SWITCHED: Final = list(MACHINES)


def switch_port(host: str) -> int:
    """The port of the switch that a host is behind; 0 for none."""
    return _SWITCHED.index(host) + 1 if host in _SWITCHED else 0


def _agents() -> Iterator[SimulatedDevice]:
    for host, address in MACHINES.items():
        if host.startswith(_WITH_AGENTS):
            owner = responsible(host)[1]
            yield SimulatedDevice(host, address, "host", "ebpf", 1, 0, owner=owner)


#: Devices by name.
DEVICES: Final[Mapping[str, SimulatedDevice]] = MappingProxyType(
    {
        device.name: device
        for device in (
            SimulatedDevice("edge1", "127.0.0.11", "router", "netflow9", 100, 1,
                            {1: "transit-north", 2: "core"}, providers={1: TRANSIT_NORTH.name}),
            SimulatedDevice("edge2", "127.0.0.12", "router", "ipfix", 100, 2,
                            {1: "transit-south", 2: "core"}, providers={1: TRANSIT_SOUTH.name}),
            SimulatedDevice("nat01", "127.0.0.13", "nat", "ipfix", 1, 3,
                            {1: "outside", 2: "inside"}),
            SimulatedDevice("wifi01", "127.0.0.14", "wifi controller", "netflow5", 1, 4,
                            {1: "uplink", 2: "clients"}, owner="office-it"),
            SimulatedDevice("sw01", "127.0.0.21", "switch", "sflow5", 500, 5,
                            {n + 1: f"port-{name}" for n, name in enumerate(_SWITCHED)}),
            *_agents(),
        )
    }
)  # fmt: skip

#: The agent that reports for each address: of the machine itself, or of the one that it is on.
AGENT_OF: Final[Mapping[str, str]] = MappingProxyType(
    {device.address: device.name for device in DEVICES.values() if device.protocol == "ebpf"}
    | {address: f"wk{n // WORKERS_ON_EACH + 1:02d}" for n, address in enumerate(WORKERS.values())}
)
