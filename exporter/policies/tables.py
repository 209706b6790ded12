"""The tables that policies watch, and what of them can be a dimension or stand in a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from exporter import schema
from exporter.schema import BY_NAME, Column


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table with ``time_received``; ``once`` is a view of it in which nothing counts twice."""

    name: str
    once: str
    columns: Mapping[str, Column]


FLOWS: Final = WatchedTable("flows", "flows_once", BY_NAME)

DNS_QUERIES: Final = WatchedTable(
    "dns_queries",
    "dns_queries",
    MappingProxyType({column.name: column for column in schema.DNS_QUERIES.columns}),
)

_ROLLED_UP: Final = (
    "device", "in_if", "out_if", "proto", "service", "device_addr", "site", "role", "in_if_name",
    "out_if_name",
)  # fmt: skip

#: Traffic per minute, and what of it is as in the flows.
ROLLUP: Final = WatchedTable(
    "flows_1m", "flows_1m", MappingProxyType({name: BY_NAME[name] for name in _ROLLED_UP})
)

#: All tables by name.
TABLES: Final = MappingProxyType({table.name: table for table in (FLOWS, DNS_QUERIES)})
