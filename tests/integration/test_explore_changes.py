"""What changed: of which keys different values are counted, against the real store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from exporter.explore.ask import Asked
from exporter.explore.changes import COUNTED_KEYS, changes_query
from tests.support.dashboard_flows import END
from tests.support.database import migrated_database

MINUTES = 10
START = END - MINUTES * 60
BEGAN = START + MINUTES * 30
#: Five minutes before the alert is where "during" begins.
SINCE_MS = f"'{(BEGAN + 300) * 1000}'"

_COLUMNS = "time_received, time_flow_start, time_flow_end, source, bytes, src_addr, dst_addr"
#: As many sources as are counted, each with a flow a minute, to the same destination.
_BUSY = f"""
INSERT INTO flows ({_COLUMNS})
SELECT t, t, t, 'ipfix', 100,
  toIPv6(IPv4NumToString(toUInt32(167772160 + intDiv(number, {MINUTES})))), toIPv6('10.9.0.1')
FROM (SELECT number, toDateTime64({START} + number % {MINUTES} * 60 + 10, 3, 'UTC') AS t
      FROM numbers({COUNTED_KEYS * MINUTES}))"""  # fmt: skip
#: One with fewer flows that asks three others at once while it lasts.
_QUIET = f"""
INSERT INTO flows ({_COLUMNS})
SELECT t, t, t, 'ipfix', 1000000, toIPv6('10.8.0.1'),
  toIPv6(IPv4NumToString(toUInt32(168230912 + number)))
FROM (SELECT number, toDateTime64({BEGAN} + 70, 3, 'UTC') AS t FROM numbers(3))"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with migrated_database() as database, database.connect() as connected:
        connected.command(_BUSY)
        connected.command(_QUIET)
        yield connected


def changed(client: Client, measure: str, where: str = "") -> dict[str, float]:
    """The change of each key of those that changed most."""
    question = Asked(START, END, measure=measure, where=where).question()
    rows = client.query(changes_query(question, SINCE_MS)).named_results()
    return {row["Key"]: row["Change"] for row in rows}


def test_different_values_are_counted_of_the_keys_with_most_flows(client: Client) -> None:
    busy = changed(client, "unique_dst_addr")
    assert len(busy) == 10
    assert set(busy.values()) == {0}
    assert "10.8.0.1" not in busy, "501st by flows"


def test_it_is_counted_as_soon_as_it_is_among_them(client: Client) -> None:
    first, *others = changed(client, "unique_dst_addr", "src_addr != '10.0.0.0'").items()
    assert first == ("10.8.0.1", pytest.approx(3 / 5))
    assert {value for _, value in others} == {0}


def test_what_is_summed_is_of_all_keys(client: Client) -> None:
    first, *_ = changed(client, "bits_per_second").items()
    assert first == ("10.8.0.1", pytest.approx(3 * 8_000_000 / 300))
