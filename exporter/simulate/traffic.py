"""What the datacenter does on any day: the streams that every scenario builds on.

Volumes are those of the busiest hour. They stay well below the static thresholds of the shipped
policies, for each host alone and with noise; a test holds them to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from exporter.simulate.pools import Pool, clients, hosts, joined, neighbours, pool
from exporter.simulate.site import (
    CDN,
    CDN_IPV6,
    CUSTOMERS,
    HOSTS,
    HOSTS_IPV6,
    NAT_PUBLIC,
    REGISTRY,
    REGISTRY_AS,
    WEB,
    WORKERS,
)
from exporter.simulate.streams import AGENTS, OFFICE_HOURS, STEADY, Rhythm, Stream

_MBIT: Final = 1e6
#: The aggregation node that a large query overwhelms; its ingest is a stream of its own.
AGGREGATOR: Final = "ag04"

#: Half of its ingest is above the minimum of the policy of dips at any hour: a dip always shows.
_AT_ANY_HOUR: Final = Rhythm(night=0.8, weekend=0.9)


def normal_streams() -> tuple[Stream, ...]:
    """All streams of a quiet day."""
    return (*_ingest(), *_web(), *_outgoing(), *_registry(), *_offices(), *_inside())


def both_ways(
    stream: Stream, reply_bits_per_second: float, flows_per_second: float, packet_size: int
) -> Iterator[Stream]:
    """The stream and its answers, told by the same devices."""
    yield stream
    yield replace(
        stream,
        name=f"{stream.name}-replies",
        sources=stream.destinations,
        destinations=stream.sources,
        bits_per_second=reply_bits_per_second,
        flows_per_second=flows_per_second,
        packet_size=packet_size,
        reply=not stream.reply,
        inbound=not stream.inbound,
    )


def registry() -> Pool:
    """The registry's address."""
    return pool([HOSTS[REGISTRY]], asn=REGISTRY_AS.asn)


def _ingest() -> Iterator[Stream]:
    """Customers send measurements, half of them over each transit."""
    others = joined(*(hosts(name) for name in HOSTS if name[:2] == "ag" and name != AGGREGATOR))
    for device, members in (("edge1", CUSTOMERS[1::2]), ("edge2", CUSTOMERS[0::2])):
        for name, nodes, customers, share, rhythm in (
            ("ingest", hosts("fl"), members, 1.0, Rhythm()),
            ("ingest-ag", others, members[:3], 0.4, Rhythm()),
            (f"ingest-{AGGREGATOR}", hosts(AGGREGATOR), members[:3], 0.1, _AT_ANY_HOUR),
        ):
            yield from both_ways(
                Stream(f"{name}-{device}", device, neighbours(customers, 1), nodes, "ingest",
                       28 * _MBIT * share, 24.0 * share, packet_size=650, rhythm=rhythm),
                1.2 * _MBIT * share, 12.0 * share, packet_size=80,
            )  # fmt: skip


def _web() -> Iterator[Stream]:
    """The content network asks our web servers, over IPv4 and IPv6."""
    for device in ("edge1", "edge2"):
        yield from both_ways(
            Stream(f"web-{device}", device, neighbours([CDN], 8), hosts("web"), "https",
                   3 * _MBIT, 10.0, packet_size=250),
            20 * _MBIT, 15.0, packet_size=1200,
        )  # fmt: skip
    servers = pool(HOSTS_IPV6.values(), prefix_len=48)
    yield from both_ways(
        Stream("web-ipv6", "edge2", neighbours([CDN_IPV6], 8), servers, "https",
               1 * _MBIT, 4.0, packet_size=250),
        8 * _MBIT, 6.0, packet_size=1200,
    )  # fmt: skip


