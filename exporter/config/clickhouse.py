"""The ClickHouse to write to and to ask, its spool and its retention."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from exporter.config.section import FileName, Seconds, Section


class Spool(Section):
    """Where inserts wait on disk that ClickHouse does not take, and those that it refuses."""

    directory: FileName = Field(
        "", description="Folder of the spool, one per collector; empty: inserts wait in memory."
    )
    max_bytes: int = Field(
        10 << 30, ge=1 << 20, description="Size of the spool; beyond it the oldest are dropped."
    )
    max_age_seconds: Seconds = Field(
        3 * 86400.0,
        gt=0,
        description="Inserts that wait for longer are dropped; a start begins anew.",
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
    "names_seen",
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
        4.0, gt=0, le=60, description="Longest time that a flow waits for its insert."
    )
    queue_batches: int = Field(
        8, ge=1, le=1024, description="Full inserts kept in memory while ClickHouse is away."
    )
    insert_timeout_seconds: Seconds = Field(
        60.0, gt=0, description="Time for one insert before it counts as failed."
    )
    spool: Spool = Field(Spool(), description="Where inserts wait while ClickHouse is away.")
    retention: dict[RetainedTable, Retention] = Field(
        default_factory=dict, description="How long and how much to keep, by table."
    )

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{value!r} is not an http:// or https:// URL")
        if "@" in url.netloc:
            raise ValueError("must not hold a user or a password: `user` and `password_file` do")
        _ = url.port  # raises where it is none
        return value
