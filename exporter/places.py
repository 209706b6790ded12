"""Places that hosts share: so many in all, and so many of one host other than this machine."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Final, Literal

#: Who has one address of IPv6 has all that share these bits.
_IPV6_HOST_BITS: Final = 64

#: A host; ``None`` is this machine, which is counted in the total only.
Host = ipaddress.IPv4Address | ipaddress.IPv6Network | None

#: What is used up where there is no place.
Bound = Literal["host", "total"]


class Places:
    """At most ``total`` are taken at a time, and ``each`` by one host other than this.

    For one thread at a time.
    """

    def __init__(self, *, total: int, each: int) -> None:
        self._most = {"total": total, "host": each}
        self._taken: Counter[Host] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    def most(self, bound: Bound) -> int:
        """How many places a bound leaves."""
        return self._most[bound]

    def take(self, host: Host) -> Bound | None:
        """Take a place until :meth:`leave`, or say which bound leaves none."""
        if host is not None and self._taken[host] >= self._most["host"]:
            return "host"
        if len(self) >= self._most["total"]:
            return "total"
        self._taken[host] += 1
        return None

    def leave(self, host: Host) -> None:
        """Give a place back."""
        self._taken[host] -= 1
        if not self._taken[host]:
            del self._taken[host]


def host_of(address: str) -> Host:
    """The host that has this address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            if parsed.is_loopback:
                return None
            return ipaddress.IPv6Network((parsed, _IPV6_HOST_BITS), strict=False)
        parsed = parsed.ipv4_mapped
    return None if parsed.is_loopback else parsed
