"""Incidents in normal traffic, through the rules as they are: when the alerts begin, and what the
baselines are afterwards.

All keys live through the same eleven days, minute by minute, after four weeks of history. A key
and its *twin* have the same traffic but for the incident.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from exporter.policies.model import Policy, load_policies
from exporter.policies.new_normal import NewNormal, NewNormalCollector
from tests.support.quiet_weeks import DAY, WEEK, quiet_weeks
from tests.support.remote_write import Series
from tests.support.rule_replay import Alerts, Replay, load_rules, replay
from tests.support.tracked import MONDAY, Key, settings, windowed

ALERTING = Path(__file__).resolve().parents[2] / "alerting"
POLICIES = {p.name: p for p in load_policies(ALERTING / "policies.yaml").policies}
# Eleven days from a Thursday on.
FIRST = 4 * WEEK + 3 * DAY
LAST = FIRST + 11 * DAY
# Thursday, 22:15.
INCIDENT = FIRST + 22 * 60 + 15
MINUTES = 40
STATED = INCIDENT + 12 * 60


class World:
    """The keys by name; ``absent`` minutes are not told."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.since: dict[str, int] = {}
        self.absent: dict[str, np.ndarray] = {}

    def add(self, name: str, policy: str, habit: str, peak: float, since: int = 0) -> Key:
        """A key with history since that minute; a name and its twin have the same traffic."""
        seed = sum(name.removesuffix(" twin").encode())
        traffic = quiet_weeks(10, 7, seed)
        at = traffic.habits.index(habit)
        key = Key(
            POLICIES[policy], habit, {"policy": policy, "dst_host": name},
            peak * traffic.values[at], peak * traffic.usual[at],
        )  # fmt: skip
        self.keys[f"{policy} {name}"] = key
        self.since[f"{policy} {name}"] = since
        return key

    def finish(self) -> None:
        """Values cover the window of the policy."""
        for name, key in self.keys.items():
            key.values = windowed(key.values, key.policy.window // 60)
            if key.policy.measure.startswith("unique_"):
                key.values = np.round(key.values)
            key.values[: self.since[name]] = 0


def during(key: Key, factor: float, minutes: int = MINUTES, start: int = INCIDENT) -> None:
    key.values[start : start + minutes] *= factor


def build() -> World:
    world = World()
    # 2: load on an ingest node; one that is known for four weeks, one for five days.
    for name, since in (("fl13", 0), ("fl14", FIRST - 5 * DAY)):
        for policy, peak in (("host_bits", 100e6), ("host_packets", 15e3)):
            during(world.add(name, policy, "evening", peak, since), 6)
            world.add(f"{name} twin", policy, "evening", peak, since)
    # The same again a week later.
    during(world.keys["host_bits fl13"], 6, start=INCIDENT + WEEK)
    # 3: many sources to the aggregation service, and a dip of ingest on the same node.
    world.add("ag04", "service_sources", "sources", 22)
    during(world.keys["service_sources ag04"], 4, 20)
    during(world.add("ag04", "service_dip", "evening", 80e6), 0.2, 20)
    nodes = world.add("workers", "network_internal_bits", "evening", 6e9)
    during(nodes, 6, 20)
    # 4: sources at the NAT and the proxy, and an address that nobody has seen before.
    for name in ("nat", "proxy"):
        during(world.add(name, "gateway_sources", "sources", 40), 2.6, 6 * 60)
    known = world.add("db01", "internal_sources", "steady", 60)
    rogue = world.add("10.0.9.9", "internal_sources", "steady", 200)
    rogue.values = np.maximum(rogue.values, 150)
    world.absent["internal_sources 10.0.9.9"] = np.arange(LAST) < INCIDENT
    assert known.usual.max() < 100
    # A level that changes for good: left alone, and said to be normal after twelve hours.
    for name in ("moved", "moved twin"):
        key = world.add(name, "service_bits", "steady", 500e6)
        key.values[INCIDENT:] *= 4
    # Known to nobody: since this Thursday.
    for habit in ("evening", "office", "batch"):
        world.add(f"cold {habit}", "service_bits", habit, 500e6, FIRST)
        world.add(f"cold {habit}", "service_dip", habit, 80e6, FIRST)
        world.absent[f"service_bits cold {habit}"] = np.arange(LAST) < FIRST
        world.absent[f"service_dip cold {habit}"] = np.arange(LAST) < FIRST
    # A quarter of the time is missing, twenty minutes here and there.
    world.add("gaps", "service_dip", "evening", 80e6)
    world.absent["service_dip gaps"] = np.random.default_rng(1).random(LAST // 20) < 0.25
    world.absent["service_dip gaps"] = np.repeat(world.absent["service_dip gaps"], 20)
    world.finish()
    return world


@dataclass
class Past:
    world: World
    replay: Replay
    alerts: Alerts

    def firing(self, policy: str, name: str) -> np.ndarray:
        """The minutes in which an alert of the key fired."""
        minutes = np.zeros(LAST - FIRST, np.bool_)
        for labels, fired in self.alerts.firing():
            if labels.get("dst_host") == name and labels["policy"] == policy:
                minutes |= fired
        return np.flatnonzero(minutes) + FIRST

    def delay(self, policy: str, name: str, start: int = INCIDENT) -> int:
        """Minutes from the first unusual value to the alert."""
        fired = self.firing(policy, name)
        return int(fired[fired >= start][0] - start)

    def band(self, edge: str, policy: str, name: str, minute: int) -> tuple[float, str]:
        """An edge of the key's band, and where the baseline is from."""
        at = MONDAY + minute * 60
        matchers = f'policy="{policy}",dst_host="{name}"'
        (found,) = self.replay.prometheus.query(
            f"key:flow_policy_baseline:{edge}{{{matchers}}}", at
        )
        return float(found["value"][1]), found["metric"]["baseline"]


def told(world: World) -> Iterator[Series]:
    for name, key in world.keys.items():
        series = key.told(FIRST, LAST)
        if name in world.absent:
            there = ~world.absent[name][FIRST:LAST]
            # A key that is not told is stale to Prometheus: here it has expired from the look-back.
            series = Series(series.labels, series.times[there], series.values[there])
        yield series


def stated(world: World) -> Iterator[Series]:
    """What the collector tells after `policies new-normal service_bits dst_host=moved`."""
    level = world.keys["service_bits moved"].values[INCIDENT:STATED]
    entry = NewNormal(
        policy="service_bits",
        key={"dst_host": "moved"},
        since=np.datetime64(MONDAY + INCIDENT * 60, "s").item().isoformat() + "Z",
        p05=np.quantile(level, 0.05),
        p50=np.quantile(level, 0.5),
        p95=np.quantile(level, 0.95),
    )
    times = MONDAY + np.arange(STATED, LAST) * 60
    for family in NewNormalCollector([entry], lambda: float(times[0])).collect():
        for sample in family.samples:
            values = np.full(len(times), sample.value)
            yield Series({"__name__": sample.name, **sample.labels}, times, values)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    world = build()
    used: list[Policy] = list({key.policy.name: key.policy for key in world.keys.values()}.values())
    rules = load_rules(ALERTING / "rules" / "baselines.yml", ALERTING / "rules" / "policies.yml")
    # What the weeks and days say changes every five minutes only; one look in five is enough.
    rules = [
        replace(rule, seconds=300)
        if rule.seconds == 60 and rule.name.startswith("key:flow_policy_baseline:")
        else rule
        for rule in rules
    ]
    with replay(tmp_path_factory.mktemp("replay")) as replayed:
        replayed.write(
            series
            for name, key in world.keys.items()
            if name not in world.absent or name == "service_dip gaps"
            for series in key.hours(world.since[name], FIRST)
        )
        replayed.write(settings(used, FIRST, LAST))
        replayed.write(told(world))
        replayed.write(stated(world))
        alerts = replayed.run(rules, MONDAY + FIRST * 60, MONDAY + LAST * 60)
        yield Past(world, replayed, alerts)


@pytest.mark.parametrize("host", ["fl13", "fl14"])
def test_a_load_spike_on_a_node_alarms_within_two_minutes(past: Past, host: str) -> None:
    for policy in ("host_bits", "host_packets"):
        assert past.delay(policy, host) <= 2
        fired = past.firing(policy, host)
        assert len(fired[fired < INCIDENT + DAY]) in range(MINUTES, MINUTES + 12)
        assert past.firing(policy, f"{host} twin").size == 0


def test_many_sources_a_dip_and_a_sum_of_nodes_alarm_within_six_minutes(past: Past) -> None:
    # The window of the sources is five minutes long, and a dip must last for five of ten.
    assert past.delay("service_sources", "ag04") <= 5
    assert past.delay("service_dip", "ag04") <= 5
    assert past.delay("network_internal_bits", "workers") <= 3


def test_more_sources_at_nat_and_proxy_and_at_a_new_address_alarm_within_six_minutes(
    past: Past,
) -> None:
    assert past.delay("gateway_sources", "nat") <= 6
    assert past.delay("gateway_sources", "proxy") <= 6
    # It has no baseline: more sources than the highest that is known.
    assert past.delay("internal_sources", "10.0.9.9") <= 3
    assert past.firing("internal_sources", "db01").size == 0


@pytest.mark.parametrize(
    ("host", "days", "known"),
    [
        # Tomorrow and next week, of one that is known for weeks.
        ("fl13", 1, "weeks"), ("fl13", 7, "weeks"),
        # And of one known for days, whose next day looks at the incident's hour.
        ("fl14", 1, "days"), ("fl14", 4, "days"), ("fl14", 7, "days"),
    ],
)  # fmt: skip
def test_an_incident_does_not_become_what_is_usual(
    past: Past, host: str, days: int, known: str
) -> None:
    for minute in range(0, MINUTES, 10):
        at = INCIDENT + days * DAY + minute
        for edge in ("lower", "typical", "upper"):
            found = past.band(edge, "host_bits", host, at)
            expected = past.band(edge, "host_bits", f"{host} twin", at)
            assert found == (pytest.approx(expected[0], rel=0.15), known)
            assert expected[1] == known


def test_the_same_incident_a_week_later_alarms_as_fast(past: Past) -> None:
    assert past.delay("host_bits", "fl13", INCIDENT + WEEK) <= 2


def test_a_level_that_stays_alarms_until_somebody_says_that_it_is_normal(past: Past) -> None:
    assert past.delay("service_bits", "moved twin") <= 6
    forever = past.firing("service_bits", "moved twin")
    assert forever[-1] == LAST - 1
    stated = past.firing("service_bits", "moved")
    assert stated[0] == forever[0]
    # Within four minutes the rules know; the alert is kept for five more.
    assert stated[-1] in range(STATED, STATED + 14)
    # It was said for eight days; from then on the days since know.
    for days, known in ((1, "stated"), (7, "stated"), (9, "days")):
        at = INCIDENT + days * DAY
        usual = past.world.keys["service_bits moved"].usual[at] * 4
        typical = past.band("typical", "service_bits", "moved", at)
        assert typical == (pytest.approx(usual, rel=0.25), known)


@pytest.mark.parametrize("habit", ["evening", "office", "batch"])
def test_a_key_that_is_new_is_quiet_until_it_is_known_and_then(past: Past, habit: str) -> None:
    name = f"cold {habit}"
    assert past.firing("service_bits", name).size == 0
    assert past.firing("service_dip", name).size == 0
    noon = FIRST + 12 * 60
    # Friday has only Thursday; a weekend is not judged by weekdays.
    for day in (0, 1, 2, 3):
        with pytest.raises(ValueError, match="not enough values"):
            past.band("upper", "service_bits", name, noon + day * DAY)
    # Monday has Thursday and Friday; the next Saturday the first weekend.
    for day in (4, 5, 9):
        assert past.band("upper", "service_bits", name, noon + day * DAY)[1] == "days"


def test_a_weekend_is_not_compared_with_weekdays(past: Past) -> None:
    noon = FIRST + 12 * 60
    thursday, _ = past.band("typical", "service_bits", "cold office", noon + 7 * DAY)
    saturday, _ = past.band("typical", "service_bits", "cold office", noon + 9 * DAY)
    assert saturday < thursday / 5


def test_a_key_that_is_told_in_pieces_has_its_band_and_is_quiet(past: Past) -> None:
    assert past.firing("service_dip", "gaps").size == 0
    key = past.world.keys["service_dip gaps"]
    there = np.flatnonzero(~past.world.absent["service_dip gaps"][LAST - DAY : LAST]) + LAST - DAY
    for minute in there[:: len(there) // 8]:
        typical, known = past.band("typical", "service_dip", "gaps", int(minute))
        assert known == "weeks"
        assert typical == pytest.approx(key.usual[minute], rel=0.4)
