"""A command's connection to ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from exporter.cli.output import fail

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from exporter.config import ClickHouse


@contextmanager
def connected(settings: ClickHouse) -> Iterator[Client]:
    """A client; what ClickHouse fails at while it is used is said, and ends with exit code 1.

    A password file that cannot be used ends with exit code 2.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from exporter.config import ConfigError
    from exporter.store.client import StoreError, connect, explain

    try:
        with connect(settings) as client:
            yield client
    except ConfigError as error:
        fail(str(error), 2)
    except StoreError as error:
        fail(str(error), 1)
    except ClickHouseError as error:
        fail(str(explain(error, settings)), 1)
