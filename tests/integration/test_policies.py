"""Policies evaluated by the real store."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from exporter.policies.check import check_queries
from exporter.policies.evaluator import PolicyEvaluator
from exporter.policies.model import PolicySet, load_policies
from exporter.resources import resource
from tests.support.database import Database, emptied
from tests.support.evaluated import NOW, Evaluated, insert, policy
from tests.support.stack import soon


@pytest.fixture
def flows(database: Database) -> Iterator[Client]:
    with emptied(database, "flows") as client:
        yield client


def test_bits_are_summed_per_key_over_the_window_alone(database: Database, flows: Client) -> None:
    insert(
        flows,
        {"bytes": 600_000, "ago": 60},
        {"bytes": 150_000, "ago": 0.001},
        {"bytes": 7_000, "ago": 61},
        {"bytes": 7_000, "ago": 0},
        {"bytes": 75_000, "dst_addr": "2001:db8::1"},
    )
    evaluated = Evaluated(database, policy())
    evaluated.evaluate()
    assert evaluated.values("policy", "dst_addr") == {
        ("p", "10.0.0.1"): 100_000.0,
        ("p", "2001:db8::1"): 10_000.0,
    }


def test_only_the_largest_keys_above_the_minimum_are_picked_up(
    database: Database, flows: Client
) -> None:
    insert(flows, *({"dst_addr": f"10.0.0.{n}", "bytes": n * 7500} for n in range(1, 10)))
    evaluated = Evaluated(database, policy(top=3, minimum=7_500))
    evaluated.evaluate()
    assert evaluated.values("dst_addr") == {
        ("10.0.0.9",): 9000.0,
        ("10.0.0.8",): 8000.0,
    }


def test_a_key_that_stops_reads_0_until_it_expires(database: Database, flows: Client) -> None:
    insert(flows, {"bytes": 75_000}, {"bytes": 75_000, "dst_addr": "10.0.0.2"})
    insert(flows, {"bytes": 75_000, "dst_addr": "10.0.0.2", "ago": -170})
    evaluated = Evaluated(database, policy(expiry="3m"))
    evaluated.evaluate()
    evaluated.evaluate(after=60)
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 0.0, ("10.0.0.2",): 0.0}
    evaluated.evaluate(after=60)
    assert evaluated.values("dst_addr")[("10.0.0.1",)] == 0.0
    evaluated.evaluate(after=60)
    assert evaluated.values("dst_addr") == {("10.0.0.2",): 10_000.0}


def test_a_followed_key_that_leaves_the_top_keeps_its_true_value(
    database: Database, flows: Client
) -> None:
    insert(flows, {"bytes": 75_000})
    later = [{"dst_addr": f"10.0.1.{n}", "bytes": 150_000, "ago": -10} for n in range(5)]
    insert(flows, {"bytes": 7_500, "ago": -10}, *later)
    evaluated = Evaluated(database, policy(top=5, minimum=5_000))
    evaluated.evaluate()
    evaluated.evaluate(after=60)
    values = evaluated.values("dst_addr")
    assert values[("10.0.0.1",)] == 1_000.0
    assert len(values) == 6


def test_no_more_keys_are_followed_than_the_limit(database: Database, flows: Client) -> None:
    for minute in range(4):
        insert(
            flows,
            *(
                {"dst_addr": f"10.0.{minute}.{n}", "bytes": 75_000 + n, "ago": 10 - minute * 60}
                for n in range(5)
            ),
        )
    evaluated = Evaluated(database, policy(top=5, max_keys=8))
    for _ in range(4):
        evaluated.evaluate(after=0 if not evaluated.values() else 60)
    networks = [key[0].rsplit(".", 1)[0] for key in evaluated.values("dst_addr")]
    assert sorted(networks) == ["10.0.2"] * 3 + ["10.0.3"] * 5


def test_unique_counts_see_a_value_once_however_many_flows_it_has(
    database: Database, flows: Client
) -> None:
    insert(flows, *({"src_addr": f"10.1.0.{n % 25}", "ago": n % 50} for n in range(1, 101)))
    evaluated = Evaluated(database, policy(measure="unique_src_addr"))
    evaluated.evaluate()
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 25.0}


def test_a_filter_selects_the_flows(database: Database, flows: Client) -> None:
    insert(
        flows,
        {"dst_addr": "10.0.0.1", "dst_port": 53, "bytes": 7500},
        {"dst_addr": "10.0.0.2", "dst_port": 53, "bytes": 7500, "src_addr": "10.8.0.1"},
        {"dst_addr": "10.0.0.3", "dst_port": 443, "bytes": 7500},
    )
    where = "dst_port IN (53, 123) AND NOT (src_addr BETWEEN '10.8.0.0' AND '10.8.255.255')"
    evaluated = Evaluated(database, policy(filter=where))
    evaluated.evaluate()
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 1000.0}


def test_an_empty_dimension_is_no_label_and_policies_differ_in_labels(
    database: Database, flows: Client
) -> None:
    insert(
        flows,
        {"bytes": 7500, "dst_host": 'a "quoted" \\ name'},
        {"bytes": 7500, "dst_addr": "10.0.0.2"},
    )
    evaluated = Evaluated(
        database,
        policy(name="hosts", dimensions=["dst_addr", "dst_host"]),
        policy(name="ports", dimensions=["proto", "dst_port"]),
    )
    evaluated.evaluate()
    assert evaluated.samples("flow_policy_value") == {
        (("dst_addr", "10.0.0.1"), ("dst_host", 'a "quoted" \\ name'), ("policy", "hosts")): 1000,
        (("dst_addr", "10.0.0.2"), ("policy", "hosts")): 1000,
        (("dst_port", "443"), ("policy", "ports"), ("proto", "17")): 2000,
    }


def test_every_kind_of_dimension_can_be_a_key(database: Database, flows: Client) -> None:
    flows.command(
        "INSERT INTO flows (time_received, bytes, src_mac) "
        f"VALUES (fromUnixTimestamp64Milli({NOW * 1000 - 10_000}), 7500, 2)"
    )
    evaluated = Evaluated(
        database, policy(dimensions=["src_mac", "source", "src_as", "device", "direction"])
    )
    evaluated.evaluate()
    assert list(evaluated.values("src_mac", "source", "src_as", "direction")) == [
        ("00:00:00:00:00:02", "unknown", "0", "unknown")
    ]


def test_a_policy_that_fails_is_named_and_the_others_go_on(
    database: Database, flows: Client
) -> None:
    insert(flows, {"bytes": 7500})
    evaluated = Evaluated(
        database, policy(name="broken", filter="dst_port = 'x'"), policy(name="sound")
    )
    evaluated.evaluate()
    assert evaluated.values("policy") == {("sound",): 1000.0}
    assert evaluated.failures() == {(("policy", "broken"), ("reason", "refused")): 1.0}


def test_values_are_no_longer_told_when_the_store_stays_away(
    database: Database, flows: Client
) -> None:
    insert(flows, {"bytes": 7500})
    evaluated = Evaluated(database, policy())
    evaluated.evaluate()
    database.store.stop()
    try:
        evaluated.evaluate(after=60)
        assert evaluated.values("dst_addr") == {("10.0.0.1",): 1000.0}
        evaluated.evaluate(after=60)
        evaluated.evaluate(after=61)
        assert evaluated.values() == {}
    finally:
        database.store.start()
    assert evaluated.failures() == {(("policy", "p"), ("reason", "unreachable")): 3.0}
    evaluated.evaluate(after=60)
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 0.0}


def test_turns_missed_by_slow_evaluation_are_counted_and_not_made_up_for(
    database: Database, flows: Client
) -> None:
    evaluated = Evaluated(database, policy())
    evaluated.evaluate()
    evaluated.evaluate(after=300)
    assert evaluated.samples("flow_exporter_policy_evaluation_skipped_total") == {
        (("policy", "p"),): 4.0
    }
    assert evaluated.samples("flow_exporter_policy_evaluations_total") == {(("policy", "p"),): 2.0}


def test_a_clock_that_was_ahead_stops_no_evaluation(database: Database, flows: Client) -> None:
    insert(flows, {"bytes": 75_000})
    evaluated = Evaluated(database, policy())
    evaluated.evaluate(after=7200)
    assert not evaluated.values("dst_addr")
    evaluated.evaluate(after=-7200)
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 10_000.0}
    evaluated.evaluate(after=-1)  # corrected by less than a turn: that window has been told
    assert evaluated.samples("flow_exporter_policy_evaluations_total") == {(("policy", "p"),): 2.0}
    assert evaluated.samples("flow_exporter_policy_evaluation_skipped_total") == {
        (("policy", "p"),): 0.0
    }


def test_a_reload_keeps_what_an_unchanged_query_follows(database: Database, flows: Client) -> None:
    insert(flows, {"bytes": 7500})
    evaluated = Evaluated(database, policy(name="same"), policy(name="other"))
    evaluated.evaluate()
    evaluated.evaluator.reload(
        PolicySet(
            policies=[
                policy(name="same", bounds={"above": {"static": 5}}),
                policy(name="other", filter="proto = 6"),
            ]
        )
    )
    assert evaluated.values("policy") == {("same",): 1000.0}
    assert evaluated.samples("flow_policy_static_threshold") == {
        (("bound", "above"), ("policy", "same"), ("severity", "")): 5.0,
        (("bound", "above"), ("policy", "other"), ("severity", "")): 1000.0,
    }


def test_the_thread_evaluates_when_a_window_has_ended(database: Database, flows: Client) -> None:
    now = time.time()
    flows.command(
        "INSERT INTO flows (time_received, dst_addr, bytes) "  # one in any minute of an hour
        f"SELECT fromUnixTimestamp64Milli({int(now * 1000) - 5000} + 60000 * toInt64(number)),"
        " toIPv6('10.0.0.1'), 7500 FROM numbers(60)"
    )
    evaluator = PolicyEvaluator(
        database.connect,
        PolicySet(policies=[policy(interval="5s")]),
        delay_seconds=0,
        query_timeout_seconds=60,
    )
    evaluator.start()
    try:
        soon(lambda: evaluator.states()[0].evaluations >= 2)
        assert [key.value for key in evaluator.states()[0].keys] == [1000.0]
    finally:
        evaluator.stop()


SHIPPED = load_policies(resource("alerting/policies.yaml"))


def test_clickhouse_says_which_policies_it_would_not_evaluate(
    database: Database, flows: Client
) -> None:
    assert check_queries(flows, SHIPPED.policies, SHIPPED.loaded_lists) == {}
    wrong = [policy(name="types", filter="dst_port = 'x'"), policy(name="number", filter="bytes")]
    faults = check_queries(flows, [*wrong, policy(name="sound", filter="proto = 6")])
    assert set(faults) == {"types", "number"}
    assert faults["number"] == "filter: is UInt64, not true or false"
