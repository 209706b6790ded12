"""Where flows come in, and what devices can make the decoders keep."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from exporter.config.dns import DnstapListener
from exporter.config.section import FileName, Port, Section
from exporter.schema import BY_NAME, Kind


class UdpListener(Section):
    """A UDP socket for NetFlow v5, v9, IPFIX and sFlow v5, told apart by what arrives."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(2055, description="UDP port.")


def _default_listeners() -> list[UdpListener]:
    return [UdpListener(port=port) for port in (2055, 4739, 6343)]


class GrpcTls(Section):
    """TLS of the gRPC server. Changed files are used from the next connection on."""

    cert_file: FileName = Field(min_length=1, description="Certificate chain, PEM.")
    key_file: FileName = Field(min_length=1, description="Private key, PEM.")
    client_ca_file: FileName = Field(
        "", description="CA of the agents' certificates, which are then demanded; empty: none."
    )


class Grpc(Section):
    """The gRPC server for the flows of eBPF agents (`pbflow.Collector/Send`)."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(2056, description="TCP port.")
    tls: GrpcTls | None = Field(None, description="TLS; plain without it.")
    max_message_bytes: int = Field(
        8 << 20, ge=65536, le=256 << 20, description="Longer messages are refused."
    )
    max_concurrent_calls: int = Field(
        16, ge=1, le=1024, description="Messages worked on at a time; more are refused."
    )
    max_connections: int = Field(
        512,
        ge=1,
        le=65536,
        description="Connections at a time, one of each agent; more are closed at once.",
    )
    keepalive_seconds: float = Field(
        60.0,
        ge=10,
        le=86400,
        description="A connection that is silent for longer is asked for life.",
    )

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        return str(ipaddress.ip_address(value))


class Receive(Section):
    """Where flows come in."""

    udp: list[UdpListener] = Field(
        default_factory=_default_listeners, description="UDP sockets to listen on."
    )
    socket_buffer_bytes: int = Field(
        64 << 20, ge=65536, description="Receive buffer to ask of the kernel for each socket."
    )
    reuse_port: bool = Field(
        False, description="Let several collectors share the ports (SO_REUSEPORT)."
    )
    grpc: Grpc | None = Field(None, description="gRPC for eBPF agents; off without it.")
    dnstap: list[DnstapListener] = Field(
        default_factory=list, description="Sockets for dnstap of resolvers; off without one."
    )


#: Columns that say how and when a record came.
_NOT_IN_RECORDS: Final = frozenset(
    {
        "time_received", "time_source", "device_addr", "device", "observation_domain", "source",
        "sampling_source",
    }
)  # fmt: skip
#: Of the 16 bits of an element number IPFIX takes one to say that an enterprise follows.
_LAST_OF_ENTERPRISE: Final = 32767


class Element(Section):
    """A NetFlow v9 or IPFIX information element that the built-in table lacks."""

    id: Annotated[int, Field(ge=1, le=65535, description="Element number.")]
    enterprise: Annotated[
        int, Field(ge=0, le=2**32 - 1, description="Private enterprise number; 0: IANA's.")
    ] = 0
    column: str = Field(description="Flow column to store it in.")

    @field_validator("column")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in BY_NAME:
            raise ValueError(f"no flow column is named {value!r}")
        if value in _NOT_IN_RECORDS or BY_NAME[value].kind is Kind.LABELS:
            raise ValueError(f"{value!r} cannot be filled by an element of records")
        return value

    @model_validator(mode="after")
    def _numbered(self) -> Self:
        if self.enterprise and self.id > _LAST_OF_ENTERPRISE:
            raise ValueError(
                f"elements of an enterprise have numbers up to {_LAST_OF_ENTERPRISE}; "
                "for NetFlow v9 leave the enterprise out"
            )
        return self


class Decode(Section):
    """Bounds on what devices can make the decoders keep."""

    max_devices: int = Field(10_000, ge=1, description="Devices with decoder state.")
    max_templates_per_device: int = Field(
        2_000, ge=1, description="Templates kept per device, all observation domains together."
    )
    max_fields_per_template: int = Field(512, ge=1, description="Fields of one template.")
    max_waiting_bytes_per_device: int = Field(
        1 << 20, ge=0, description="Memory for a device's records until their template arrives."
    )
    max_waiting_bytes: int = Field(
        64 << 20, ge=0, description="The same over all devices together."
    )
    template_file: FileName = Field(
        "",
        description="Keeps templates, rates and open connections over restarts; empty: not kept.",
    )
    elements: list[Element] = Field(
        default_factory=list, description="Further information elements to store."
    )
    inner_packets: bool = Field(
        False,
        description="Of sampled packets in tunnels (VXLAN, Geneve, GRE, IP in IP) take the inner "
        "one for the flow.",
    )
