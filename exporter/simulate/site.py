"""The small datacenter: its hosts, networks, services, and who is around it.

Nothing here is random, so that names and addresses are the same in every run and scenario.
External addresses are those reserved for documentation and benchmarks (RFC 5737, RFC 2544,
RFC 3849); AS numbers are those reserved for documentation (RFC 5398) and private use (RFC 6996),
but for 123456, which stands for one that does not fit 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

SITE_NAME: Final = "dc1"

#: Services by name: transport and port.
SERVICES: Final[Mapping[str, tuple[Literal["tcp", "udp"], int]]] = MappingProxyType(
    {
        "aggregation": ("tcp", 14999),
        "scan": ("tcp", 15001),
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

#: Networks by name; the longest prefix wins. ``query-cluster`` is 20 nodes, aggregation and
#: workers, so traffic within it is traffic among 20 nodes.
NETWORKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "production": ("10.0.0.0/16", "2001:db8:d0c::/48"),
        "query-cluster": ("10.0.2.0/24", "10.0.7.0/24"),
        "dc-wifi": ("10.0.8.0/24",),
        "vms": ("10.1.0.0/16",),
        "office": ("10.2.0.0/16",),
        "wifi": ("10.3.0.0/16",),
        "nat": ("192.0.2.1/32", "10.0.9.1/32"),
        "proxy": ("10.0.9.2/32",),
    }
)


def _numbered(prefix: str, network: str, count: int, first: int = 1) -> dict[str, str]:
    return {f"{prefix}{n:02d}": f"{network}.{n}" for n in range(first, first + count)}


#: Machines by name.
MACHINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **_numbered("fl", "10.0.1", 8, first=11),
        **_numbered("ag", "10.0.2", 6),
        **_numbered("wk", "10.0.7", 14),
        **_numbered("db", "10.0.3", 2),
        **_numbered("web", "10.0.4", 4),
        **_numbered("dns", "10.0.5", 2),
        "mail01": "10.0.6.1",
        "nat01": "10.0.9.1",
        "proxy01": "10.0.9.2",
        "k122": "10.1.1.22",
        "k212": "10.1.2.12",
        **{f"k{n}": f"10.1.3.{n - 300}" for n in range(301, 307)},
    }
)
#: Query workers, four on each of the nodes ``wk``, each with an address of its own.
WORKERS: Final[Mapping[str, str]] = MappingProxyType(
    {f"w{n:02d}": f"10.0.7.{100 + n}" for n in range(1, 57)}
)
WORKERS_ON_EACH: Final = 4

#: The registry that the build machines and many others push to and pull from.
REGISTRY: Final = "gcr.io"
#: A laptop that nobody knew, on the WiFi of the datacenter, by the name that it told DHCP.
ROGUE: Final = "contractor-laptop"

#: All named addresses: machines, workers, and those below.
HOSTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **MACHINES,
        **WORKERS,
        **_numbered("cart", "10.0.8", 3, first=11),
        ROGUE: "10.0.8.66",
        REGISTRY: "203.0.113.82",
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
    name: str


_PRIVATE_AS: Final = 4_200_000_000

#: The transits, one behind each edge router.
TRANSIT_NORTH: Final = Neighbour(64501, "198.51.100.128/25", "Example Northern Transit")
TRANSIT_SOUTH: Final = Neighbour(64502, "192.0.2.128/25", "Example Southern Transit")
#: The source network of the load spike; its number does not fit 16 bits.
SPIKE_AS: Final = Neighbour(123456, "198.51.100.0/25", "Example Transit")
#: Customers that send to the ingest nodes.
CUSTOMERS: Final = tuple(
    [
        Neighbour(
            64503 + n if n < 4 else _PRIVATE_AS + n,
            f"198.18.{16 * n}.0/20",
            f"Example Customer {n + 1}",
        )
        for n in range(11)
    ]
    + [SPIKE_AS]
)
#: The content network in front of the web servers, and the web at large.
CDN: Final = Neighbour(65536, "198.19.0.0/20", "Example Content")
CDN_IPV6: Final = Neighbour(65536, "2001:db8:cd0::/48", "Example Content")
WEB: Final = tuple(
    Neighbour(65537 + n, f"198.19.{16 * (n + 1)}.0/20", f"Example Web {n + 1}") for n in range(8)
)
REGISTRY_AS: Final = Neighbour(65551, "203.0.113.0/25", "Example Cloud")
#: Who runs the mining pools.
POOLS_AS: Final = Neighbour(65550, "203.0.113.128/25", "Example Mining Pools")

#: Names of AS numbers.
AS_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {OUR_AS: "Example SaaS"}
    | {
        neighbour.asn: neighbour.name
        for neighbour in (
            TRANSIT_NORTH, TRANSIT_SOUTH, *CUSTOMERS, CDN, *WEB, REGISTRY_AS, POOLS_AS,
        )
    }
)  # fmt: skip

#: Role and owner of machines, by the first letters of their names, the longest that fit.
_RESPONSIBLE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "fl": ("ingest", "platform"),
        "ag": ("aggregation", "query"),
        "w": ("query-worker", "query"),
        "web": ("web", "frontend"),
        "db": ("database", "storage"),
        "dns": ("resolver", "network"),
        "mail": ("mail", "office-it"),
        "nat": ("nat", "network"),
        "proxy": ("proxy", "network"),
        "k1": ("dev-vm", "interns"),
        "k2": ("dev-vm", "interns"),
        "k3": ("build-vm", "build"),
        "cart": ("crash-cart", "datacenter"),
    }
)


def responsible(host: str) -> tuple[str, str]:
    """Role and owner of a host; empty for one that is not ours, or that nobody knows."""
    fitting = [prefix for prefix in _RESPONSIBLE if host.startswith(prefix)]
    return _RESPONSIBLE[max(fitting, key=len)] if fitting else ("", "")
