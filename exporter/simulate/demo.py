"""The configuration that knows the simulated datacenter's names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from exporter.simulate.devices import DEVICES, PORT_SPEED
from exporter.simulate.site import (
    AS_NAMES,
    HOSTS,
    HOSTS_IPV6,
    NETWORKS,
    REGISTRY,
    SERVICES,
    SITE_NAME,
    responsible,
)


def demo_config() -> dict[str, list[dict[str, Any]]]:
    """The parts ``devices``, ``networks``, ``hosts`` and ``services`` of ``flow-exporter.yaml``.

    For collectors on the machine that simulates: the devices send from loopback addresses.
    """
    return {
        "devices": [
            {
                "address": device.address,
                "name": device.name,
                "site": SITE_NAME,
                "role": device.role,
                "owner": device.owner,
                "interfaces": {
                    index: {
                        "name": name,
                        "speed": PORT_SPEED,
                        "provider": device.providers.get(index, ""),
                    }
                    for index, name in device.interfaces.items()
                },
            }
            for device in DEVICES.values()
        ],
        "networks": [
            {"name": name, "prefixes": list(prefixes)} for name, prefixes in NETWORKS.items()
        ],
        "hosts": [
            {"address": address, "name": name}
            | dict(zip(("role", "owner"), responsible(name), strict=True))
            for table in (HOSTS, HOSTS_IPV6)
            for name, address in table.items()
            # Resolvers tell this one's.
            if name != REGISTRY
        ],
        "services": [
            {"port": port, "protocol": transport, "name": name}
            for name, (transport, port) in SERVICES.items()
        ],
    }


def write_as_names(file: Path) -> None:
    """The names of the AS numbers around the datacenter, as ``geo.as_names_file`` wants them."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("number", "name"))
        writer.writerows(AS_NAMES.items())
