"""The files of alerting/: loaded by the real programs, and in agreement with the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.collector import CollectorProcess
from exporter.config import Config
from exporter.policies.model import load_policies
from exporter.policies.tables import TABLES
from exporter.schema import Kind
from exporter.up.alerting import AlertingFiles, render_alerting
from tests.support.programs import program

ROOT = Path(__file__).resolve().parents[2]
ALERTING = ROOT / "alerting"
RULES = sorted((ALERTING / "rules").glob("*.yml"))
TESTS = sorted((ALERTING / "rules" / "tests").glob("*.yml"))
ALL_RULES: list[dict[str, Any]] = [
    rule
    for file in RULES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in ALL_RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


def run(*command: str) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=["promtool", "PROMTOOL3"])
def promtool(request: pytest.FixtureRequest) -> str:
    """That of the Prometheus which is installed (Debian's: 2), and that of Prometheus 3."""
    if request.param == "promtool":
        return program("promtool")
    tool = os.environ.get("PROMTOOL3")
    if not tool:
        pytest.skip("PROMTOOL3 does not name the promtool of a Prometheus 3")
    return tool


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(file: Path, promtool: str) -> None:
    run(promtool, "test", "rules", str(file))


def test_rules_pass_every_lint(promtool: str) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))


def test_every_rule_has_a_test() -> None:
    tested = "\n".join(file.read_text() for file in TESTS)
    for rule in ALL_RULES:
        name = rule.get("alert") or rule["record"]
        assert re.search(rf"{re.escape(name)}\b", tested), name


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Flow")
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert "{{" not in notes["summary"]
    assert "{{" in notes["description"]
    assert notes["runbook_url"].endswith(f"/reference/alerts/{rule['alert']}.md")
    assert "from={{" in notes["dashboard_url"]
    assert "to={{" in notes["dashboard_url"]
    runbook = ROOT / "docs" / "reference" / "alerts" / f"{rule['alert']}.md"
    assert runbook.read_text().startswith(f"# {rule['alert']}\n")
    assert not any("{{" in str(text) and "$value" in str(text) for text in rule["labels"].values())


def test_every_runbook_is_of_an_alert() -> None:
    assert sorted(file.stem for file in (ROOT / "docs/reference/alerts").glob("*.md")) == NAMES


@pytest.fixture(scope="module")
def told_by_the_collector() -> Iterator[set[str]]:
    config = Config.model_validate(
        {
            "receive": {"udp": [{"port": 0}], "grpc": {"port": 0}, "dnstap": [{"port": 0}]},
            "http": {"port": 0},
            "policies": {},
        }
    )
    with CollectorProcess(config, None) as collector:
        suffixes = {"counter": "_total", "info": "_info"}
        yield {f.name + suffixes.get(f.type, "") for f in collector.registry.collect()}


def test_rules_ask_for_metrics_that_the_collector_tells(told_by_the_collector: set[str]) -> None:
    asked: set[str] = set()
    for rule in ALL_RULES:
        asked |= set(re.findall(r"(?<![:\w])flow_\w+(?![:\w])", rule["expr"]))
    assert asked
    assert asked <= told_by_the_collector


def test_links_give_the_dashboard_variables_that_it_has() -> None:
    uids = {policy.dashboard for policy in load_policies(ALERTING / "policies.yaml").policies}
    boards = {
        board["uid"]: board
        for board in map(json.loads, map(Path.read_text, (ROOT / "grafana").rglob("*.json")))
        if "uid" in board
    }
    for rule in ALERTS:
        url = rule["annotations"]["dashboard_url"]
        named = re.search(r"/d/(flow-[\w-]+)", url)
        wanted = set(re.findall(r"&var-(\w+)=", url))
        for uid in [named.group(1)] if named else sorted(uids):
            has = {variable["name"] for variable in boards[uid]["templating"]["list"]}
            # Of a policy's link, a dashboard about one subject takes the key alone.
            needed = wanted if named or uid == "flow-incident" else {"filters"}
            assert needed <= has, f"{rule['alert']}: {uid}"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> AlertingFiles:
    return render_alerting(
        tmp_path_factory.mktemp("alerting"),
        prometheus="127.0.0.1:19090",
        alertmanager="127.0.0.1:19093",
        collector="127.0.0.1:19105",
        store="127.0.0.1:18123",
        grafana_url="http://127.0.0.1:13000",
    )


