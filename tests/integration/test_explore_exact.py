"""The Data Explorer looks at few keys of many flows, and tells what is true of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.explore.ask import Asked
from exporter.explore.keys import keys_query
from exporter.explore.series import series_query
from exporter.explore.table import table_query
from tests.support.database import migrated_database

FLOWS = 300_000
#: Recent: old flows are deleted.
END = int(time.time()) // 3600 * 3600
START = END - 3600
#: Few hosts have most of the traffic; ports are many.
_FILL = f"""
INSERT INTO flows (time_received, src_addr, dst_port, proto, bytes, packets, src_host)
SELECT toDateTime64({START} + number % 3600, 3),
  toIPv6(concat('10.0.', toString(intDiv(host, 250)), '.', toString(host % 250))),
  toUInt16(cityHash64(number, 2) % 40000), if(number % 3 = 0, 17, 6),
  toUInt64(40 + 1400 * pow(1 / ((cityHash64(number, 3) % 99991 + 1) / 99991), 0.6)), 1,
  if(host < 3, concat('host', toString(host)), '')
FROM (
  SELECT number, toUInt32(5000 * pow((cityHash64(number, 1) % 99991) / 99991, 4)) AS host
  FROM numbers({FLOWS})
)
"""
#: One flow as large as a tenth of them all, of a host without any other.
_ELEPHANT = f"""
INSERT INTO flows (time_received, src_addr, dst_port, proto, bytes, packets)
SELECT toDateTime64({END - 1000}, 3), toIPv6('192.0.2.1'), 4711, 6, 150000000, 1
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with migrated_database() as database, database.connect() as writer:
        writer.command(_FILL)
        writer.command(_ELEPHANT)
        yield writer


@pytest.fixture(autouse=True)
def few_groups_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.explore.keys.LARGEST_GROUPS", 500)


def largest(client: Client, by: tuple[str, ...], value: str, where: str) -> list[tuple[Any, ...]]:
    """The ten largest of all flows, by the plain query."""
    columns = ", ".join(f"replaceOne(toString({name}), '::ffff:', '')" for name in by)
    sql = (
        f"SELECT {columns}, toFloat64({value}) AS v FROM flows WHERE {where or 1}"
        f" GROUP BY {', '.join(by)} ORDER BY v DESC, {', '.join(by)} LIMIT 10"
    )
    return [tuple(row) for row in client.query(sql).result_rows]


@pytest.mark.parametrize("where", ["", "proto = 17", "src_addr != '192.0.2.1'"])
@pytest.mark.parametrize(
    ("by", "measure", "value"),
    [
        (("src_addr",), "bits_per_second", "sum(bytes) * 8"),
        (("src_addr",), "flows_per_second", "count()"),
        (("src_addr", "dst_port"), "bits_per_second", "sum(bytes) * 8"),
        (("dst_port",), "bits_per_second", "sum(bytes) * 8"),
    ],
)
def test_largest_keys_and_other_are_those_of_all_flows(
    client: Client, by: tuple[str, ...], measure: str, value: str, where: str
) -> None:
    question = Asked(START, END, by=by, measure=measure, where=where).question()
    rows = list(client.query(table_query(question)).named_results())
    told = [(*[row["Key"], row["Second key"]][: len(by)], row["Total"]) for row in rows]
    assert sorted(told) == sorted(largest(client, by, value, where))
    [[whole]] = client.query(f"SELECT {value} FROM flows WHERE {where or 1}").result_rows
    series = client.query(series_query(question)).result_rows
    assert sum(row[2] for row in series) * 60 == pytest.approx(whole)
    other = sum(row[2] for row in series if row[1] == "Other") * 60
    assert other == pytest.approx(whole - sum(row[-1] for row in told))


def test_a_flow_larger_than_all_others_comes_first(client: Client) -> None:
    question = Asked(START, END, by=("src_addr", "dst_port")).question()
    first = next(iter(client.query(table_query(question)).named_results()))
    assert (first["Key"], first["Second key"]) == ("192.0.2.1", "4711")
    assert first["Total"] == pytest.approx(first["Maximum"] * 60)
    assert first["Total"] == 150_000_000 * 8


def test_pinned_keys_are_shown_however_small(client: Client) -> None:
    small = "10.0.19.200"
    [[bits]] = client.query(
        f"SELECT sum(bytes) * 8 FROM flows WHERE src_addr = toIPv6('{small}')"
    ).result_rows
    asked = Asked(START, END, by=("src_addr",), top=5, pinned=(small, "no address"))
    rows = {
        row["Key"]: row["Total"]
        for row in client.query(table_query(asked.question())).named_results()
    }
    assert bits
    assert rows[small] == bits
    assert small in [row[0] for row in client.query(keys_query(asked.question())).result_rows]


def test_different_values_are_counted_of_all_flows(client: Client) -> None:
    asked = Asked(START, END, by=("src_addr",), measure="unique_dst_port", top=3)
    rows = client.query(table_query(asked.question())).named_results()
    told = [(row["Key"], row["Total"]) for row in rows]
    assert told == largest(client, ("src_addr",), "uniq(dst_port)", "")[:3]
