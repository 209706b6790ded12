"""Which keys a policy follows, by pins, quotas, lists and what its devices report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from exporter.config import ConfigError
from exporter.policies.asking import Asker
from exporter.policies.list_store import ListKeeper
from exporter.policies.model import PolicySet, load_policies
from exporter.policies.speeds import SpeedKeeper
from tests.support.database import Database, emptied
from tests.support.evaluated import NOW, Evaluated, insert, policy

DIPS = {"bounds": {"below": {"static": 10}}}


@pytest.fixture
def flows(database: Database) -> Iterator[Client]:
    with emptied(database, "flows", "dns_queries", "policy_lists") as client:
        yield client


def test_a_pinned_key_is_told_below_the_minimum_and_outside_the_top(
    database: Database, flows: Client
) -> None:
    others = [{"dst_addr": f"10.0.1.{n}", "bytes": 75_000, "ago": ago} for n in range(3)
              for ago in (10, -50, -110)]  # fmt: skip
    insert(flows, *others, {"bytes": 7_500}, {"bytes": 750, "ago": -110})
    evaluated = Evaluated(database, policy(top=2, minimum=5_000, pin=[{"dst_addr": "10.0.0.1"}]))
    told = []
    for after in (0, 60, 60):
        evaluated.evaluate(after)
        told.append(evaluated.values("dst_addr"))
    assert [values[("10.0.0.1",)] for values in told] == [1_000.0, 0.0, 100.0]
    assert [len(values) for values in told] == [3, 3, 3]


def test_a_pin_without_traffic_reads_0_and_gives_way_to_the_keys_that_it_means(
    database: Database, flows: Client
) -> None:
    insert(flows, {"bytes": 7_500, "dst_addr": "10.0.0.7"})
    for n in (1, 2):
        insert(flows, {"dst_addr": f"10.0.0.{n}", "dst_service": "ingest", "bytes": n, "ago": -10})
    pinned = policy(
        dimensions=["dst_addr", "dst_service"],
        top=1,
        max_keys=10,
        expiry="1m",
        pin=[{"dst_service": "ingest"}],
    )
    evaluated = Evaluated(database, pinned)
    evaluated.evaluate()
    assert evaluated.values("dst_addr", "dst_service") == {
        ("10.0.0.7", ""): 1000.0,
        ("", "ingest"): 0.0,
    }
    for _ in range(4):
        evaluated.evaluate(60)
    assert evaluated.values("dst_addr", "dst_service") == {
        ("10.0.0.1", "ingest"): 0.0,
        ("10.0.0.2", "ingest"): 0.0,
    }


def test_what_stopped_while_nobody_evaluated_reads_0(database: Database, flows: Client) -> None:
    insert(
        flows, {"bytes": 750_000, "ago": 600}, {"bytes": 750_000, "ago": 8000, "dst_addr": "::1"}
    )
    after_restart = Evaluated(database, policy(**DIPS), policy(name="above_only"))
    after_restart.evaluate()
    assert after_restart.values("policy", "dst_addr") == {("p", "10.0.0.1"): 0.0}


SERVED = {"dimensions": ["dst_addr", "dst_service"], **DIPS}


def test_a_service_that_the_configuration_renames_has_not_stopped(
    database: Database, flows: Client
) -> None:
    """Though flows that got the old name are in later windows, too."""
    served = {"dst_service": "ingest", "bytes": 75_000}
    insert(flows, served, {**served, "dst_addr": "10.0.0.2", "dst_service": "ssh"})
    insert(flows, {**served, "ago": -20}, {**served, "dst_service": "intake", "ago": -40})
    evaluated = Evaluated(
        database, policy(**SERVED), policy(name="kept", pin=[{"dst_service": "ingest"}], **SERVED)
    )
    evaluated.evaluator.use_names({"dst_service": {"ingest", "other", "ssh"}})
    evaluated.evaluate()
    told = evaluated.values("policy", "dst_service")
    assert set(told) == {(name, service) for name in ("p", "kept") for service in ("ingest", "ssh")}
    evaluated.clock.now += 30
    evaluated.evaluator.use_names({"dst_service": {"intake", "other", "ssh"}})
    evaluated.evaluate(30)
    told = evaluated.values("policy", "dst_service")
    assert {service: value for (name, service), value in told.items() if name == "p"} == {
        "ssh": 0.0,
        "intake": 10_000.0,
    }
    assert told["kept", "ingest"] == 0.0, "a pin is told until it is taken back"


def test_nor_has_one_that_is_renamed_by_a_restart(database: Database, flows: Client) -> None:
    """Neither the hour before the start nor the window around it brings the old name back."""
    served = {"dst_service": "ingest", "bytes": 75_000}
    unnamed = {**served, "dst_addr": "10.0.0.2", "dst_service": ""}
    stopped = {**served, "dst_addr": "10.0.0.3", "dst_service": "ssh", "ago": 600}
    insert(flows, *({**served, "ago": ago} for ago in (600, 10)), unnamed, stopped)
    insert(flows, {**served, "dst_service": "intake", "ago": -40})
    evaluated = Evaluated(database, policy(**SERVED))
    evaluated.evaluator.use_names({"dst_service": {"intake", "ssh"}})
    evaluated.evaluate()
    assert evaluated.values("dst_service") == {("",): 10_000.0, ("ssh",): 0.0}
    evaluated.evaluate(60)
    told = {("",): 0.0, ("ssh",): 0.0, ("intake",): 10_000.0}
    assert evaluated.values("dst_service") == told
    insert(flows, {**served, "dst_service": "of another collector", "ago": -130})
    evaluated.evaluate(120)
    assert ("of another collector",) in evaluated.values("dst_service")


def test_a_name_that_comes_back_or_that_others_go_on_giving_is_followed(
    database: Database, flows: Client
) -> None:
    served = {"dst_service": "ingest", "bytes": 75_000}
    insert(flows, *({**served, "ago": ago} for ago in (10, -50, -110, -170)))
    evaluated = Evaluated(database, policy(**SERVED))
    names = {"dst_service": {"ingest"}}
    evaluated.evaluator.use_names(names)
    evaluated.evaluator.use_names({"dst_service": set()})
    evaluated.evaluate()
    assert evaluated.values("dst_service") == {}
    evaluated.evaluator.use_names(names)
    evaluated.evaluate(60)
    assert evaluated.values("dst_service") == {("ingest",): 10_000.0}
    evaluated.evaluator.use_names({"dst_service": set()})
    assert evaluated.values("dst_service") == {}
    evaluated.evaluate(60)
    assert evaluated.values("dst_service") == {}
    evaluated.evaluate(60)
    evaluated.evaluate(60)
    assert evaluated.values("dst_service") == {("ingest",): 0.0}, "another collector gave it"


def test_no_more_keys_of_a_group_are_picked_up_than_its_quota(
    database: Database, flows: Client
) -> None:
    def traffic(ago: int) -> None:
        for group in range(3):
            rows = [{"dst_addr": f"10.{group}.0.{n}", "dst_host": f"g{group}", "ago": ago,
                     "bytes": 7_500_000 // (group * 100 + n + 1)} for n in range(6)]  # fmt: skip
            insert(flows, *rows)

    traffic(10)
    traffic(-50)
    limited = policy(
        dimensions=["dst_host", "dst_addr"], top=5, per={"dimension": "dst_host", "top": 2}
    )
    evaluated = Evaluated(database, limited)
    for after in (0, 60):
        evaluated.evaluate(after)
        keys = sorted(evaluated.values("dst_addr"))
        assert keys == [(f"10.{g}.0.{n}",) for g, n in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))]


def test_a_share_is_of_all_that_pass_the_filter(database: Database, flows: Client) -> None:
    insert(
        flows,
        {"bytes": 600},
        {"bytes": 300, "dst_addr": "10.0.0.2"},
        {"bytes": 100, "dst_addr": "10.0.0.3"},
        {"bytes": 9000, "dst_addr": "10.0.0.3", "proto": 6},
    )
    evaluated = Evaluated(database, policy(measure="share_of_total", filter="proto = 17", top=2))
    evaluated.evaluate()
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 60.0, ("10.0.0.2",): 30.0}


def test_critical_bounds_are_told_with_their_severity(database: Database, flows: Client) -> None:
    evaluated = Evaluated(
        database,
        policy(
            bounds={"above": {"static": 5, "baseline_ratio": 2}},
            critical={"above": {"static": 50}},
        ),
    )
    assert evaluated.samples("flow_policy_static_threshold") == {
        (("bound", "above"), ("policy", "p"), ("severity", "")): 5.0,
        (("bound", "above"), ("policy", "p"), ("severity", "critical")): 50.0,
    }
    assert evaluated.samples("flow_policy_baseline_ratio") == {
        (("bound", "above"), ("policy", "p"), ("severity", "")): 2.0,
    }


def test_a_dip_of_a_silent_device_is_unobserved(database: Database, flows: Client) -> None:
    def minute(ago: int, *devices: str) -> None:
        insert(flows, *({"dst_addr": f"10.0.0.{d}", "device": d, "bytes": 750_000, "ago": ago}
                        for d in devices))  # fmt: skip

    minute(10, "1", "2")
    # Both keep quiet about their key, but one is heard otherwise.
    insert(flows, *({"dst_addr": "10.0.9.9", "device": "2", "bytes": 1, "ago": ago}
                    for ago in (-50, -110, -170, -230)))  # fmt: skip
    evaluated = Evaluated(database, policy(minimum=100, **DIPS))
    silent = []
    for after in (0, 60, 60, 60):
        evaluated.evaluate(after)
        silent.append([dict(k)["dst_addr"] for k in evaluated.samples("flow_policy_unobserved")])
    assert silent == [[], [], ["10.0.0.1"], ["10.0.0.1"]]
    assert evaluated.values("dst_addr") == {("10.0.0.1",): 0.0, ("10.0.0.2",): 0.0}
    minute(-235, "1")
    evaluated.evaluate(60)
    assert evaluated.samples("flow_policy_unobserved") == {}


LISTED = """\
lists:
  threats: {file: threats.txt, type: addresses}
  pools: {file: pools.txt, type: names}