def test_both_prometheus_configurations_load(rendered: AlertingFiles, promtool: str) -> None:
    for file in (ALERTING / "prometheus.yml", rendered.prometheus):
        said = run(promtool, "check", "config", str(file))
        assert f"{len(RULES)} rule files found" in said


def test_both_alertmanager_configurations_load(rendered: AlertingFiles) -> None:
    for file in (ALERTING / "alertmanager.yml", rendered.alertmanager):
        run(program("amtool"), "check-config", str(file))


def test_one_machine_names_no_service_of_compose(rendered: AlertingFiles) -> None:
    text = rendered.prometheus.read_text() + rendered.alertmanager.read_text()
    assert set(re.findall(r"[\w.]+:\d{4,5}", text)) == {
        "127.0.0.1:19090", "127.0.0.1:19093", "127.0.0.1:19105", "127.0.0.1:18123",
        "127.0.0.1:13000",
    }  # fmt: skip


def test_a_store_that_is_not_ours_is_not_scraped(tmp_path: Path) -> None:
    files = render_alerting(
        tmp_path,
        prometheus="127.0.0.1:1",
        alertmanager="127.0.0.1:2",
        collector="127.0.0.1:3",
        store="",
        grafana_url="http://127.0.0.1:4",
    )
    jobs = yaml.safe_load(files.prometheus.read_text())["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["exporter", "prometheus", "alertmanager"]


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"team": "network", "severity": "warning"}, "network"),
        ({"team": "network", "severity": "critical"}, "pager,network"),
        ({"team": "security", "severity": "warning"}, "security"),
        ({"team": "security", "severity": "critical"}, "pager,security"),
        ({"team": "security", "severity": "info"}, "security"),
        ({"alertname": "SlowQueries", "severity": "critical"}, "pager,network"),
        ({"alertname": "SlowQueries", "severity": "page"}, "network"),
    ],
)
def test_alerts_are_routed_by_team_and_severity(labels: dict[str, str], receiver: str) -> None:
    given = [f"{name}={value}" for name, value in labels.items()]
    file = str(ALERTING / "alertmanager.yml")
    said = run(program("amtool"), "config", "routes", "test", f"--config.file={file}", *given)
    assert said.strip() == receiver


def test_every_team_of_a_policy_has_a_receiver() -> None:
    receivers = yaml.safe_load((ALERTING / "alertmanager.yml").read_text())["receivers"]
    names = {receiver["name"] for receiver in receivers}
    assert {policy.team for policy in load_policies(ALERTING / "policies.yaml").policies} <= names


def test_inhibition_names_alerts_and_labels_that_exist() -> None:
    rules = yaml.safe_load((ALERTING / "alertmanager.yml").read_text())["inhibit_rules"]
    columns = {name for table in TABLES.values() for name in table.columns}
    labels = columns | {"team", "incident", "bound", "policy", "alertname"}
    for rule in rules:
        assert set(rule.get("equal", [])) <= labels
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            named = re.fullmatch(r'alertname=~?"(.+)"', matcher)
            if named:
                assert set(named.group(1).split("|")) <= set(NAMES)


def test_a_key_is_the_same_when_all_dimensions_are() -> None:
    rules = yaml.safe_load((ALERTING / "alertmanager.yml").read_text())["inhibit_rules"]
    (severities,) = (r for r in rules if 'policy!=""' in r["source_matchers"])
    possible = {
        name
        for table in TABLES.values()
        for name, column in table.columns.items()
        if column.kind not in (Kind.TIME, Kind.FLOAT32, Kind.LABELS, Kind.ADDRESSES)
        and not column.unit
    }
    assert possible <= set(severities["equal"])
    assert {"team", "incident", "bound"} <= set(severities["equal"])


def test_what_inhibits_outlives_what_it_hides() -> None:
    kept = {rule["alert"]: rule.get("keep_firing_for", "0m") for rule in ALERTS}
    below = int(kept["FlowPolicyBelow"].removesuffix("m"))
    for name in (
        "FlowDeviceSilent",
        "FlowInsertsFailing",
        "FlowPolicyEvaluationFailing",
        "FlowPolicyManyBelow",
    ):
        assert int(kept[name].removesuffix("m")) > below


