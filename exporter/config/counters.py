"""Traffic counters for Prometheus."""

from __future__ import annotations

from pydantic import Field, field_validator

from exporter.config.section import Section, refuse_twice
from exporter.schema import BY_NAME, Kind


class Counter(Section):
    """A family of traffic counters, ``flow_<name>_bytes_total`` and so on."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Middle of the metrics' names.")
    labels: list[str] = Field(
        min_length=1, max_length=6, description="Flow columns whose values become labels."
    )
    max_series: int = Field(
        2_000, ge=1, le=100_000,
        description="Label sets kept, those that grow most; the rest is counted in `other`.",
    )  # fmt: skip

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
    """Those of a configuration that has none of its own."""
    return [
        Counter(name="device", labels=["device", "source"]),
        Counter(name="interface", labels=["device", "in_if", "out_if"], max_series=5_000),
        Counter(name="protocol", labels=["proto"], max_series=256),
        Counter(name="service", labels=["service"], max_series=1_000),
        Counter(name="as", labels=["src_as", "dst_as"], max_series=2_000),
        Counter(name="network", labels=["src_network", "dst_network"], max_series=1_000),
    ]