policies:
  - name: networks
    dimensions: [dst_addr]
    filter: proto = 17 AND dst_addr IN list('threats')
    measure: bits_per_second
    bounds: {above: {static: 1}}
  - name: others
    dimensions: [dst_addr]
    filter: dst_addr NOT IN list('threats')
    measure: bits_per_second
    bounds: {above: {static: 1}}
  - name: names
    table: dns_queries
    dimensions: [src_addr, dns_name]
    filter: dns_name IN list('pools')
    measure: queries
    bounds: {above: {static: 1}}
"""


def listed(folder: Path, networks: str, names: str = "pool.example\n") -> PolicySet:
    (folder / "policies.yaml").write_text(LISTED)
    (folder / "threats.txt").write_text(networks)
    (folder / "pools.txt").write_text(names)
    return load_policies(folder / "policies.yaml")


def test_a_filter_looks_addresses_up_in_a_list(
    database: Database, flows: Client, tmp_path: Path
) -> None:
    given = listed(
        tmp_path, "# bad\n198.51.100.7 ; one\n203.0.113.0/24\n\n2001:db8:bad::/48 # v6\n"
    )
    inside = ("198.51.100.7", "203.0.113.0", "203.0.113.255", "2001:db8:bad::5")
    outside = ("198.51.100.8", "203.0.112.255", "203.0.114.0", "2001:db8:bae::5")
    insert(flows, *({"dst_addr": addr, "bytes": 7_500} for addr in (*inside, *outside)))
    evaluated = Evaluated(database, given=given)
    evaluated.evaluate()
    assert evaluated.failures() == {}
    found = set(evaluated.values("policy", "dst_addr"))
    assert found == {("networks", a) for a in inside} | {("others", a) for a in outside}


def test_a_name_of_a_list_stands_for_all_below_it(
    database: Database, flows: Client, tmp_path: Path
) -> None:
    given = listed(tmp_path, "192.0.2.1\n", "pool.example\n*.Mine.example\n")
    asked = ("pool.example", "EU.Pool.example.", "carpool.example", "a.b.mine.example", "example")
    for name in asked:
        flows.command(
            "INSERT INTO dns_queries (time_received, src_addr, dns_name) VALUES "
            f"(fromUnixTimestamp64Milli({NOW * 1000 - 5000}), toIPv6('10.0.0.1'), '{name}')"
        )
    evaluated = Evaluated(database, given=given)
    evaluated.evaluate()
    names = {name for (policy_name, name) in evaluated.values("policy", "dns_name")}
    assert names == {"pool.example", "EU.Pool.example.", "a.b.mine.example"}


def test_a_list_that_changes_is_taken_over_and_one_that_breaks_is_not(
    database: Database, flows: Client, tmp_path: Path
) -> None:
    insert(flows, *({"dst_addr": f"10.0.0.{n}", "bytes": 7_500, "ago": ago} for n in (1, 2)
                    for ago in (10, -50, -110)))  # fmt: skip
    evaluated = Evaluated(database, given=listed(tmp_path, "10.0.0.1\n"))

    def keys(networks: str, time_ns: int) -> set[str]:
        file = tmp_path / "threats.txt"
        file.write_text(networks)
        os.utime(file, ns=(time_ns, time_ns))
        evaluated.evaluate(60)
        told = evaluated.values("policy", "dst_addr")
        return {key for (name, key), value in told.items() if name == "networks" and value}

    evaluated.evaluate()
    assert keys("10.0.0.2\n", 10**18) == {"10.0.0.2"}
    assert keys("10.0.0.1\n", 10**18) == {"10.0.0.1"}, "with size and time of the one before"
    assert keys("10.0.0.2\n", 10**18) == {"10.0.0.2"}
    assert keys("10.0.0.1\nnonsense\n", 2 * 10**18) == {"10.0.0.2"}
    failed = evaluated.samples("flow_exporter_policy_list_failures_total")
    assert failed == {(("list", "pools"),): 0.0, (("list", "threats"),): 1.0}


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ("10.0.0.0/8\n10.0.0.1/8\n", r"threats\.txt:2: 10\.0\.0\.1/8 has host bits set"),
        ("10.0.0.1 10.0.0.2\n", r"threats\.txt:1: '10\.0\.0\.2' follows the entry"),
        ("<html>\n", r"threats\.txt:1: '<html>' does not appear"),
        ("# nothing\n", r"threats\.txt: holds no entry"),
    ],
)
def test_a_wrong_list_is_refused_with_file_and_line(
    tmp_path: Path, networks: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"policies\.yaml:2: lists\.threats: .*{said}"):
        listed(tmp_path, networks)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("IN list('threats')", "IN list('threat')", "no list is named 'threat'"),
        ("dst_addr IN list", "src_host IN list", "list 'threats' holds addresses, src_host"),
        ("dst_addr IN list", "proto IN list", "proto holds neither addresses nor names"),
        ("dst_addr IN list", "1 + dst_addr IN list", "a list is written"),
        ("IN list('threats')", "= list('threats')", "a list is written"),
        ("IN list('threats')", "IN list(threats)", "a list is written"),
        ("threats.txt,", "missing.txt,", "missing.txt: No such file"),
    ],
)
def test_a_wrong_use_of_a_list_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    listed(tmp_path, "10.0.0.1\n")
    (tmp_path / "policies.yaml").write_text(LISTED.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_policies(tmp_path / "policies.yaml")
    assert said in str(refused.value)


def test_use_of_an_interface_is_in_percent_of_its_speed(database: Database, flows: Client) -> None:
    flows.command(
        "INSERT INTO flows (time_received, device, in_if, bytes) SELECT "
        f"fromUnixTimestamp64Milli({NOW * 1000 - 5000}), 'edge', number, 75000 FROM numbers(4)"
    )
    watched = policy(measure="share_of_capacity", dimensions=["device", "in_if"])
    speeds = {("edge", 1): 10_000, ("edge", 2): 20_000}
    evaluated = Evaluated(database, watched, speeds=speeds)
    evaluated.evaluate()
    assert evaluated.values("in_if") == {("1",): 100.0, ("2",): 50.0}


def test_who_reported_is_asked_again_when_a_clock_that_was_set_back_comes_to_that_time(
    database: Database, flows: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = Asker(database.connect, 30, ListKeeper({}), SpeedKeeper(dict))
    insert(flows, {"device": "r1"})
    watched = policy(**DIPS)
    assert asker.fresh_devices(watched, NOW) == {"r1"}
    insert(flows, {"device": "r2"})
    assert asker.fresh_devices(watched, NOW) == {"r1"}, "policies of one turn share the answer"
    measured = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: measured() + 61)
    assert asker.fresh_devices(watched, NOW) == {"r1", "r2"}
    asker.disconnect()
