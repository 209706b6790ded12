"""Each usual failure of ClickHouse is told with what to do about it."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from exporter.config import ClickHouse
from exporter.store.client import StoreError, explain, refuse_old_version

SETTINGS = ClickHouse(url="http://ch:8123", user="writer", password_file="/etc/password")


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        (516, "Authentication failed", "wrong user or password. Check clickhouse.user and /etc/p"),
        (81, "Unknown database", "has no database 'flow': run `flow-exporter migrate`"),
        (60, "Unknown table", "lacks a table: run `flow-exporter migrate`"),
        (16, "No such column rtt", "lacks a column: run `flow-exporter migrate`"),
        (243, "Cannot reserve 1 MiB", "has a full disk: free some of it"),
        (1001, "write: No space left on device", "has a full disk: free some of it"),
        (164, "Cannot execute query in readonly mode", "may only be read: check the rights of u"),
        (242, "Table is in readonly mode", "may only be read"),
        (1001, "mkdir: Read-only file system", "may only be read"),
        (115, "Unknown setting", "does not know a setting; is its version old?"),
        (252, "Too many parts", "Too many parts"),
    ],
)
def test_a_failure_comes_with_advice(code: int, text: str, advice: str) -> None:
    told = explain(DatabaseError(text, code=code, name="NAME"), SETTINGS)
    assert str(told).startswith("ClickHouse at http://ch:8123")
    assert advice in str(told)
    assert told.code == code


@pytest.mark.parametrize("version", ["25.7.9.1", "24.8.16.40", "9.99"])
def test_an_old_server_is_refused(version: str) -> None:
    with pytest.raises(StoreError, match=r"upgrade it to 25\.8 or newer"):
        refuse_old_version(version, SETTINGS)


@pytest.mark.parametrize("version", ["25.8.1.1", "25.10.2.39", "26.9.2.1", "25.8.9.2041.altinity"])
def test_a_new_server_is_taken(version: str) -> None:
    refuse_old_version(version, SETTINGS)


def test_whoever_gives_no_password_is_told_which_file_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = DatabaseError("Authentication failed", code=516, name="NAME")
    monkeypatch.delenv("FLOW_CLICKHOUSE_PASSWORD", raising=False)
    assert "--config .data/demo/config/flow-exporter.yaml" in str(explain(refused, ClickHouse()))
    monkeypatch.setenv("FLOW_CLICKHOUSE_PASSWORD", "wrong")
    told = str(explain(refused, ClickHouse()))
    assert told.endswith("and the environment variable FLOW_CLICKHOUSE_PASSWORD.")