def test_the_message_shows_the_time_around_the_start_of_the_alert(tmp_path: Path) -> None:
    data = {
        "receiver": "network",
        "status": "firing",
        "externalURL": "",
        "groupLabels": {},
        "commonLabels": {"team": "network", "incident": "load"},
        "commonAnnotations": {},
        "alerts": [
            {
                "status": "firing",
                "labels": {
                    "alertname": "FlowPolicyAbove",
                    "severity": "warning",
                    "policy": "host_bits",
                },
                "annotations": {
                    "summary": "Traffic is above the bound of a policy.",
                    "description": "host_bits dst_addr=2001:db8::1: bit/s is 9M. And: more.",
                    "dashboard_url": "http://g/d/e?from=1&to=2&var-since=3&var-measure=bits_per_second",
                    "runbook_url": "docs/runbook.md",
                },
                "startsAt": "2026-03-01T22:18:00Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "",
                "fingerprint": "4fbd9b815eca5508",
            }
        ],
    }
    file = tmp_path / "data.json"

    def rendered() -> str:
        file.write_text(json.dumps(data))
        return run(
            program("amtool"), "template", "render",
            f"--template.glob={ALERTING}/templates/*.tmpl", f"--template.data={file}",
            '--template.text={{ template "flow.title" . }}{{ template "flow.text" . }}',
        )  # fmt: skip

    said = rendered()
    title = "[FIRING:1] network load: Traffic is above the bound of a policy."
    assert f"{title} host_bits dst_addr=2001:db8::1\n" in said
    assert "flow-exporter incidents show 4fbd9b815eca5508" in said
    # 2026-03-01 19:18 to 23:18 UTC.
    link = "http://g/d/e?from=1772392680000&to=1772407080000&var-since=1772403480000"
    assert f"{link}&var-measure=bits_per_second" in said
    data["alerts"] *= 2
    assert "dst_addr=2001:db8::1 (and others)\n" in rendered()


def test_the_holidays_that_the_docs_show_mute_dips_that_are_not_critical(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/planned-changes.md").read_text()
    intervals, route = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    document = yaml.safe_load((ALERTING / "alertmanager.yml").read_text()) | intervals
    document["route"]["routes"][:0] = route
    document["templates"] = []
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(document))
    run(program("amtool"), "check-config", str(file))

    def routes(severity: str) -> str:
        labels = ["alertname=FlowPolicyBelow", f"severity={severity}", "team=network"]
        command = [program("amtool"), "config", "routes", "test", f"--config.file={file}", "--tree"]
        return run(*command, *labels)

    assert "FlowPolicyManyBelow" in routes("warning")
    assert "pager" in routes("critical")
    assert "FlowPolicyManyBelow" not in routes("critical")


def test_the_receivers_that_the_docs_show_are_right(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/send-notifications.md").read_text()
    shown, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    document = yaml.safe_load((ALERTING / "alertmanager.yml").read_text())
    receivers = yaml.safe_load(shown)["receivers"]
    assert [r["name"] for r in receivers] == [r["name"] for r in document["receivers"]]
    document |= {
        "receivers": receivers,
        "templates": [str(ALERTING / name) for name in document["templates"]],
    }
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(document))
    run(program("amtool"), "check-config", str(file))
    defined = set(re.findall(r'define "([\w.]+)"', (ALERTING / "templates/flow.tmpl").read_text()))
    assert set(re.findall(r'template "([\w.]+)"', shown)) <= defined


def test_the_heartbeat_that_the_docs_show_goes_to_its_receiver_alone(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/send-notifications.md").read_text()
    _, rules, switch = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    rule_file = tmp_path / "heartbeat.yml"
    rule_file.write_text(rules)
    run(program("promtool"), "check", "rules", str(rule_file))
    added = yaml.safe_load(switch)
    document = yaml.safe_load((ALERTING / "alertmanager.yml").read_text()) | {"templates": []}
    document["route"]["routes"][:0] = added["route"]["routes"]
    document["receivers"] += added["receivers"]
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(document))
    run(program("amtool"), "check-config", str(file))
    test = [program("amtool"), "config", "routes", "test", f"--config.file={file}"]
    assert run(*test, "alertname=Heartbeat").strip() == "heartbeat"
    assert run(*test, "alertname=FlowCollectorDown", "severity=critical").split() == [
        "pager,network"
    ]
