"""DNS: where resolvers tell of queries, and how hosts get names from DNS."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from exporter.config.names import parse_prefix
from exporter.config.section import FileName, Port, Seconds, Section

#: RFC 1918, RFC 6598 and RFC 4193: whose reverse zones are one's own resolver's.
_PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]


class DnstapListener(Section):
    """A socket on which resolvers tell of queries by dnstap: a path, or an address and a port."""

    socket: FileName = Field("", description="Path of a unix socket.")
    mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = Field(
        "0660", description="Mode of the unix socket, octal: resolvers need to write to it."
    )
    address: str = Field("127.0.0.1", description="Address to listen on, where there is no path.")
    port: Port | None = Field(None, description="TCP port, where there is no path.")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return str(ipaddress.ip_address(value))

    @model_validator(mode="after")
    def _one_kind(self) -> DnstapListener:
        if bool(self.socket) == (self.port is not None):
            raise ValueError("give either `socket` or `port`")
        return self


class LearnedNames(Section):
    """Names of hosts from the answers that resolvers gave to their clients."""

    enabled: bool = Field(True, description="Whether names are learned from dnstap.")
    hold_seconds: float = Field(
        3600.0,
        ge=0,
        le=86_400,
        description="A name holds for the answer's TTL, and for at least so long after it.",
    )
    max_addresses: int = Field(
        100_000, ge=1, le=5_000_000, description="Addresses with a name; beyond it the oldest go."
    )


class ReverseDns(Section):
    """Names of hosts from reverse DNS, for addresses that nothing else names."""

    enabled: bool = Field(False, description="Whether to ask.")
    networks: list[str] = Field(
        default_factory=lambda: list(_PRIVATE),
        description="CIDR prefixes whose addresses are asked for.",
    )
    servers: list[str] = Field(
        default_factory=list,
        description="Addresses of resolvers; empty: those of the system (`/etc/resolv.conf`).",
    )
    port: Port = Field(53, description="Port of these resolvers.")
    queries_per_second: float = Field(20.0, gt=0, le=10_000, description="Queries at most.")
    timeout_seconds: float = Field(3.0, gt=0, le=60, description="Time for one answer.")
    keep_seconds: Seconds = Field(
        3600.0, ge=1, description="An answer is used for its TTL, and for at least so long."
    )
    negative_seconds: Seconds = Field(
        3600.0, ge=1, description="Time until an address without a name is asked for again."
    )
    max_addresses: int = Field(
        50_000, ge=1, le=5_000_000, description="Answers kept, also those without a name."
    )

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        return [parse_prefix(prefix) for prefix in value]

    @field_validator("servers")
    @classmethod
    def _servers(cls, value: list[str]) -> list[str]:
        return [str(ipaddress.ip_address(server)) for server in value]


class Dns(Section):
    """Names of hosts from DNS."""

    learned: LearnedNames = Field(LearnedNames(), description="From what clients asked for.")
    reverse: ReverseDns = Field(ReverseDns(), description="From reverse zones.")
