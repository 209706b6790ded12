"""The one place that makes ClickHouse clients, and says what is wrong when there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver import exceptions
from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse, read_secret

#: Codes of ClickHouse's ErrorCodes.cpp that we act on.
TABLE_ALREADY_EXISTS: Final = 57
UNKNOWN_TABLE: Final = 60
UNKNOWN_DATABASE: Final = 81
REPLICA_ALREADY_EXISTS: Final = 253
_AUTHENTICATION_CODES: Final = frozenset({192, 193, 194, 516})
_ACCESS_DENIED: Final = 497
_NO_SUCH_COLUMN: Final = frozenset({10, 16})
_UNKNOWN_SETTING: Final = 115
_READ_ONLY: Final = frozenset({164, 242})
_NOT_ENOUGH_SPACE: Final = 243

#: The oldest that tests ask all of our SQL of (tests/integration/test_oldest_clickhouse.py); before
#: 24.8 a retried insert was stored twice in what materialized views fill.
OLDEST_VERSION: Final = (25, 8)

_CLUSTER_SETTINGS: Final = {
    # What is acknowledged is on its shard, not in a queue of the node that was asked.
    "distributed_foreground_insert": 1,
    # A subquery in IN or JOIN means the table of the whole cluster.
    "distributed_product_mode": "global",
}


class StoreError(Exception):
    """ClickHouse cannot be used; the text says why and what to do.

    ``code`` is ClickHouse's error code, ``None`` where it did not answer.
    """

    def __init__(self, text: str, code: int | None = None, name: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.name = name


def connect(settings: ClickHouse, *, database: str | None = None) -> Client:
    """A client for any number of queries at a time, from any number of threads.

    Times are UTC. ``database`` is the one that unqualified names mean, by default the configured
    one; the empty string leaves it to the server.

    Raises:
        StoreError: nobody answers there, or not to this user.
        ConfigError: the password file is unusable.
    """
    url = urlsplit(settings.url)
    password = read_secret(settings.password_file, "FLOW_CLICKHOUSE_PASSWORD")
    # The driver and its HTTP library log the failures that they also raise, with the whole URL
    # of the request; we report each of them ourselves.
    for library in ("clickhouse_connect", "urllib3.connectionpool"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    with explained(settings):
        client = clickhouse_connect.get_client(
            interface=url.scheme,
            host=url.hostname,
            port=url.port or (8443 if url.scheme == "https" else 8123),
            proxy_path=url.path.strip("/"),
            username=settings.user,
            password=password,
            database=settings.database if database is None else database or None,
            connect_timeout=min(10, max(1, int(settings.insert_timeout_seconds))),
            send_receive_timeout=max(1, int(settings.insert_timeout_seconds)),
            compress=False,
            autogenerate_session_id=False,
            dedicated_pool=True,
            tz_mode="aware",
            settings=_CLUSTER_SETTINGS if settings.cluster else None,
        )
    try:
        refuse_old_version(client.server_version or "", settings)
    except StoreError:
        client.close()
        raise
    return client


def refuse_old_version(version: str, settings: ClickHouse) -> None:
    """See :data:`OLDEST_VERSION`.

    Raises:
        StoreError: ``version``, such as ``25.8.1.2``, is older.
    """
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST_VERSION:
        raise StoreError(
            f"ClickHouse at {settings.url} is version {version}: upgrade it to "
            f"{'.'.join(map(str, OLDEST_VERSION))} or newer.",
            name="old_version",
        )


def explain(error: Exception, settings: ClickHouse) -> StoreError:
    """What a failed request means and what to do about it."""
    code = getattr(error, "code", None)
    name = getattr(error, "name", None) or ""
    where = f"ClickHouse at {settings.url}"
    text = " ".join(str(error).split())[:1000]
    if code in _AUTHENTICATION_CODES:
        advice = (
            f"{where} refuses user {settings.user!r}: wrong user or password. "
            f"{_password_advice(settings)}"
        )
    elif code == _ACCESS_DENIED:
        advice = f"{where} denies user {settings.user!r} a right: {text}"
    elif code == UNKNOWN_DATABASE:
        advice = f"{where} has no database {settings.database!r}: run `flow-exporter migrate`."
    elif code == UNKNOWN_TABLE:
        advice = f"{where} lacks a table: run `flow-exporter migrate`. It says: {text}"
    elif code in _NO_SUCH_COLUMN:
        advice = (
            f"{where} lacks a column: run `flow-exporter migrate`; `flow-exporter check` tells "
            f"what was changed by hand. It says: {text}"
        )
    elif code == _NOT_ENOUGH_SPACE or (code is not None and "No space left" in text):
        advice = f"{where} has a full disk: free some of it, or keep less. It says: {text}"
    elif code in _READ_ONLY or (code is not None and "Read-only file system" in text):
        advice = (
            f"{where} may only be read: check the rights of user {settings.user!r}, its disk, and "
            f"on a cluster its Keeper. It says: {text}"
        )
    elif code == _UNKNOWN_SETTING:
        advice = f"{where} does not know a setting; is its version old? It says: {text}"
    elif code is not None:
        advice = f"{where}: {text}"
    elif isinstance(error, exceptions.Error | OSError):
        advice = (
            f"{where} cannot be reached: {_root_cause(error)}. "
            "Is it running (`flow-exporter store`), and is clickhouse.url right?"
        )
    else:
        advice = f"{where}: {type(error).__name__}: {text}"
    return StoreError(advice, code, name)


@contextmanager
def explained(settings: ClickHouse) -> Iterator[None]:
    """Whatever requests fail with becomes a :class:`StoreError` that says what to do about it."""
    try:
        yield
    except Exception as error:  # the driver raises what its HTTP library does, too
        raise explain(error, settings) from error


def _root_cause(error: BaseException) -> str:
    """What the operating system said, where it said something."""
    cause: BaseException | None = error
    while cause is not None:
        error = cause
        cause = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(cause, BaseException):
            break
    text = error.strerror if isinstance(error, OSError) else None
    return " ".join((text or str(error) or type(error).__name__).split())[:300]


def _password_advice(settings: ClickHouse) -> str:
    variable = "the environment variable FLOW_CLICKHOUSE_PASSWORD"
    if settings.password_file or os.environ.get("FLOW_CLICKHOUSE_PASSWORD"):
        return f"Check clickhouse.user and {settings.password_file or variable}."
    # Most often --config was left out, or names what `up` was given and not what it made.
    return (
        f"None was given, by clickhouse.password_file or {variable}. Beside `make up` say "
        "--config .data/demo/config/flow-exporter.yaml, of your own network "
        "--config .data/config/flow-exporter.yaml: it writes them with the password."
    )
