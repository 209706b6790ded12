"""What people and machines of the datacenter ask resolvers for on any day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from exporter.batch import format_address
from exporter.simulate.lookups import Lookup, Lookups
from exporter.simulate.pools import Pool, clients, hosts, joined, neighbours
from exporter.simulate.site import HOSTS, REGISTRY, SITE_NAME, WEB
from exporter.simulate.streams import OFFICE_HOURS

_DOMAIN: Final = f"{SITE_NAME}.example"


def inside(*names: str) -> tuple[Lookup, ...]:
    """Names of our own hosts."""
    return tuple(Lookup(f"{name}.{_DOMAIN}", (HOSTS[name],)) for name in names)


def spread(names: Sequence[str], pool: Pool) -> tuple[Lookup, ...]:
    """The names, with the addresses of the pool dealt out among them."""
    addresses = [format_address(row.tobytes()) for row in pool.addresses]
    return tuple(Lookup(name, tuple(addresses[n :: len(names)])) for n, name in enumerate(names))


#: Sites of the web that everybody visits.
SITES: Final = spread([f"www.site-{n}.example" for n in range(1, 17)], neighbours(WEB, 2))


def normal_lookups() -> tuple[Lookups, ...]:
    """All lookups of a quiet day."""
    people = joined(clients("10.3.0.0/16", 12), clients("10.2.0.0/16", 20))
    nowhere = Lookup(f"wpad.{_DOMAIN}")
    return (
        Lookups("people", people, (*SITES, *inside("mail01", "proxy01"), nowhere), 0.15,
                rhythm=OFFICE_HOURS),
        Lookups("machines", hosts("k", "ag", "wk"),
                (Lookup(REGISTRY, (HOSTS[REGISTRY],)), *inside("ag01", "ag04", "db01")), 0.05),
        Lookups("carts", hosts("cart"), inside("dns01", "web01"), 0.01),
    )  # fmt: skip
