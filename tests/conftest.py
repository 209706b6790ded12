"""Fixtures that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.dashboards import filled_store
from tests.support.database import Database, migrated_database
from tests.support.store import RunningStore, running_store


@pytest.fixture(scope="session")
def store() -> Iterator[RunningStore]:
    """The real embedded store, shared by all tests: make databases of your own in it."""
    with running_store() as running:
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A store of the module's own, with all tables: for tests that empty them."""
    with migrated_database() as made:
        yield made


@pytest.fixture(scope="module")
def reader() -> Iterator[Client]:
    """A store with an hour of flows for dashboards, as the user that Grafana is."""
    with filled_store() as client:
        yield client