def _outgoing() -> Iterator[Stream]:
    """Name servers, mail, updates through the proxy."""
    world = neighbours(WEB, 3)
    yield Stream("dns-out", "edge1", hosts("dns"), world, "dns", 0.4 * _MBIT, 6.0,
                 packet_size=90, inbound=False)  # fmt: skip
    yield Stream("mail-in", "edge2", world, hosts("mail"), "smtp", 2 * _MBIT, 4.0,
                 rhythm=OFFICE_HOURS)  # fmt: skip
    yield from both_ways(
        Stream("updates", "edge2", hosts("proxy"), world, "https", 0.5 * _MBIT, 4.0,
               packet_size=200, inbound=False),
        6 * _MBIT, 4.0, packet_size=1300,
    )  # fmt: skip


def _registry() -> Iterator[Stream]:
    """Builds pull a lot, all others something now and then; a private link without a router."""
    yield from both_ways(
        Stream("registry", AGENTS, hosts("ag", "wk", "k1", "k2"), registry(), "https",
               0.04 * _MBIT, 0.3, packet_size=200, inbound=False),
        0.8 * _MBIT, 0.3, packet_size=1300,
    )  # fmt: skip
    yield from both_ways(
        Stream("builds", AGENTS, hosts("k3"), registry(), "https", 0.6 * _MBIT, 2.0,
               packet_size=90, inbound=False, rhythm=Rhythm(night=0.6, weekend=0.8, peak_hour=13)),
        18 * _MBIT, 3.0, packet_size=1300,
    )  # fmt: skip


def _offices() -> Iterator[Stream]:
    """Phones and workstations: the web through the NAT, the proxy, names, mail."""
    wifi = clients("10.3.0.0/16", 12)
    office = clients("10.2.0.0/16", 20)
    yield from both_ways(
        Stream("surfing", "nat01", wifi, neighbours(WEB, 2), "https", 2 * _MBIT, 12.0,
               packet_size=200, inbound=False, nat_address=NAT_PUBLIC, rhythm=OFFICE_HOURS),
        18 * _MBIT, 12.0, packet_size=1250,
    )  # fmt: skip
    yield Stream("proxied", "wifi01", wifi, hosts("proxy"), "proxy", 4 * _MBIT, 8.0,
                 inbound=False, rhythm=OFFICE_HOURS)  # fmt: skip
    yield Stream("names", "wifi01", wifi, hosts("dns"), "dns", 0.3 * _MBIT, 10.0,
                 packet_size=75, inbound=False, rhythm=OFFICE_HOURS)  # fmt: skip
    yield Stream("imap", "wifi01", office, hosts("mail"), "imaps", 1 * _MBIT, 4.0,
                 inbound=False, rhythm=OFFICE_HOURS)  # fmt: skip
    yield Stream("carts", "wifi01", hosts("cart"), hosts("dns"), "dns", 0.002 * _MBIT, 0.2,
                 packet_size=75, inbound=False)  # fmt: skip


def _inside() -> Iterator[Stream]:
    """Between our own servers: agents tell it where there are some, and the switch what it sees."""
    aggregation = hosts("ag")
    yield from both_ways(
        Stream("aggregation", AGENTS, hosts("fl"), aggregation, "aggregation", 48 * _MBIT, 10.0,
               packet_size=900),
        3 * _MBIT, 4.0, packet_size=90,
    )  # fmt: skip
    yield Stream("answers", AGENTS, pool(WORKERS.values()), aggregation, "aggregation",
                 4 * _MBIT, 0.15, packet_size=1200)  # fmt: skip
    yield from both_ways(
        Stream("scans", AGENTS, aggregation, hosts("wk"), "scan", 6 * _MBIT, 0.3, packet_size=400),
        60 * _MBIT, 12.0, packet_size=1300,
    )  # fmt: skip
    yield Stream("queries", "sw01", hosts("web"), aggregation, "aggregation", 16 * _MBIT,
                 packet_size=600)  # fmt: skip
    yield Stream("storage", "sw01", aggregation, hosts("db"), "postgresql", 20 * _MBIT,
                 packet_size=1000, rhythm=STEADY)  # fmt: skip
