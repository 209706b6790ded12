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
)

Protocol = Literal["netflow5", "netflow9", "ipfix", "sflow5"]


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A device of the site: where it sends from, what it speaks and how it samples.

    ``providers`` names who is behind an interface.
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


#: Interfaces of a host that runs an agent, and which one it reports.
AGENT_INTERFACE: Final = 2
_AGENT_INTERFACES: Final = MappingProxyType({AGENT_INTERFACE: "eth0"})
_AGENT_ROLES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "fl": ("ingest", "platform"),
        "ag": ("aggregation", "platform"),
        "k1": ("dev-vm", "interns"),
        "k2": ("dev-vm", "interns"),
        "k3": ("build-vm", "build"),
    }
)

#: Machines behind the switch, in the order of its ports.
_SWITCHED: Final = list(MACHINES)


def switch_port(host: str) -> int:
    """The port of the switch that a host is behind; 0 for none."""
    return _SWITCHED.index(host) + 1 if host in _SWITCHED else 0


def _agents() -> Iterator[SimulatedDevice]:
    for number, (host, address) in enumerate(MACHINES.items()):
        if host[:2] in _AGENT_ROLES:
            role, owner = _AGENT_ROLES[host[:2]]
            _, second, rest = address.split(".", 2)
            yield SimulatedDevice(
                host, f"127.{10 + int(second)}.{rest}", role, "ipfix", 1, 100 + number,
                _AGENT_INTERFACES, owner,
            )  # fmt: skip


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
    {address: name for name, address in MACHINES.items() if name[:2] in _AGENT_ROLES}
    | {address: f"fl{n // WORKERS_ON_EACH + 1:02d}" for n, address in enumerate(WORKERS.values())}
)
