"""Configuration: one YAML file, parsed once into typed objects, errors with file and line."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from exporter.schema import BY_NAME, Kind

Port = Annotated[int, Field(ge=0, le=65535)]
SamplingRate = Annotated[int, Field(ge=1, le=2**32 - 1)]


def _from_folder(value: str, info: ValidationInfo) -> str:
    """Relative names are taken from the configuration file's folder, not from where we started."""
    folder = (info.context or {}).get("folder")
    return str(folder / value) if value and folder is not None else value


FileName = Annotated[str, AfterValidator(_from_folder)]


class ConfigError(Exception):
    """A file that cannot be used; the text names file and line and says what is wrong."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class UdpListener(Section):
    """A UDP socket for NetFlow v5, v9, IPFIX and sFlow v5, told apart by what arrives."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(2055, description="UDP port.")


def _default_listeners() -> list[UdpListener]:
    return [UdpListener(port=port) for port in (2055, 4739, 6343)]


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
        return value


class Decode(Section):
    """Bounds on what devices can make the decoders keep."""

    max_devices: int = Field(10_000, ge=1, description="Devices with decoder state.")
    max_templates_per_device: int = Field(
        2_000, ge=1, description="Templates kept per device, all observation domains together."
    )
    max_fields_per_template: int = Field(512, ge=1, description="Fields of one template.")
    max_waiting_bytes_per_device: int = Field(
        1 << 20, ge=0, description="Records kept per device until their template arrives."
    )
    max_waiting_bytes: int = Field(
        64 << 20, ge=0, description="The same over all devices together."
    )
    template_file: FileName = Field(
        "", description="Keeps templates and sampling rates over restarts; empty: not kept."
    )
    elements: list[Element] = Field(
        default_factory=list, description="Further information elements to store."
    )


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


class Spool(Section):
    """Where inserts wait on disk that ClickHouse does not take, and those that it refuses."""

    directory: FileName = Field(
        "", description="Folder of the spool, one per collector; empty: inserts wait in memory."
    )
    max_bytes: int = Field(
        10 << 30, ge=1 << 20, description="Size of the spool; beyond it the oldest are dropped."
    )
    max_age_seconds: float = Field(
        3 * 86400.0, gt=0, description="Inserts that wait for longer are dropped."
    )
    quarantine_max_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Size of `quarantine/` below, which keeps refused inserts; likewise.",
    )


#: Tables whose rows are dropped by age or size; the others stay small.
RetainedTable = Literal[
    "flows",
    "flows_1m",
    "flows_1h",
    "hosts_1h",
    "networks_1h",
    "dns_queries",
    "alerts",
    "incident_evidence",
]


class Retention(Section):
    """How long and how much of a table is kept."""

    days: int | None = Field(
        None, ge=0, le=36_500, description="Days that rows are kept; 0: for ever."
    )
    max_gigabytes: float = Field(
        0.0, ge=0, description="Size on disk (10^9 bytes); beyond it the oldest go; 0: any."
    )


