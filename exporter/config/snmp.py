"""Whom to ask by SNMP, and how."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from exporter.config.section import FileName, Seconds, Section, refuse_twice


class SnmpAccess(Section):
    """How to ask devices by SNMP."""

    name: str = Field(min_length=1, description="Name by which devices refer to it.")
    version: Literal["2c", "3"] = Field("3", description="Version of SNMP.")
    port: int = Field(161, ge=1, le=65535, description="UDP port of the devices.")
    community_file: FileName = Field("", description="Version 2c: file with the community.")
    user: str = Field("", description="Version 3: the user.")
    auth_protocol: Literal["md5", "sha", "sha224", "sha256", "sha384", "sha512"] = Field(
        "sha256", description="Version 3: how requests are signed."
    )
    auth_password_file: FileName = Field("", description="Version 3: file; empty: not signed.")
    priv_protocol: Literal["des", "aes", "aes192", "aes256"] = Field(
        "aes", description="Version 3: how requests are encrypted."
    )
    priv_password_file: FileName = Field("", description="Version 3: file; empty: not encrypted.")

    @property
    def secret_files(self) -> tuple[str, str, str]:
        """Files of community, password to sign and password to encrypt with; empty: none."""
        return self.community_file, self.auth_password_file, self.priv_password_file

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.version == "2c" and not self.community_file:
            raise ValueError("version 2c needs community_file")
        if self.version == "3" and not self.user:
            raise ValueError("version 3 needs user")
        if self.priv_password_file and not self.auth_password_file:
            raise ValueError("encrypted requests must be signed: auth_password_file is missing")
        return self


class Snmp(Section):
    """Names and speeds of interfaces, asked of the devices that name an access."""

    access: list[SnmpAccess] = Field(default_factory=list, description="Ways to ask.")
    refresh_seconds: Seconds = Field(
        3600.0, ge=10, description="Time between two walks of a device."
    )
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="Wait for one answer.")
    retries: int = Field(1, ge=0, le=5, description="How often a question is repeated.")
    parallel: int = Field(8, ge=1, le=100, description="Devices walked at the same time.")
    cache_file: FileName = Field(
        "", description="Keeps what was learned over restarts; empty: it is asked again."
    )

    @model_validator(mode="after")
    def _unique(self) -> Self:
        refuse_twice([access.name for access in self.access], "access")
        return self
