"""A ClickHouse client that is opened when it is needed and given up when it failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Client(Protocol):
    """The part of a clickhouse-connect client that is used behind the writer."""

    def query(
        self,
        query: str,
        parameters: dict[str, Any] | None = ...,
        settings: dict[str, Any] | None = ...,
    ) -> Any: ...

    def insert(
        self,
        table: str,
        data: Sequence[Sequence[Any]],
        column_names: Sequence[str],
        *,
        settings: dict[str, Any] | None = ...,
    ) -> Any: ...

    def close(self) -> None: ...


class Session:
    """Owns at most one client of ``client_factory``; for one thread."""

    def __init__(self, client_factory: Callable[[], Client]) -> None:
        self._client_factory = client_factory
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client, opened now where there is none; raises what opening it raises."""
        if self._client is None:
            self._client = self._client_factory()
        return self._client

    def close(self) -> None:
        """Close the client; the next use opens another."""
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close()
            except Exception:
                log.debug("closing a failed client failed too", exc_info=True)
