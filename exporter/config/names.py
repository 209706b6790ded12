"""Devices, networks, hosts and services: what turns addresses and ports into names."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, field_validator

from exporter.config.section import SamplingRate, Section


class Device(Section):
    """Whoever reports flows, known by its address."""

    address: str = Field(description="Address that the device sends from.")
    name: str = Field("", description="Name of the device; its address when empty.")
    site: str = Field("", description="Where it stands.")
    role: str = Field("", description="What it is: router, switch, firewall, host, …")
    sampling_rate: SamplingRate | None = Field(
        None, description="1 in N, where neither records nor options tell."
    )
    sampling_rate_override: SamplingRate | None = Field(
        None, description="1 in N, whatever the device tells."
    )
    interfaces: dict[int, str] = Field(
        default_factory=dict, description="Interface names by ifIndex."
    )

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return str(ipaddress.ip_address(value))


class Network(Section):
    """A named set of prefixes."""

    name: str = Field(min_length=1, description="Name of the network.")
    prefixes: list[str] = Field(min_length=1, description="CIDR prefixes; longest match wins.")

    @field_validator("prefixes")
    @classmethod
    def _prefixes(cls, value: list[str]) -> list[str]:
        return [str(ipaddress.ip_network(prefix)) for prefix in value]


class Host(Section):
    """A named address."""

    address: str = Field(description="IPv4 or IPv6 address.")
    name: str = Field(min_length=1, description="Name of the host.")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return str(ipaddress.ip_address(value))


class Service(Section):
    """A named port."""

    port: Annotated[int, Field(ge=1, le=65535, description="TCP or UDP port.")]
    protocol: Literal["tcp", "udp"] = Field("tcp", description="Transport.")
    name: str = Field(min_length=1, description="Name of the service.")
