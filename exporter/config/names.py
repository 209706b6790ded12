"""Devices, networks, hosts and services: what turns addresses and ports into names."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from exporter.config.section import FileName, SamplingRate, Seconds, Section


def _address(value: str) -> str:
    return str(ipaddress.ip_address(value.strip()))


def parse_prefix(value: str) -> str:
    """A prefix in its usual form.

    Raises:
        ValueError: it is none; says which one is meant where only bits of hosts are too many.
    """
    text = value.strip()
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise error from None
        raise ValueError(f"{text} is an address in a network: is {meant} meant?") from error


#: An IPv4 or IPv6 address in its usual form.
Address = Annotated[str, AfterValidator(_address)]
#: A prefix in CIDR notation; an address alone is a prefix that holds nothing else.
Prefix = Annotated[str, AfterValidator(parse_prefix)]


class Interface(Section):
    """An interface of a device."""

    name: str = Field("", description="Name, where the device does not tell it.")
    speed: int = Field(0, ge=0, description="Bits per second; 0: not known.")
    provider: str = Field("", description="Who is behind it: a transit provider, an exchange.")


class Device(Section):
    """Whoever reports flows, known by its address."""

    address: Address = Field(description="Address that the device sends from.")
    name: str = Field("", description="Name of the device; its address when empty.")
    site: str = Field("", description="Where it stands.")
    role: str = Field("", description="What it is: router, switch, firewall, host, …")
    owner: str = Field("", description="Who answers for it.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Anything else that is to be known of it."
    )
    sampling_rate: SamplingRate | None = Field(
        None, description="1 in N, where neither records nor options tell."
    )
    sampling_rate_override: SamplingRate | None = Field(
        None, description="1 in N, whatever the device tells."
    )
    reverse_counters: bool = Field(
        False,
        description="Whether elements 23 and 24 (`OUT_BYTES`, `OUT_PKTS`) count the other "
        "direction, as those of Cisco Meraki do.",
    )
    interfaces: dict[int, Interface] = Field(
        default_factory=dict, description="Interfaces by ifIndex; a text alone is the name."
    )
    snmp: str = Field(
        "", description="Entry of `snmp.access` to ask it with; empty: it is not asked."
    )

    @field_validator("interfaces", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: {"name": v} if isinstance(v, str) else v for key, v in value.items()}


class Network(Section):
    """A named set of prefixes."""

    name: str = Field(min_length=1, description="Name of the network.")
    prefixes: list[Prefix] = Field(min_length=1, description="CIDR prefixes; longest match wins.")
    internal: bool = Field(True, description="Whether its addresses are ours.")


class Host(Section):
    """A named address."""

    address: Address = Field(description="IPv4 or IPv6 address.")
    name: str = Field(min_length=1, description="Name of the host.")
    role: str = Field("", description="What it is for.")
    owner: str = Field("", description="Who answers for it.")


class HttpTargets(Section):
    """A server of targets in the form of Prometheus' `http_sd`."""

    url: str = Field(pattern=r"^https?://", description="URL that answers with target groups.")
    refresh_seconds: Seconds = Field(60.0, ge=5, description="Time between two requests.")
    token_file: FileName = Field("", description="File with a bearer token; empty: none.")

    @field_validator("url")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        if "@" in urlsplit(value).netloc:
            raise ValueError("must not hold a user or a password; `token_file` is for secrets")
        return value


class HostTargets(Section):
    """Names of hosts from what Prometheus scrapes."""

    files: list[FileName] = Field(
        default_factory=list, description="Files (patterns with `*`) in the form of `file_sd`."
    )
    http: list[HttpTargets] = Field(default_factory=list, description="Servers of targets.")
    name_labels: list[str] = Field(
        ["name", "hostname", "nodename", "instance"],
        min_length=1,
        description="Labels that hold the name, best first; without any, the target's own name.",
    )


class Service(Section):
    """A named port."""

    port: Annotated[int, Field(ge=1, le=65535, description="TCP or UDP port.")]
    protocol: Literal["tcp", "udp"] = Field("tcp", description="Transport.")
    name: str = Field(min_length=1, description="Name of the service.")
    addresses: list[Prefix] = Field(
        default_factory=list, description="Addresses or prefixes at which the port means this."
    )
    networks: list[str] = Field(
        default_factory=list, description="Named networks in which the port means this."
    )

    @property
    def scoped(self) -> bool:
        """Whether it holds in some places only."""
        return bool(self.addresses or self.networks)
