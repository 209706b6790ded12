"""Configuration: one YAML file, parsed once into typed objects, errors with file and line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from exporter.config.clickhouse import ClickHouse, RetainedTable, Retention, Spool
from exporter.config.counters import Counter, default_counters
from exporter.config.dns import Dns, DnstapListener
from exporter.config.http import Http
from exporter.config.load import lines_of, load_yaml, read_secret
from exporter.config.names import (
    Device,
    Host,
    HostTargets,
    HttpTargets,
    Interface,
    Network,
    Service,
)
from exporter.config.policies import Policies
from exporter.config.receive import Decode, Element, Grpc, GrpcTls, Receive, UdpListener
from exporter.config.section import ConfigError, FileName, PlacedError, Section, refuse_twice
from exporter.config.snmp import Snmp, SnmpAccess
from exporter.config.sources import Docker, Geo

__all__ = [
    "ClickHouse",
    "Config",
    "ConfigError",
    "Counter",
    "Decode",
    "Device",
    "Dns",
    "DnstapListener",
    "Docker",
    "Element",
    "FileName",
    "Geo",
    "Grpc",
    "GrpcTls",
    "Host",
    "HostTargets",
    "Http",
    "HttpTargets",
    "Interface",
    "Network",
    "Policies",
    "Receive",
    "RetainedTable",
    "Retention",
    "Section",
    "Service",
    "Snmp",
    "SnmpAccess",
    "Spool",
    "UdpListener",
    "lines_of",
    "load_config",
    "load_yaml",
    "read_secret",
]


class Config(Section):
    """All of ``flow-exporter.yaml``. Every setting has a default."""

    receive: Receive = Field(Receive(), description="Where flows come in.")
    decode: Decode = Field(Decode(), description="Bounds of the decoders.")
    devices: list[Device] = Field(default_factory=list, description="Devices by address.")
    device_files: list[FileName] = Field(
        default_factory=list,
        description="Files with more devices (patterns with `*`), in the form of `file_sd`.",
    )
    networks: list[Network] = Field(default_factory=list, description="Named prefixes.")
    network_files: list[FileName] = Field(
        default_factory=list,
        description="Files with more networks (patterns with `*`), YAML or CSV.",
    )
    hosts: list[Host] = Field(default_factory=list, description="Named addresses.")
    host_files: list[FileName] = Field(
        default_factory=list,
        description="Files with more hosts (patterns with `*`): YAML, CSV or as `/etc/hosts`.",
    )
    host_targets: HostTargets = Field(HostTargets(), description="Hosts that Prometheus scrapes.")
    services: list[Service] = Field(default_factory=list, description="Named ports.")
    snmp: Snmp = Field(Snmp(), description="What devices tell of their interfaces by SNMP.")
    docker: Docker | None = Field(None, description="Names of containers; off without it.")
    geo: Geo = Field(Geo(), description="Countries and autonomous systems.")
    dns: Dns = Field(Dns(), description="Names of hosts from DNS.")
    clickhouse: ClickHouse = Field(ClickHouse(), description="Where flows go.")
    counters: list[Counter] = Field(
        default_factory=default_counters, description="Traffic counters for Prometheus."
    )
    policies: Policies = Field(Policies(), description="Evaluated policies.")
    http: Http = Field(Http(), description="The collector's HTTP server.")

    @model_validator(mode="after")
    def _unique(self) -> Config:
        refuse_twice([d.address for d in self.devices], "devices")
        refuse_twice([h.address for h in self.hosts], "hosts")
        refuse_twice([c.name for c in self.counters], "counters")
        refuse_twice([n.name for n in self.networks], "networks")
        self._check_services()
        access = {entry.name for entry in self.snmp.access}
        for number, device in enumerate(self.devices):
            if device.snmp and device.snmp not in access:
                raise PlacedError(
                    f"no snmp.access is named {device.snmp!r}", "devices", number, "snmp"
                )
        return self

    def _check_services(self) -> None:
        networks = {network.name for network in self.networks}
        seen: set[str] = set()
        for number, service in enumerate(self.services):
            for place in [*service.addresses, *service.networks] or [""]:
                port = f"{service.port}/{service.protocol}{place and ' at '}{place}"
                if port in seen:
                    raise PlacedError(f"{port} is listed twice", "services", number)
                seen.add(port)
            for name in service.networks:
                if name not in networks and not self.network_files:
                    raise PlacedError(
                        f"no network is named {name!r}", "services", number, "networks"
                    )


def load_config(path: Path | None) -> Config:
    """The configuration in ``path``, or all defaults where there is none.

    Relative file names inside are taken from the folder of ``path``.

    Raises:
        ConfigError: the file cannot be read or is wrong.
    """
    if path is None:
        return Config()
    return load_yaml(path, Config)
