"""Estimates of very many flows are as near as is said; who asks for exact answers gets them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from exporter.explore.ask import Asked, ask, is_estimated
from exporter.explore.flows import summary_query
from exporter.explore.series import keys_query, series_query
from exporter.explore.table import table_query
from tests.integration.test_explore_exact import END, FLOWS, START, client, largest

__all__ = ["client"]

DRAWN = 20_000


@pytest.fixture(autouse=True)
def few_are_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.explore.estimates.ESTIMATED_FROM", FLOWS // 2)
    monkeypatch.setattr("exporter.explore.estimates.DRAWN", DRAWN)
    monkeypatch.setattr("exporter.explore.flows.DRAWN", DRAWN)


def asked(*by: str, **chosen: Any) -> Asked:
    return Asked(START, END, by=by, **chosen)


def totals(client: Client, question: Asked) -> dict[tuple[str, ...], float]:
    """The totals that the table shows."""
    rows = client.query(table_query(question.question())).named_results()
    return {(row["Key"], row["Second key"])[: len(question.by)]: row["Total"] for row in rows}


@pytest.mark.parametrize("where", ["", "proto = 17", "src_addr != '192.0.2.1'"])
@pytest.mark.parametrize(
    ("by", "measure", "value"),
    [
        (("src_addr",), "bits_per_second", "sum(bytes) * 8"),
        (("src_addr",), "flows_per_second", "count()"),
        (("src_addr", "proto"), "bits_per_second", "sum(bytes) * 8"),
    ],
)
def test_estimates_are_as_near_as_is_said(
    client: Client, by: tuple[str, ...], measure: str, value: str, where: str
) -> None:
    question = asked(*by, measure=measure, where=where)
    assert is_estimated(client, question)
    told = totals(client, question)
    [[whole]] = client.query(f"SELECT {value} FROM flows WHERE {where or 1}").result_rows
    names = ["replaceOne(toString(src_addr), '::ffff:', '')", "multiIf(proto = 6, 'TCP', 'UDP')"]
    true = {
        (*row[: len(by)],): row[-1]
        for row in client.query(
            f"SELECT {', '.join(names[: len(by)])}, toFloat64({value}) FROM flows"
            f" WHERE {where or 1} GROUP BY {', '.join(by)}"
        ).result_rows
    }
    assert len(told) == 10
    for key, total in told.items():
        actual = next(
            v
            for k, v in true.items()
            if tuple(x.upper() for x in k) == tuple(x.upper() for x in key)
        )
        error = (actual * whole / DRAWN) ** 0.5
        assert abs(total - actual) <= 5 * error, key
    first = largest(client, by[:1], value, where)[0]
    assert next(iter(told))[0] == first[0]


def test_other_is_the_rest_of_what_was_drawn(client: Client) -> None:
    question = asked("src_addr")
    told = totals(client, question)
    series = client.query(series_query(question.question())).result_rows
    other = sum(row[2] for row in series if row[1] == "Other") * 60
    [[whole]] = client.query("SELECT sum(bytes) * 8 FROM flows").result_rows
    assert sum(row[2] for row in series) * 60 == pytest.approx(sum(told.values()) + other)
    assert sum(told.values()) + other == pytest.approx(whole, rel=5 / DRAWN**0.5)
    assert all(row[2] >= 0 for row in series)
    keys = [row[0] for row in client.query(keys_query(question.question())).result_rows]
    assert keys == [key for (key,) in told]


def test_a_flow_larger_than_the_threshold_counts_exactly(client: Client) -> None:
    first, total = next(iter(totals(client, asked("src_addr", "dst_port")).items()))
    assert first == ("192.0.2.1", "4711")
    assert total == 150_000_000 * 8


def test_different_values_are_estimated_from_pairs(client: Client) -> None:
    question = asked("src_addr", measure="unique_dst_port", top=3)
    told = totals(client, question)
    actual = dict(largest(client, ("src_addr",), "uniq(dst_port)", ""))
    for (key,), total in told.items():
        times = FLOWS / DRAWN
        assert abs(total - actual[key]) <= 5 * (actual[key] * times) ** 0.5
        assert total != actual[key]
    series = client.query(series_query(question.question())).result_rows
    assert {row[1].split()[0] for row in series} == {key for (key,) in told}


def test_pinned_and_earlier_keys_are_estimated_too(client: Client) -> None:
    small = "10.0.19.200"
    actual = dict(largest(client, ("src_addr",), "sum(bytes) * 8", f"src_addr = '{small}'"))
    question = replace(asked("src_addr"), pinned=(small,), compare="day")
    rows = list(client.query(table_query(question.question())).named_results())
    assert {row["Key"]: row["Total"] for row in rows}[small] == actual[small], "all of it is drawn"
    assert len(rows) == 11
    assert all(row["Earlier"] == 0 for row in rows)


def test_exact_answers_are_exact(client: Client) -> None:
    question = asked("src_addr", exact=True)
    assert not is_estimated(client, question)
    exact = {key.key[0]: key.total for key in ask(client, question)}
    assert exact == dict(largest(client, ("src_addr",), "sum(bytes) * 8", ""))
    assert totals(client, asked("src_addr")) != {(key,): v for key, v in exact.items()}


def test_few_flows_are_not_estimated(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.explore.estimates.ESTIMATED_FROM", 2 * FLOWS)
    question = asked("src_addr")
    assert not is_estimated(client, question)
    assert totals(client, question) == {
        (key,): total for key, total in largest(client, ("src_addr",), "sum(bytes) * 8", "")
    }


def test_the_summary_tells_how_many_flows_were_looked_at(client: Client) -> None:
    for exact, looked in ((False, DRAWN), (True, FLOWS + 1)):
        question = asked("src_addr", exact=exact).question()
        [row] = client.query(summary_query(question)).named_results()
        assert row["Flows"] == FLOWS + 1
        assert row.get("Flows looked at", row["Flows"]) == looked


def test_shares_are_of_all_drawn_flows(client: Client) -> None:
    question = asked("src_addr", measure="share_of_total")
    series = client.query(series_query(question.question())).result_rows
    buckets = {row[0] for row in series}
    for bucket in buckets:
        assert sum(row[2] for row in series if row[0] == bucket) == pytest.approx(100)
    told = totals(client, question)
    whole = totals(client, replace(question, top=1000))
    assert sum(whole.values()) < 100
    for key, share in told.items():
        assert share == pytest.approx(whole[key])
    [[bits]] = client.query("SELECT sum(bytes) FROM flows").result_rows
    assert told["192.0.2.1",] == pytest.approx(100 * 150_000_000 / bits, rel=5 / DRAWN**0.5)
