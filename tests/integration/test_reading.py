"""A question about some of the time reads the rows of that time, however large the part."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from tests.support.database import migrated_database

#: Three in the afternoon of yesterday: the hours before are of one day, hence in one part.
END = int(time.time()) // 86_400 * 86_400 - 9 * 3600
HOURS = 3

#: Flows between 200 hosts and 500, and a DNS query for each, evenly over the hours.
FLOWS = f"""
INSERT INTO flows (time_received, src_addr, dst_addr, bytes, dns_name)
SELECT {END - HOURS * 3600} + number * {HOURS * 3600} / 200000,
  toIPv6(concat('10.0.0.', toString(number % 200))),
  toIPv6(concat('10.1.', toString(number % 2), '.', toString(number % 250))),
  100, toString(number % 97)
FROM numbers(200000)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A store in which each table is one part a day."""
    with (
        migrated_database() as database,
        database.store.client(database="flow", send_receive_timeout=300) as writer,
    ):
        writer.command(FLOWS)
        for table in ("flows", "dns_queries"):
            writer.command(f"OPTIMIZE TABLE {table} FINAL")
        yield writer


def granules(client: Client, table: str, condition: str) -> tuple[int, int]:
    """How many blocks of 8,192 rows would be read by primary key, and of how many."""
    plan = client.query(f"EXPLAIN indexes = 1 SELECT count() FROM {table} WHERE {condition}")
    text = "\n".join(row[0] for row in plan.result_rows)
    after = text.partition("PrimaryKey")[2]
    found = re.search(r"Granules: (\d+)/(\d+)", after)
    assert found is not None, text
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("table", ["flows", "dns_queries"])
def test_one_hour_of_three_reads_a_third(client: Client, table: str) -> None:
    # Less a second: of a key by hours, "before three" may be in the hour that begins at three.
    hour = (
        f"time_received >= toDateTime({END - 7200}) AND time_received < toDateTime({END - 3601})"
        " AND src_addr != dst_addr"
    )
    read, _ = granules(client, table, hour)
    whole = int(str(client.command(f"SELECT count() FROM {table}"))) / 8192
    assert read < 0.45 * whole
