"""What is known of devices, interfaces and hosts beside their names, kept in ClickHouse.

Devices and interfaces are in their tables since they sent flows; their owner, labels, alias and
provider are added. Hosts with a role or an owner have a table of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, Metric

from exporter.address import pack_address
from exporter.batch import format_address
from exporter.enrich.host_names import HostFacts
from exporter.enrich.sources import NameSources
from exporter.enrich.storing import Storing
from exporter.store.session import Client

#: Time between two looks at what has to be stored.
_STORE_SECONDS: Final = 20.0
#: `min` of these and what the flows told is what the flows told.
_NO_FIRST: Final = datetime(2106, 2, 7, tzinfo=UTC)
_NO_LAST: Final = datetime(1970, 1, 1, tzinfo=UTC)

_DEVICES: Final = """SELECT toString(device), toString(device_addr), toString(site), toString(role),
    ifNull(owner, ''), ifNull(labels, '') FROM devices FINAL"""
_INTERFACES: Final = """SELECT toString(device), interface, toString(name), ifNull(alias, ''),
    ifNull(provider, '') FROM interfaces FINAL"""
_HOSTS: Final = "SELECT toString(addr), name, toString(role), toString(owner) FROM hosts FINAL"


class Inventory(Storing):
    """Stores what ``names`` knows, in a thread of its own."""

    def __init__(self, client_factory: Callable[[], Client], names: NameSources) -> None:
        super().__init__("inventory", "owners, labels and hosts", _STORE_SECONDS, _STORE_SECONDS)
        self._client_factory = client_factory
        self._names = names
        self._hosts_stored = -1

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_names_inventory_failures_total``."""
        yield CounterMetricFamily(
            "flow_exporter_names_inventory_failures",
            "Times that ClickHouse did not take what is known of devices, interfaces and hosts.",
            self._failures,
        )

    def store(self) -> None:
        with closing(self._client_factory()) as client:
            self._store_devices(client)
            self._store_interfaces(client)
            changes = self._names.hosts.changes
            if changes != self._hosts_stored:
                self._store_hosts(client)
                self._hosts_stored = changes

    def _store_devices(self, client: Client) -> None:
        wanted = {
            device.name or device.address: (
                device.owner,
                json.dumps(device.labels, sort_keys=True) if device.labels else "",
            )
            for device in self._names.config.devices
        }
        rows = [
            (name, address, site, role, *wanted.get(name, ("", "")), _NO_FIRST, _NO_LAST)
            for name, address, site, role, *known in client.query(_DEVICES).result_rows
            if tuple(known) != wanted.get(name, ("", ""))
        ]
        columns = (
            "device", "device_addr", "site", "role", "owner", "labels", "first_seen", "last_seen",
        )  # fmt: skip
        _insert(client, "devices", rows, columns)

    def _store_interfaces(self, client: Client) -> None:
        wanted: dict[tuple[str, int], tuple[str, str]] = {}
        for device in self._names.config.devices:
            name = device.name or device.address
            learned = self._names.interfaces.of(pack_address(device.address))
            for index in device.interfaces.keys() | learned.keys():
                alias = learned[index].alias if index in learned else ""
                configured = device.interfaces.get(index)
                wanted[name, index] = (alias, configured.provider if configured else "")
        rows = [
            (device, index, name, *wanted.get((device, index), ("", "")), _NO_FIRST, _NO_LAST)
            for device, index, name, *known in client.query(_INTERFACES).result_rows
            if tuple(known) != wanted.get((device, index), ("", ""))
        ]
        columns = ("device", "interface", "name", "alias", "provider", "first_seen", "last_seen")
        _insert(client, "interfaces", rows, columns)

    def _store_hosts(self, client: Client) -> None:
        wanted = {
            format_address(address): _row(facts)
            for address, facts in self._names.hosts.snapshot().items()
            if facts.role or facts.owner
        }
        known = {
            format_address(pack_address(address)): tuple(row)
            for address, *row in client.query(_HOSTS).result_rows
        }
        # Those of whom nothing is known any more stay as empty rows.
        wanted |= dict.fromkeys(known.keys() - wanted.keys(), ("", "", ""))
        now = datetime.now(UTC)
        rows = [(addr, *row, now) for addr, row in wanted.items() if known.get(addr) != row]
        _insert(client, "hosts", rows, ("addr", "name", "role", "owner", "updated"))


def _row(facts: HostFacts) -> tuple[str, str, str]:
    return facts.name, facts.role, facts.owner


def _insert(
    client: Client, table: str, rows: Sequence[Sequence[Any]], columns: Iterable[str]
) -> None:
    if rows:
        client.insert(table, rows, list(columns))
