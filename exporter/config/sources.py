"""What is learned of addresses from outside: containers, countries and autonomous systems."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from exporter.config.section import FileName, Section


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
