"""The small datacenter: its hosts, networks, services, devices, and who is around it.

Nothing here is random, so that names and addresses are the same in every run and scenario.
External addresses are those reserved for documentation and benchmarks (RFC 5737, RFC 2544,
RFC 3849).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Protocol = Literal["netflow5", "netflow9", "ipfix", "sflow5"]

#: Services by name: transport and port.
SERVICES: Final[Mapping[str, tuple[Literal["tcp", "udp"], int]]] = MappingProxyType(
    {
        "aggregation": ("tcp", 14999),
        "ingest": ("tcp", 20012),
        "https": ("tcp", 443),
        "http": ("tcp", 80),
        "dns": ("udp", 53),
        "ntp": ("udp", 123),
        "smtp": ("tcp", 25),
        "imaps": ("tcp", 993),
        "ssh": ("tcp", 22),
        "postgresql": ("tcp", 5432),
        "proxy": ("tcp", 3128),
        "stratum": ("tcp", 3333),
    }
)

#: Networks by name. The longest prefix wins, so the NAT and the proxy stand out of production.
NETWORKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "production": ("10.0.0.0/16", "2001:db8:d0c::/48"),
        "vms": ("10.1.0.0/16",),
        "office": ("10.2.0.0/16",),
        "wifi": ("10.3.0.0/16",),
        "nat": ("192.0.2.1/32", "10.0.9.1/32"),
        "proxy": ("10.0.9.2/32",),
    }
)


def _numbered(prefix: str, network: str, count: int, first: int = 1) -> dict[str, str]:
    return {f"{prefix}{n:02d}": f"{network}.{n}" for n in range(first, first + count)}


#: Hosts by name.
HOSTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_numbered("fl", "10.0.1", 16),
        **_numbered("ag", "10.0.2", 8),
        **_numbered("db", "10.0.3", 4),
        **_numbered("web", "10.0.4", 4),
        **_numbered("dns", "10.0.5", 2),
        "mail01": "10.0.6.1",
        "nat01": "10.0.9.1",
        "proxy01": "10.0.9.2",
        "k122": "10.1.1.22",
        "k212": "10.1.2.12",
        **{f"k{n}": f"10.1.3.{n - 300}" for n in range(301, 307)},
        "gcr.io": "203.0.113.82",
    }
)

#: IPv6 addresses of hosts that have one.
HOSTS_IPV6: Final[Mapping[str, str]] = MappingProxyType(
    {f"web{n:02d}": f"2001:db8:d0c:4::{n}" for n in range(1, 5)}
)

#: Our AS and the public address of the NAT.
OUR_AS: Final = 64500
NAT_PUBLIC: Final = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An AS that talks to us, and a prefix of it."""

    asn: int
    prefix: str


#: The source network of the load spike; its number does not fit 16 bits.
SPIKE_AS: Final = Neighbour(123456, "198.51.100.0/24")
#: Customers that send to the ingest nodes.
CUSTOMERS: Final = tuple(
    [Neighbour(64496 + n if n < 4 else 131072 + n, f"198.18.{16 * n}.0/20") for n in range(11)]
    + [SPIKE_AS]
)
#: The content network in front of the web servers, and the web at large.
CDN: Final = Neighbour(65536, "198.19.0.0/20")
CDN_IPV6: Final = Neighbour(65536, "2001:db8:cd0::/48")
WEB: Final = tuple(Neighbour(65537 + n, f"198.19.{16 * (n + 1)}.0/20") for n in range(8))
REGISTRY_AS: Final = Neighbour(65551, "203.0.113.0/24")


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """A device of the site: where it sends from, what it speaks and how it samples."""

    name: str
    address: str
    role: str
    protocol: Protocol
    sampling_rate: int
    observation_domain: int
    interfaces: Mapping[int, str] = field(default_factory=dict)


_SWITCH_HOSTS: Final = [name for name, address in HOSTS.items() if address.startswith("10.")]

#: Devices by name. Two edge routers (one for each transit), the NAT, the WiFi controller, a switch.
DEVICES: Final[Mapping[str, SimulatedDevice]] = MappingProxyType(
    {
        device.name: device
        for device in (
            SimulatedDevice("edge1", "127.0.0.11", "router", "netflow9", 100, 1,
                            {1: "transit-north", 2: "core"}),
            SimulatedDevice("edge2", "127.0.0.12", "router", "ipfix", 100, 2,
                            {1: "transit-south", 2: "core"}),
            SimulatedDevice("nat01", "127.0.0.13", "nat", "ipfix", 1, 3,
                            {1: "outside", 2: "inside"}),
            SimulatedDevice("wifi01", "127.0.0.14", "wifi controller", "netflow5", 1, 4,
                            {1: "uplink", 2: "clients"}),
            SimulatedDevice("sw01", "127.0.0.21", "switch", "sflow5", 500, 5,
                            {n + 1: f"port-{name}" for n, name in enumerate(_SWITCH_HOSTS)}),
        )
    }
)  # fmt: skip
SITE_NAME: Final = "dc1"


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses that flows are drawn from, ``(n, 16)``, and what goes with each of them."""

    addresses: NDArray[np.uint8]
    asn: NDArray[np.uint32]
    prefix_len: NDArray[np.uint8]
    port: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.addresses)


def packed(address: str) -> bytes:
    """An address as 16 octets, IPv4 mapped."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed


def pool(
    addresses: Iterable[str], *, asn: int = OUR_AS, prefix_len: int = 24, port: int = 0
) -> Pool:
    """A pool of addresses of one AS; ``port`` is the switch port that they are behind."""
    rows = np.frombuffer(b"".join(packed(a) for a in addresses), np.uint8).reshape(-1, 16)
    count = len(rows)
    return Pool(
        rows,
        np.full(count, asn, np.uint32),
        np.full(count, prefix_len, np.uint8),
        np.full(count, port, np.uint32),
    )


def joined(pools: Iterable[Pool]) -> Pool:
    """All addresses of several pools."""
    parts = list(pools)
    return Pool(
        np.concatenate([p.addresses for p in parts]),
        np.concatenate([p.asn for p in parts]),
        np.concatenate([p.prefix_len for p in parts]),
        np.concatenate([p.port for p in parts]),
    )


def hosts(*prefixes: str) -> Pool:
    """Our hosts whose names begin so, each behind its own switch port."""
    chosen = [name for name in HOSTS if name.startswith(prefixes)]
    if not chosen:
        raise ValueError(f"no host is named {' or '.join(prefixes)}…")
    return joined(pool([HOSTS[name]], port=_port(name)) for name in chosen)


def _port(name: str) -> int:
    return _SWITCH_HOSTS.index(name) + 1 if name in _SWITCH_HOSTS else 0


def neighbours(members: Iterable[Neighbour], each: int) -> Pool:
    """``each`` addresses of every one of these ASes."""
    pools = []
    for member in members:
        network = ipaddress.ip_network(member.prefix)
        addresses = [str(network[10 + n]) for n in range(each)]
        pools.append(pool(addresses, asn=member.asn, prefix_len=network.prefixlen))
    return joined(pools)


def clients(prefix: str, count: int) -> Pool:
    """Workstations and phones: the first ``count`` addresses of a network of ours."""
    network = ipaddress.ip_network(prefix)
    return pool([str(network[20 + n]) for n in range(count)], prefix_len=network.prefixlen)
