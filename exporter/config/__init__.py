"""Configuration: one YAML file, parsed once into typed objects, errors with file and line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from exporter.config.clickhouse import ClickHouse, RetainedTable, Retention, Spool
from exporter.config.load import load_yaml, read_secret
from exporter.config.metrics import Counter, Http, Policies, default_counters
from exporter.config.names import Device, Host, Network, Service
from exporter.config.receive import Decode, Element, Grpc, GrpcTls, Receive, UdpListener
from exporter.config.section import ConfigError, FileName, Section, refuse_twice

__all__ = [
    "ClickHouse",
    "Config",
    "ConfigError",
    "Counter",
    "Decode",
    "Device",
    "Element",
    "FileName",
    "Grpc",
    "GrpcTls",
    "Host",
    "Http",
    "Network",
    "Policies",
    "Receive",
    "RetainedTable",
    "Retention",
    "Section",
    "Service",
    "Spool",
    "UdpListener",
    "load_config",
    "load_yaml",
    "read_secret",
]


class Config(Section):
    """All of ``flow-exporter.yaml``. Every setting has a default."""

    receive: Receive = Field(Receive(), description="Where flows come in.")
    decode: Decode = Field(Decode(), description="Bounds of the decoders.")
    devices: list[Device] = Field(default_factory=list, description="Devices by address.")
    networks: list[Network] = Field(default_factory=list, description="Named prefixes.")
    hosts: list[Host] = Field(default_factory=list, description="Named addresses.")
    services: list[Service] = Field(default_factory=list, description="Named ports.")
    clickhouse: ClickHouse = Field(ClickHouse(), description="Where flows go.")
    counters: list[Counter] = Field(
        default_factory=default_counters, description="Traffic counters for Prometheus."
    )
    policies: Policies = Field(Policies(), description="Evaluated policies.")
    http: Http = Field(Http(), description="The collector's HTTP server.")

    @model_validator(mode="after")
    def _unique(self) -> Config:
        refuse_twice("devices", [d.address for d in self.devices])
        refuse_twice("hosts", [h.address for h in self.hosts])
        refuse_twice("counters", [c.name for c in self.counters])
        refuse_twice("networks", [n.name for n in self.networks])
        refuse_twice("services", [f"{s.port}/{s.protocol}" for s in self.services])
        return self


def load_config(path: Path | None) -> Config:
    """The configuration in ``path``, or all defaults where there is none.

    Relative file names inside are taken from the folder of ``path``.

    Raises:
        ConfigError: the file cannot be read or is wrong.
    """
    if path is None:
        return Config()
    return load_yaml(path, Config)
