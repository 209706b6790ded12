"""`flow-exporter policies` and `flow-exporter incidents` against the real store."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from exporter.cli import app
from exporter.config import ConfigError
from exporter.incidents.alert import Observation, fingerprint
from exporter.incidents.recorder import AlertRecorder
from exporter.policies.new_normal import (
    NewNormal,
    NewNormalCollector,
    add_new_normal,
    load_new_normals,
)
from tests.support.database import Database
from tests.support.stack import until

POLICIES = """\
policies:
  - name: hosts
    dimensions: [dst_addr, dst_host]
    measure: bits_per_second
    window: 1m
    bounds: {above: {static: 1000}}
"""
WIDE = {"COLUMNS": "300"}


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Path:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    file = tmp_path / "flow-exporter.yaml"
    clickhouse = {
        "url": database.settings.url,
        "user": database.settings.user,
        "password_file": database.settings.password_file,
    }
    file.write_text(
        yaml.safe_dump({"clickhouse": clickhouse, "policies": {"file": "policies.yaml"}})
    )
    return file


def run(*arguments: str, code: int = 0) -> str:
    """Everything that the command prints."""
    result = CliRunner().invoke(app, list(arguments), env=WIDE)
    assert result.exit_code == code, result.output
    return result.output


def test_list_shows_bounds_and_routing(config: Path) -> None:
    said = run("policies", "list", "--config", str(config))
    assert "hosts" in said
    assert "above 1,000" in said
    assert "network" in said


def test_check_tells_what_clickhouse_would_refuse(config: Path) -> None:
    assert run("policies", "check", "--config", str(config)).startswith("ok: 1 policies in ")
    wrong = config.parent / "wrong.yaml"
    wrong.write_text(POLICIES + "    filter: dst_port = 'x'\n")
    said = run("policies", "check", "--config", str(config), "--file", str(wrong), code=2)
    assert said.startswith(f"{wrong}:7: policy hosts: ")
    said = run("policies", "check", "--offline", "--file", str(wrong))
    assert said == f"ok: 1 policies in {wrong}\n"


def test_check_tells_file_and_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(POLICIES.replace("dst_host", "dst_hots"))
    said = run("policies", "check", "--offline", "--file", str(wrong), code=2)
    assert said.startswith(f"{wrong}:3: policies.0.dimensions: ")


def test_check_tells_that_clickhouse_is_away(tmp_path: Path) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text("clickhouse: {url: 'http://127.0.0.1:9'}\n")
    assert "cannot be reached" in run("policies", "check", "--config", str(config), code=1)


def test_evaluate_shows_the_keys_of_now(database: Database, config: Path) -> None:
    client = database.connect()
    client.command(
        "INSERT INTO flows (time_received, dst_addr, dst_host, bytes) "
        "SELECT now64(3) - 30 + 60 * number, toIPv6('10.0.1.13'), 'fl13', 75000000 "
        "FROM numbers(60)"
    )
    client.close()
    said = run("policies", "evaluate", "hosts", "--config", str(config))
    assert "10.0.1.13" in said
    assert "fl13" in said
    assert "10,000,000" in said
    keys = json.loads(run("policies", "evaluate", "hosts", "--json", "--config", str(config)))
    assert {"dst_addr": "10.0.1.13", "dst_host": "fl13", "value": 10_000_000} in keys
    assert "no policy is named 'x': hosts" in run(
        "policies", "evaluate", "x", "--config", str(config), code=2
    )


def test_evaluate_shows_pinned_keys_without_traffic_too(config: Path, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned.yaml"
    pinned.write_text(POLICIES + "    pin: [{dst_addr: 192.0.2.77, dst_host: quiet}]\n")
    arguments = ("policies", "evaluate", "hosts", "--file", str(pinned), "--config", str(config))
    shown = [line.split() for line in run(*arguments).splitlines()]
    assert ["192.0.2.77", "quiet", "0"] in shown
    keys = json.loads(run(*arguments, "--json"))
    assert keys[-1] == {"dst_addr": "192.0.2.77", "dst_host": "quiet", "value": 0}


def test_incidents_are_listed_and_shown(database: Database, config: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    firing, ended = (
        {"alertname": "FlowPolicyAbove", "severity": "critical", "policy": "hosts", "dst_addr": key}
        for key in ("10.0.1.13", "10.0.1.14")
    )
    recorder = AlertRecorder(database.connect)
    recorder.start()
    for labels, ends in ((firing, None), (ended, now - timedelta(minutes=5))):
        seen = Observation(
            fingerprint=fingerprint(labels),
            labels=labels,
            annotations={"description": "more than usual"},
            starts_at=now - timedelta(hours=1),
            ends_at=ends,
            resolved=ends is not None,
            generator_url="",
            source="prometheus" if ends else "webhook",
            seen_at=now,
        )
        recorder.offer([seen])
    recorder.stop()
    said = until("both", 30, lambda: run("incidents", "list", "--config", str(config)))
    assert "2 alerts" in said
    assert "dst_addr=10.0.1.13" in said
    assert "55 minutes" in said
    only = run("incidents", "list", "--firing", "--config", str(config))
    assert "1 alerts" in only
    assert "10.0.1.14" not in only
    shown = run("incidents", "show", fingerprint(firing)[:8], "--config", str(config))
    assert "description: more than usual" in shown
    assert shown.rstrip().endswith("to now")
    listed = json.loads(run("incidents", "list", "--json", "--config", str(config)))
    assert {row["fingerprint"] for row in listed} == {fingerprint(firing), fingerprint(ended)}
    told = json.loads(
        run("incidents", "show", fingerprint(ended), "--json", "--config", str(config))
    )
    assert [time["status"] for time in told["times"]] == ["resolved"]
    assert told["evidence"] == []
    assert "no alert has" in run("incidents", "show", "zz", "--config", str(config), code=1)


def test_the_present_level_of_a_key_becomes_its_new_normal(
    database: Database, config: Path
) -> None:
    client = database.connect()
    client.command(
        "INSERT INTO flows (time_received, dst_addr, dst_host, bytes) "
        "SELECT now64(3) - 30 * number, toIPv6(concat('10.0.2.', toString(number % 2))), 'ag', "
        "7500000 FROM numbers(480)"
    )
    client.close()
    settings = yaml.safe_load(config.read_text())
    settings["policies"]["new_normal_file"] = "said.yaml"
    config.write_text(yaml.safe_dump(settings))
    arguments = ["policies", "new-normal", "hosts", "--config", str(config)]
    assert "2 keys match: dst_addr=10.0.2." in run(*arguments, "dst_host=ag", code=2)
    said = run(*arguments, "dst_host=other", code=2)
    assert said.startswith("hosts told no such key in the last")
    assert "`flow-exporter policies evaluate hosts`" in said
    for hours in ("2", "3"):
        said = run(*arguments, "dst_addr=10.0.2.1", "--hours", hours)
    assert "usual is 1,000,000 bit/s, from 1,000,000 to 1,000,000" in said
    (entry,) = load_new_normals(config.parent / "said.yaml")
    assert (entry.policy, entry.key) == ("hosts", {"dst_addr": "10.0.2.1", "dst_host": "ag"})
    assert timedelta(hours=3) < datetime.now(UTC) - entry.since < timedelta(hours=3, minutes=30)

    collector = NewNormalCollector([entry])
    told = {
        (s.name, s.labels.get("quantile")): s.value for f in collector.collect() for s in f.samples
    }
    assert told[("flow_policy_new_normal", "0.5")] == 1_000_000
    assert told[("flow_policy_new_normal_timestamp_seconds", None)] == entry.since.timestamp()
    later = NewNormalCollector([entry], clock=lambda: time.time() + 22 * 86400)
    told_later = [sample for family in later.collect() for sample in family.samples]
    assert [sample.name for sample in told_later] == ["flow_exporter_policy_new_normals_idle"]


def test_a_wrong_new_normal_is_refused_with_its_line(config: Path) -> None:
    file = config.parent / "new-normal.yaml"
    assert load_new_normals(file) == []
    file.write_text(
        "new_normal:\n  - policy: hosts\n    key: {nothing: x}\n"
        "    since: 2026-01-01T00:00:00Z\n    p05: 1\n    p50: 1\n    p95: 1\n"
    )
    with pytest.raises(ConfigError, match=r"new-normal\.yaml:3: .*no column is named 'nothing'"):
        load_new_normals(file)
    checked = run("check", "--offline", "--config", str(config), code=2)
    assert "no column is named 'nothing'" in checked


def test_a_new_normal_of_no_policy_or_dimension_is_told_with_its_line(config: Path) -> None:
    file = config.parent / "new-normal.yaml"
    now = datetime.now(UTC)
    said = [
        ("hosts", {"dst_addr": "10.0.0.1"}, now),
        ("host_bits", {"dst_addr": "10.0.0.1"}, now),
        ("hosts", {"dst_addr": "10.0.0.1", "dst_network": "lab"}, now),
        ("forgotten", {"dst_addr": "10.0.0.1"}, now - timedelta(days=23)),
    ]
    for policy, key, since in said:
        add_new_normal(file, NewNormal(policy=policy, key=key, since=since, p05=1, p50=2, p95=3))
    lines = file.read_text().splitlines()
    checked = run("check", "--offline", "--config", str(config))
    warnings = [line for line in checked.splitlines() if "this new normal does nothing" in line]
    unknown = lines.index("- policy: host_bits") + 1
    by_network = next(at for at, line in enumerate(lines) if "dst_network" in line)
    assert warnings == [
        f"warning: {file}:{unknown}: no policy is named 'host_bits': this new normal does nothing",
        f"warning: {file}:{by_network - 1}: policy hosts has no dimension 'dst_network':"
        " this new normal does nothing",
    ]


def test_a_key_of_dns_queries_can_have_a_new_normal(tmp_path: Path) -> None:
    file = tmp_path / "new-normal.yaml"
    key = {"dns_name": "a.example", "dns_type": "AAAA"}
    new = NewNormal(policy="names", key=key, since=datetime.now(UTC), p05=1, p50=2, p95=3)
    add_new_normal(file, new)
    assert load_new_normals(file) == [new]
