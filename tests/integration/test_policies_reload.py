"""New policies while the collector runs: taken over, or refused with file, line and reason."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.support.collector import RunningCollector
from tests.support.programs import program
from tests.support.stack import until
from tests.support.store import running_store

POLICIES = """\
policies:
  - name: hosts
    dimensions: [dst_addr]
    filter: proto = 6
    measure: bits_per_second
    window: 5s
    interval: 5s
    pin: [{dst_addr: 10.0.0.1}]
    bounds: {above: {static: 1000}, below: {static: 1}}
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCollector]:
    folder = tmp_path_factory.mktemp("collector")
    (folder / "policies.yaml").write_text(POLICIES)
    settings = {"policies": {"file": str(folder / "policies.yaml")}}
    with (
        running_store() as store,
        RunningCollector(folder, store, "flow", settings) as running,
    ):
        yield running


def evaluations(collector: RunningCollector, policy: str) -> float:
    return collector.metric("flow_exporter_policy_evaluations_total", policy=policy)


def test_metrics_are_named_as_prometheus_wants_them(collector: RunningCollector) -> None:
    until("an evaluation", 60, lambda: evaluations(collector, "hosts") > 0)
    told = collector.get("/metrics")[1]
    assert "flow_policy_breach_needed{" in told
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=told, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[dst_addr]", "[dst_adr]", ":3: policies.0.dimensions: "),
        ("static: 1}", "static: 2000}", "above.static must be more than below.static"),
        ("proto = 6", "proto = 6 OR (", ":4: policies.0.filter: "),
        # What only ClickHouse knows.
        ("proto = 6", "dst_port = 'x'", ":4: policy hosts: "),
        ("proto = 6", "bytes", ":4: policy hosts: filter: is UInt64, not true or false"),
    ],
)
def test_what_is_wrong_is_refused_with_file_line_and_reason_and_the_running_ones_go_on(
    collector: RunningCollector, old: str, new: str, said: str
) -> None:
    file = collector.file.parent / "policies.yaml"
    assert POLICIES.count(old) == 1
    file.write_text(POLICIES.replace(old, new))
    status, text = collector.get("/-/reload", method="POST")
    assert status == 500
    assert str(file) in text
    assert said in text
    assert collector.metric("flow_exporter_config_last_reload_successful") == 0
    before = evaluations(collector, "hosts")
    until("the next evaluation", 60, lambda: evaluations(collector, "hosts") > before)
    assert 'flow_policy_value{dst_addr="10.0.0.1",policy="hosts"} 0' in collector.get("/metrics")[1]


def test_what_is_sound_is_evaluated_from_then_on(collector: RunningCollector) -> None:
    file = collector.file.parent / "policies.yaml"
    file.write_text(POLICIES.replace("name: hosts", "name: others"))
    assert collector.get("/-/reload", method="POST") == (200, "reloaded\n")
    until("an evaluation", 60, lambda: evaluations(collector, "others") > 0)
    assert evaluations(collector, "hosts") == 0


def test_a_new_normal_of_a_policy_that_goes_is_counted_and_told(
    collector: RunningCollector,
) -> None:
    file = collector.file.parent / "policies.yaml"
    said = file.with_name("new-normal.yaml")
    file.write_text(POLICIES)
    since = datetime.now(UTC).isoformat()
    said.write_text(
        "new_normal:\n  - policy: hosts\n    key: {dst_addr: 10.0.0.1}\n"
        f"    since: {since}\n    p05: 1\n    p50: 1\n    p95: 1\n"
    )
    assert collector.get("/-/reload", method="POST")[0] == 200
    assert collector.metric("flow_exporter_policy_new_normals_idle") == 0
    file.write_text(POLICIES.replace("name: hosts", "name: addresses"))
    assert collector.get("/-/reload", method="POST")[0] == 200
    assert collector.metric("flow_exporter_policy_new_normals_idle") == 1
    assert f"{said}:2: no policy is named 'hosts'" in collector.log.read_text()
    said.unlink()
    assert collector.get("/-/reload", method="POST")[0] == 200
    assert collector.metric("flow_exporter_policy_new_normals_idle") == 0
