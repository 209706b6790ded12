"""Host and network names of both ends of a flow."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from exporter.batch import DictColumn, FlowBatch
from exporter.config import Host, Network
from exporter.distinct import distinct_addresses
from exporter.enrich.names import name_column
from exporter.enrich.prefixes import Prefix, PrefixTable


class AddressNames:
    """Fills ``src_host``, ``dst_host``, ``src_network`` and ``dst_network``."""

    def __init__(self, hosts: Sequence[Host], networks: Sequence[Network]) -> None:
        self._hosts = _Names((ipaddress.ip_network(host.address), host.name) for host in hosts)
        self._networks = _Names(
            (ipaddress.ip_network(prefix), network.name)
            for network in networks
            for prefix in network.prefixes
        )

    def apply(self, batch: FlowBatch) -> None:
        """Add the columns."""
        for side in ("src", "dst"):
            found = self._name(batch, f"{side}_addr")
            batch.columns[f"{side}_host"], batch.columns[f"{side}_network"] = found

    def _name(self, batch: FlowBatch, column: str) -> tuple[DictColumn, DictColumn]:
        if column not in batch.columns or not (self._hosts.known or self._networks.known):
            nothing = DictColumn.constant("", len(batch))
            return nothing, nothing
        codes, addresses = distinct_addresses(batch.array(column))
        return (
            name_column(codes, self._hosts.table.find(addresses), self._hosts.names),
            name_column(codes, self._networks.table.find(addresses), self._networks.names),
        )


class _Names:
    """Names by prefix; number 0 is the empty name."""

    def __init__(self, prefixes: Iterable[tuple[Prefix, str]]) -> None:
        numbers = {"": 0}
        self.table = PrefixTable(
            (prefix, numbers.setdefault(name, len(numbers))) for prefix, name in prefixes
        )
        self.names = list(numbers)
        self.known = len(numbers) > 1