class ClickHouse(Section):
    """The ClickHouse to write to and to ask: the embedded store, a server or a cluster."""

    url: str = Field("http://127.0.0.1:8123", description="Its HTTP interface.")
    database: str = Field("flow", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Database.")
    cluster: str = Field(
        "",
        pattern=r"^([A-Za-z_][A-Za-z0-9_-]*)?$",
        description="Name of the cluster in ClickHouse's configuration; empty: a single node.",
    )
    user: str = Field("flow_writer", description="User that may insert and select.")
    password_file: FileName = Field(
        "", description="File with the password; empty: FLOW_CLICKHOUSE_PASSWORD, else none."
    )
    batch_rows: int = Field(
        250_000, ge=1, le=5_000_000, description="Flows of one insert at high rates."
    )
    batch_seconds: float = Field(
        5.0, gt=0, le=60, description="Longest time that a flow waits for its insert."
    )
    queue_batches: int = Field(
        8, ge=1, le=1024, description="Full inserts kept in memory while ClickHouse is away."
    )
    insert_timeout_seconds: float = Field(
        60.0, gt=0, description="Time for one insert before it counts as failed."
    )
    spool: Spool = Field(Spool(), description="Where inserts wait while ClickHouse is away.")
    retention: dict[RetainedTable, Retention] = Field(
        default_factory=dict, description="How long and how much to keep, by table."
    )


class Counter(Section):
    """A family of traffic counters, ``flow_<name>_bytes_total`` and so on."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Middle of the metrics' names.")
    labels: list[str] = Field(
        min_length=1, max_length=6, description="Flow columns whose values become labels."
    )
    max_series: int = Field(
        2_000, ge=1, le=100_000, description="Label sets kept; the rest is counted in `other`."
    )

    @field_validator("labels")
    @classmethod
    def _columns(cls, value: list[str]) -> list[str]:
        for name in value:
            column = BY_NAME.get(name)
            if column is None:
                raise ValueError(f"no flow column is named {name!r}")
            if column.kind in (Kind.TIME, Kind.FLOAT32, Kind.LABELS) or column.unit:
                raise ValueError(f"column {name!r} cannot be a label")
        _refuse_twice("labels", value)
        return value

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value.startswith(("exporter", "policy", "sflow")):
            raise ValueError(f"metrics named flow_{value}… are the exporter's own")
        return value


def _default_counters() -> list[Counter]:
    return [
        Counter(name="device", labels=["device", "source"]),
        Counter(name="interface", labels=["device", "in_if", "out_if"], max_series=5_000),
        Counter(name="protocol", labels=["proto"], max_series=256),
        Counter(name="service", labels=["service"], max_series=1_000),
        Counter(name="as", labels=["src_as", "dst_as"], max_series=2_000),
        Counter(name="network", labels=["src_network", "dst_network"], max_series=1_000),
    ]


class Http(Section):
    """The collector's HTTP server."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(9105, description="TCP port.")
    webhook_token_file: FileName = Field(
        "", description="File with the bearer token that alert posts must carry; empty: none."
    )
    web_config_file: FileName = Field(
        "", description="TLS and basic auth, in the format of Prometheus' web configuration file."
    )


class Policies(Section):
    """Which policies are evaluated, and how."""

    file: FileName = Field("", description="policies.yaml; empty: none are evaluated.")
    query_timeout_seconds: float = Field(20.0, gt=0, description="Longest time for one query.")


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
        default_factory=_default_counters, description="Traffic counters for Prometheus."
    )
    policies: Policies = Field(Policies(), description="Evaluated policies.")
    http: Http = Field(Http(), description="The collector's HTTP server.")

    @model_validator(mode="after")
    def _unique(self) -> Config:
        _refuse_twice("devices", [d.address for d in self.devices])
        _refuse_twice("hosts", [h.address for h in self.hosts])
        _refuse_twice("counters", [c.name for c in self.counters])
        _refuse_twice("networks", [n.name for n in self.networks])
        _refuse_twice("services", [f"{s.port}/{s.protocol}" for s in self.services])
        return self


Model = TypeVar("Model", bound=BaseModel)


def _refuse_twice(section: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{section}: {name} is listed twice")
        seen.add(name)


def load_config(path: Path | None) -> Config:
    """The configuration in ``path``, or all defaults where there is none.

    Relative file names inside are taken from the folder of ``path``.

    Raises:
        ConfigError: the file cannot be read or is wrong.
    """
    if path is None:
        return Config()
    return load_yaml(path, Config)


def load_yaml(path: Path, model: type[Model]) -> Model:
    """A YAML file as ``model``.

    Raises:
        ConfigError: one line per fault, each as ``file:line: where: what``.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    loader = _Loader("")
    try:
        data = {} if node is None else loader.construct_document(node)
        return model.model_validate(data, context={"folder": path.parent.absolute()})
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem}") from error
    except ValidationError as error:
        faults = [
            f"{path}:{_line(node, fault['loc'])}: "
            f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise ConfigError("\n".join(faults)) from error
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, which plain YAML loaders pass over in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the innermost node on the way to ``location`` that the file has."""
    line = 1
    for part in location:
        if node is not None:
            line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line = key.start_mark.line + 1
                    node = value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                return line
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def read_secret(path: str, environment: str) -> str:
    """A password or token from ``path``, else from the environment variable, else empty.

    Raises:
        ConfigError: ``path`` is given and cannot be read.
    """
    if not path:
        return os.environ.get(environment, "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
