"""Which policies are evaluated, and how."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from exporter.config.section import FileName, Seconds, Section


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
