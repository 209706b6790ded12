"""The configuration that knows the simulated datacenter's names."""

from __future__ import annotations

from typing import Any

from exporter.simulate.devices import DEVICES
from exporter.simulate.site import HOSTS, HOSTS_IPV6, NETWORKS, REGISTRY, SERVICES, SITE_NAME


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
                "interfaces": dict(device.interfaces),
            }
            for device in DEVICES.values()
        ],
        "networks": [
            {"name": name, "prefixes": list(prefixes)} for name, prefixes in NETWORKS.items()
        ],
        "hosts": [
            {"address": address, "name": name}
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
