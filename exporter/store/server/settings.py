"""What a request may set: parameters of the protocol, and engine settings by user."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from exporter.store.server.errors import QueryError
from exporter.store.server.users import User

#: Parameters of ClickHouse's HTTP interface itself, never passed on as engine settings.
#: Sessions, quotas and roles are not kept: their parameters are accepted and without effect.
PROTOCOL: Final = frozenset(
    {
        "query", "database", "default_format", "user", "password", "query_id", "compress",
        "decompress", "enable_http_compression", "http_zlib_compression_level",
        "send_progress_in_http_headers", "http_headers_progress_interval_ms", "wait_end_of_query",
        "buffer_size", "session_id", "session_timeout", "session_check", "close_session", "role",
        "quota_key", "client_protocol_version", "stacktrace", "log_comment",
        "http_write_exception_in_output_format", "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip

#: Engine settings that the reader may give, apart from those about output formats.
READER_SETTINGS: Final = frozenset(
    {
        "additional_result_filter", "additional_table_filters", "cast_keep_nullable",
        "date_time_output_format", "extremes", "group_by_overflow_mode", "join_use_nulls",
        "limit", "max_block_size", "max_bytes_to_read", "max_execution_time", "max_memory_usage",
        "max_result_bytes", "max_result_rows", "max_rows_to_group_by", "max_rows_to_read",
        "max_threads", "offset", "prefer_column_name_to_alias", "read_overflow_mode",
        "result_overflow_mode", "timeout_overflow_mode", "use_query_cache",
    }
)  # fmt: skip
_READER_PREFIXES: Final = ("output_format_", "format_csv_", "date_time_output_")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one query; 0 means none. Users may ask for less, the reader never for more."""

    memory_bytes: int = 2 << 30
    seconds: float = 60.0
    result_rows: int = 0
    threads: int = 0

    def as_settings(self) -> dict[str, float]:
        """The engine settings that enforce them."""
        return {
            "max_memory_usage": self.memory_bytes,
            "max_execution_time": self.seconds,
            "max_result_rows": self.result_rows,
            "max_threads": self.threads,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request's URL asks for, beside the statement."""

    settings: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


def read_url(
    url: Mapping[str, str], user: User, limits: Limits, *, get: bool, insert: bool = False
) -> Asked:
    """Engine settings and bound parameters (``param_x`` for ``{x:Type}``) of a request.

    Raises:
        QueryError: 164, a setting that this user may not give.
    """
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    for name, value in url.items():
        if name.startswith("param_"):
            parameters[name[6:]] = value
        elif name not in PROTOCOL and name != "readonly":
            _check(name, user)
            settings[name] = value
    _bound(settings, user, limits, insert=insert)
    asked = url.get("readonly", "0")
    if user.read_only:
        settings["readonly"] = "1"
    elif asked in ("1", "2"):
        settings["readonly"] = asked
    elif get:
        settings["readonly"] = "2"
    return Asked(settings, parameters)


def _check(name: str, user: User) -> None:
    if not _NAME.match(name):
        raise QueryError(115, "UNKNOWN_SETTING", f"Unknown setting {name!r}.")
    if user.read_only and name not in READER_SETTINGS and not name.startswith(_READER_PREFIXES):
        raise QueryError(
            164, "READONLY", f"Cannot modify '{name}' setting in readonly mode: user {user.name}."
        )


def _bound(settings: dict[str, str], user: User, limits: Limits, *, insert: bool) -> None:
    bounds = limits.as_settings()
    if user.read_only and "max_threads" in settings:
        bounds["max_threads"] = limits.threads or os.cpu_count() or 1
    for name, most in bounds.items():
        if not most or (insert and name != "max_memory_usage"):
            continue
        if name not in settings or (user.read_only and not _narrower(settings[name], most)):
            settings[name] = str(most)


def _narrower(wanted: str, most: float) -> bool:
    """Whether it is a number, as the engine takes more (``99G``), and within the bound.

    For these settings 0 means without limit.
    """
    try:
        return 0 < float(wanted) <= most
    except ValueError:
        return False
