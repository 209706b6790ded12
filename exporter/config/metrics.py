"""What the collector shows: traffic counters, policies, its HTTP server."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from exporter.config.section import FileName, Port, Seconds, Section, refuse_twice
from exporter.schema import BY_NAME, Kind


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
        refuse_twice(value)
        return value

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value.startswith(("exporter", "policy", "sflow")):
            raise ValueError(f"metrics named flow_{value}… are the exporter's own")
        return value


def default_counters() -> list[Counter]:
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
    new_normal_file: FileName = Field(
        "",
        description="What `policies new-normal` writes; empty: new-normal.yaml beside `file`.",
    )
    query_timeout_seconds: Seconds = Field(20.0, gt=0, description="Longest time for one query.")

    @property
    def new_normals(self) -> Path:
        """Where keys stand whose level is normal from now on; the file need not exist."""
        if self.new_normal_file:
            return Path(self.new_normal_file)
        return Path(self.file).with_name("new-normal.yaml")
