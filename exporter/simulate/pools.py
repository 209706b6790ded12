"""Pools: the addresses that a stream draws its sources or destinations from."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporter.address import pack_address
from exporter.simulate.devices import AGENT_OF, switch_port
from exporter.simulate.site import HOSTS, OUR_AS, Neighbour


@dataclass(frozen=True)
class Pool:
    """Addresses that flows are drawn from, ``(n, 16)``, and what goes with each of them."""

    addresses: NDArray[np.uint8]
    asn: NDArray[np.uint32]
    prefix_len: NDArray[np.uint8]
    port: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.addresses)

    @cached_property
    def by_agent(self) -> dict[str, NDArray[np.bool_]]:
        """Which of the addresses an agent reports for, by the agent's name."""
        agents = [AGENT_OF.get(".".join(map(str, row[12:]))) for row in self.addresses]
        return {
            name: np.array([agent == name for agent in agents])
            for name in dict.fromkeys(agents)
            if name is not None
        }


def pool(
    addresses: Iterable[str], *, asn: int = OUR_AS, prefix_len: int = 24, port: int = 0
) -> Pool:
    """A pool of addresses of one AS; ``port`` is the switch port that they are behind."""
    rows = np.frombuffer(b"".join(map(pack_address, addresses)), np.uint8).reshape(-1, 16)
    count = len(rows)
    return Pool(
        rows,
        np.full(count, asn, np.uint32),
        np.full(count, prefix_len, np.uint8),
        np.full(count, port, np.uint32),
    )


def joined(*parts: Pool) -> Pool:
    """All addresses of several pools."""
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
    return joined(*(pool([HOSTS[name]], port=switch_port(name)) for name in chosen))


def neighbours(members: Iterable[Neighbour], each: int, first: int = 10) -> Pool:
    """``each`` addresses of every one of these ASes, from the ``first`` of its prefix on."""
    pools = []
    for member in members:
        network = ipaddress.ip_network(member.prefix)
        addresses = [str(network[first + n]) for n in range(each)]
        pools.append(pool(addresses, asn=member.asn, prefix_len=network.prefixlen))
    return joined(*pools)


def clients(prefix: str, count: int) -> Pool:
    """Workstations and phones: the first ``count`` addresses of a network of ours."""
    network = ipaddress.ip_network(prefix)
    return pool([str(network[20 + n]) for n in range(count)], prefix_len=network.prefixlen)
