"""A laptop that nobody knows, on the datacenter's WiFi: a workstation's traffic, and mining."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from exporter.simulate.lookups import Lookups
from exporter.simulate.names import SITES, inside, spread
from exporter.simulate.pools import hosts, neighbours
from exporter.simulate.scenarios.scenario import Scenario
from exporter.simulate.site import NAT_PUBLIC, POOLS_AS, ROGUE, WEB
from exporter.simulate.streams import STEADY, Stream, Window
from exporter.simulate.traffic import both_ways

#: Seconds before it appears. It stays.
BEGIN: Final = 10.0
#: Mining pools that it talks to.
POOLS: Final = neighbours([POOLS_AS], 40, first=16)

#: Names under which it finds them.
POOL_NAMES: Final = (
    "eu.pool.example",
    "eu-backup.pool.example",
    "xmr.pool.example",
    "stratum.mining.example",
    "stratum2.mining.example",
    "gulf.mining.example",
    "pool.minexmr.example",
    "sg.minexmr.example",
)

_MBIT: Final = 1e6


def _streams() -> Iterator[Stream]:
    rogue = hosts(ROGUE)
    sites = neighbours(WEB, 15, first=200)
    # Straight out, over the transit that production uses: this shows its own address.
    yield from both_ways(
        Stream("rogue-mining", "edge1", rogue, POOLS, "stratum", 0.9 * _MBIT, 4.0,
               packet_size=250, inbound=False),
        1.1 * _MBIT, 4.0, packet_size=300,
    )  # fmt: skip
    yield from both_ways(
        Stream("rogue-web", "edge1", rogue, sites, "https", 1.2 * _MBIT, 5.0,
               packet_size=200, inbound=False),
        12 * _MBIT, 6.0, packet_size=1250,
    )  # fmt: skip
    yield from both_ways(
        Stream("rogue-updates", "edge1", rogue, neighbours(WEB[:2], 3, first=150), "http",
               0.2 * _MBIT, 0.5, packet_size=120, inbound=False),
        4 * _MBIT, 0.5, packet_size=1400,
    )  # fmt: skip
    # Some of it takes the ways that everybody takes, to many more sites than anybody else.
    yield from both_ways(
        Stream("rogue-nat", "nat01", rogue, neighbours(WEB, 15, first=100), "https", 0.3 * _MBIT,
               4.0, packet_size=200, inbound=False, nat_address=NAT_PUBLIC),
        3 * _MBIT, 4.0, packet_size=1250,
    )  # fmt: skip
    yield Stream("rogue-proxied", "wifi01", rogue, hosts("proxy"), "proxy", 0.3 * _MBIT, 1.0,
                 inbound=False)  # fmt: skip
    yield from both_ways(
        Stream("rogue-fetched", "edge2", hosts("proxy"), neighbours(WEB, 15, first=50), "https",
               0.6 * _MBIT, 3.0, packet_size=200, inbound=False),
        3 * _MBIT, 4.0, packet_size=1250,
    )  # fmt: skip
    yield Stream("rogue-names", "wifi01", rogue, hosts("dns"), "dns", 0.01 * _MBIT, 1.0,
                 packet_size=78, inbound=False)  # fmt: skip
    yield Stream("rogue-mail", "wifi01", rogue, hosts("mail"), "imaps", 0.1 * _MBIT, 0.2,
                 inbound=False)  # fmt: skip


def _lookups() -> Iterator[Lookups]:
    rogue = hosts(ROGUE)
    yield Lookups("rogue-pools", rogue, spread(POOL_NAMES, POOLS), 0.4)
    updates = spread(
        ["updates.desktop-os.example", "cdn.desktop-os.example"], neighbours(WEB[:2], 3, first=150)
    )
    yield Lookups("rogue-names", rogue, (*SITES, *updates, *inside("mail01", "proxy01")), 0.2)


SCENARIO: Final = Scenario(
    "rogue-host",
    "A laptop never seen before appears on the datacenter's WiFi and mines.",
    hour=9.5,
    added=tuple(
        replace(stream, rhythm=STEADY, windows=(Window(BEGIN),), only_in_windows=True)
        for stream in _streams()
    ),
    lookups=tuple(
        replace(each, windows=(Window(BEGIN),), only_in_windows=True) for each in _lookups()
    ),
)
