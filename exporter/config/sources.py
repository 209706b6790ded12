"""What is learned of addresses from outside: containers, countries and autonomous systems."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from exporter.config.section import FileName, Section, refuse_twice


def metric_label(label: str) -> str:
    """The label of a metric for one of a container, whose name may have any characters."""
    return "label_" + re.sub(r"[^a-zA-Z0-9_]", "_", label)


class Docker(Section):
    """Names of containers, from a Docker engine. Its socket gives rights like root's."""

    url: str = Field(
        "unix:///run/docker.sock",
        description="Where it answers: unix://PATH, or tcp://HOST:PORT of a filtering proxy.",
    )
    name: Literal["container", "service"] = Field(
        "container",
        description="What names a host: the container, or its Compose service where it has one.",
    )

    labels: list[str] = Field(
        default_factory=list,
        max_length=20,
        description="Labels of containers that `flow_exporter_docker_container_info` has, too, as "
        "`label_` and the name with `_` for what metrics do not allow.",
    )

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: list[str]) -> list[str]:
        refuse_twice(map(metric_label, value))
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith(("unix:///", "tcp://")):
            raise ValueError("must begin with unix:/// or tcp://")
        return value


class Geo(Section):
    """Countries and autonomous systems, from MMDB files (MaxMind, IPinfo, DB-IP)."""

    files: list[FileName] = Field(
        default_factory=list,
        description="MMDB files; the first that knows an address wins, field by field.",
    )
    prefer_device_as: bool = Field(
        True, description="Keep AS numbers that devices tell; else those of the files win."
    )
    as_names_file: FileName = Field(
        "", description="CSV of `number,name`, which win over the names in the MMDB files."
    )
