"""The collector's HTTP server."""

from __future__ import annotations

from pydantic import Field

from exporter.config.section import FileName, Port, Section


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
