"""What the real Alertmanager sends by alerting/alertmanager.yml, and how templates render it."""

from __future__ import annotations

import json
import queue
import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import program, running
from tests.support.stack import free_port, until
from tests.support.webhooks import webhook

ALERTING = Path(__file__).resolve().parents[2] / "alerting"
Notification = dict[str, Any]


class Alertmanager:
    """A running Alertmanager, with what it sent."""

    def __init__(self, url: str, sent: queue.Queue[Notification]) -> None:
        self._url = url
        self._sent = sent

    def fire(self, *alerts: dict[str, str], ended: bool = False) -> None:
        """Post alerts as Prometheus does."""
        # Of an alert older than a group's wait, Alertmanager tells at once: of the first of several
        # that come together, before it has seen the others. These are never old.
        now = datetime.now(UTC)
        start = now - timedelta(minutes=1) if ended else now + timedelta(minutes=10)
        end = now if ended else now + timedelta(minutes=30)
        body = [
            {
                "labels": labels,
                "annotations": {"summary": "Traffic is above the bound of a policy."},
                "startsAt": start.isoformat(),
                "endsAt": end.isoformat(),
            }
            for labels in alerts
        ]
        request = urllib.request.Request(
            f"{self._url}/api/v2/alerts",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request):
            pass

    def next(self) -> Notification:
        """The next notification."""
        return self._sent.get(timeout=300)

    def groups(self) -> list[str]:
        """The receivers of all groups of alerts: each is one notification."""
        with urllib.request.urlopen(f"{self._url}/api/v2/alerts/groups") as answer:
            return sorted(group["receiver"]["name"] for group in json.load(answer))

    def active(self) -> list[dict[str, str]]:
        """The labels of alerts that are neither silenced nor inhibited."""
        query = "active=true&silenced=false&inhibited=false"
        with urllib.request.urlopen(f"{self._url}/api/v2/alerts?{query}") as answer:
            return [alert["labels"] for alert in json.load(answer)]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    document = yaml.safe_load((ALERTING / "alertmanager.yml").read_text())
    document["templates"] = [str(ALERTING / "templates" / "*.tmpl")]
    sent: queue.Queue[Notification] = queue.Queue()
    port = free_port(socket.SOCK_STREAM)
    with webhook(sent.put) as address:
        # As it is, but that nobody waits.
        for route in (document["route"], *document["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        text = yaml.safe_dump(document).replace("http://exporter:9105", address)
        config = tmp_path / "alertmanager.yml"
        config.write_text(text)
        command = [
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={config}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        url = f"http://127.0.0.1:{port}"
        with running(command, tmp_path / "log", f"{url}/-/ready"):
            yield Alertmanager(url, sent)


def alert(policy: str, **labels: str) -> dict[str, str]:
    """The labels of a policy's alert."""
    return {
        "alertname": "FlowPolicyAbove", "policy": policy, "bound": "above", "severity": "warning",
        "team": "network", "incident": "load", "dashboard": "flow-incident", **labels,
    }  # fmt: skip


def test_three_alarms_of_a_rogue_host_are_one_notification_with_the_keys_apart(
    alertmanager: Alertmanager,
) -> None:
    rogue = {"team": "security", "incident": "rogue"}
    alertmanager.fire(
        alert("gateway_sources", dst_addr="10.0.0.1", dst_host="nat", **rogue),
        alert("gateway_sources", dst_addr="10.0.0.2", dst_host="proxy", **rogue),
        alert("internal_sources", dst_addr="10.0.9.9", **rogue),
        # Another incident meanwhile, and the same at another site.
        alert("host_bits", dst_addr="10.0.0.3"),
        alert("gateway_sources", dst_addr="10.2.0.1", site="other", **rogue),
    )
    told = {
        (n["receiver"], n["groupLabels"].get("site")): [
            a["labels"]["dst_addr"] for a in n["alerts"]
        ]
        for n in (alertmanager.next() for _ in range(3))
    }
    assert set(told) == {("network", None), ("security", None), ("security", "other")}
    assert sorted(told["security", None]) == ["10.0.0.1", "10.0.0.2", "10.0.9.9"]
    assert alertmanager.groups() == ["network", "security", "security"]


def test_the_end_of_each_alert_is_told(alertmanager: Alertmanager) -> None:
    first, second = alert("host_bits", dst_host="a"), alert("host_bits", dst_host="b")
    alertmanager.fire(first, second)

    def told() -> tuple[str, dict[str, str]]:
        notification = alertmanager.next()
        by_host = {a["labels"]["dst_host"]: a["status"] for a in notification["alerts"]}
        return notification["status"], by_host

    assert told() == ("firing", {"a": "firing", "b": "firing"})
    alertmanager.fire(first, ended=True)
    assert told() == ("firing", {"a": "resolved", "b": "firing"})
    alertmanager.fire(second, ended=True)
    assert told() == ("resolved", {"b": "resolved"})


@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_an_alert_of_an_application_joins_the_incident_that_it_names(
    alertmanager: Alertmanager, severity: str
) -> None:
    alertmanager.fire(
        alert("service_sources", dst_host="ag04", dst_service="aggregation"),
        {"alertname": "SlowQueries", "severity": severity, "team": "network", "incident": "load"},
    )
    told = [alertmanager.next() for _ in range(2 if severity == "critical" else 1)]
    by_receiver = {n["receiver"]: n["alerts"] for n in told}
    assert len(by_receiver["network"]) == 2
    if severity == "critical":
        assert [a["labels"]["alertname"] for a in by_receiver["pager"]] == ["SlowQueries"]


def test_the_worst_alert_of_a_key_hides_the_lesser_and_not_those_of_others(
    alertmanager: Alertmanager,
) -> None:
    lesser = alert("host_bits", src_host="a")
    others = [
        alert("host_bits", src_host="b"),
        alert("host_bits", src_host="a", dst_service="web"),
        alert("host_bits", src_host="a", bound="below"),
        alert("host_bits", src_host="a", incident="other"),
    ]
    worst = alert("host_packets", src_host="a", severity="critical")
    others.append(alert("host_bits", src_host="a", dns_type="MX"))
    alertmanager.fire(worst, lesser, *others)
    seen = {n["receiver"]: n for n in (alertmanager.next() for _ in range(3))}
    assert set(seen) == {"pager", "network"}
    until("what is hidden", 30, lambda: lesser not in alertmanager.active())
    active = alertmanager.active()
    assert all(other in active for other in [worst, *others])


@pytest.mark.parametrize(
    ("source", "hidden", "kept"),
    [
        (
            {"alertname": "FlowDeviceSilent", "device": "sw1"},
            [{"alertname": "FlowPolicyBelow", "device": "sw1"}],
            [
                {"alertname": "FlowPolicyBelow", "device": "sw2"},
                {"alertname": "FlowPolicyAbove", "device": "sw1"},
            ],
        ),
        (
            {"alertname": "FlowInsertsFailing", "instance": "i"},
            [
                {"alertname": "FlowPolicyBelow", "device": "sw1"},
                {"alertname": "FlowPolicyManyBelow", "policy": "p"},
            ],
            [{"alertname": "FlowPolicyAbove", "device": "sw1"}],
        ),
        (
            {"alertname": "FlowCollectorDown", "instance": "i"},
            [{"alertname": "FlowPolicyBelow", "device": "sw1"}],
            [{"alertname": "FlowPolicyAbove", "device": "sw1"}],
        ),
        (
            # A warning, which pages nobody, hides no other policy's dips.
            {"alertname": "FlowPolicyEvaluationFailing", "policy": "p"},
            [
                {"alertname": "FlowPolicyBelow", "policy": "p", "dst_host": "a"},
                {"alertname": "FlowPolicyManyBelow", "policy": "p"},
            ],
            [
                {"alertname": "FlowPolicyBelow", "policy": "q", "dst_host": "a"},
                {"alertname": "FlowPolicyManyBelow", "policy": "r"},
            ],
        ),
        (
            {"alertname": "FlowPolicyManyBelow", "policy": "p", "severity": "warning"},
            [{"alertname": "FlowPolicyBelow", "policy": "p", "dst_host": "a"}],
            [
                {"alertname": "FlowPolicyBelow", "policy": "q", "dst_host": "a"},
                {"alertname": "FlowPolicyAbove", "policy": "p", "dst_host": "a"},
                {
                    "alertname": "FlowPolicyBelow",
                    "policy": "p",
                    "dst_host": "b",
                    "severity": "critical",
                },
            ],
        ),
        (
            {"alertname": "FlowPolicyManyBelow", "policy": "p", "severity": "critical"},
            [
                {"alertname": "FlowPolicyBelow", "policy": "p", "dst_host": "a"},
                {
                    "alertname": "FlowPolicyBelow",
                    "policy": "p",
                    "dst_host": "b",
                    "severity": "critical",
                },
            ],
            [
                {
                    "alertname": "FlowPolicyBelow",
                    "policy": "q",
                    "dst_host": "b",
                    "severity": "critical",
                },
            ],
        ),
    ],
    ids=["device", "inserts", "collector", "evaluation", "many", "most"],
)
def test_a_cause_hides_what_follows_from_it(
    alertmanager: Alertmanager,
    source: dict[str, str],
    hidden: list[dict[str, str]],
    kept: list[dict[str, str]],
) -> None:
    alertmanager.fire(source, *hidden, *kept)
    alertmanager.next()
    shown = [source, *kept]
    until("what is shown", 30, lambda: all(each in alertmanager.active() for each in shown))
    until("what is hidden", 30, lambda: not any(a in alertmanager.active() for a in hidden))
    assert all(labels in alertmanager.active() for labels in shown)


def test_a_notification_repeated_later_has_the_same_links(tmp_path: Path) -> None:
    """Links tell the time around the start, whenever the template is rendered."""

    data = {
        "receiver": "network", "status": "firing", "externalURL": "", "groupLabels": {},
        "commonLabels": {"team": "security", "incident": "rogue"}, "commonAnnotations": {},
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "FlowPolicyAbove", "severity": severity, "dst_host": host},
                "annotations": {
                    "summary": "Traffic is above the bound of a policy.",
                    "description": f"sources dst_host={host}",
                    "dashboard_url": f"http://g/d/e?from={now}&to={now}&var-since={now}&var-node={host}",
                },
                "startsAt": "2026-03-01T22:18:00Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "", "fingerprint": host,
            }
            for now, severity, host in ((1, "critical", "nat"), (2, "warning", "proxy"),
                                        (3, "warning", "10.0.9.9"))
        ],
    }  # fmt: skip
    file = tmp_path / "data.json"
    file.write_text(json.dumps(data))
    done = subprocess.run(
        [
            program("amtool"), "template", "render",
            f"--template.glob={ALERTING}/templates/*.tmpl", f"--template.data={file}",
            '--template.text={{ template "flow.title" . }}{{ template "flow.text" . }}',
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "[FIRING:3] security rogue" in done.stdout
    links = re.findall(r"Open in dashboard: (\S+)", done.stdout)
    # 2026-03-01 19:18 to 23:18 UTC.
    times = "from=1772392680000&to=1772407080000&var-since=1772403480000"
    assert links == [f"http://g/d/e?{times}&var-node={h}" for h in ("nat", "proxy", "10.0.9.9")]
    for text in ("(critical)", "(warning)", "dst_host=nat", "dst_host=proxy", "dst_host=10.0.9.9"):
        assert text in done.stdout
