"""Containers get names as they come and go, by the Engine's HTTP API over a Unix socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import exporter.enrich.docker
from exporter.address import pack_address
from exporter.config import ConfigError, Docker
from exporter.enrich.docker import DockerNames
from exporter.enrich.host_names import HostFacts, HostNames
from tests.support.docker_engine import FakeEngine
from tests.support.stack import until

COMPOSE = {"com.docker.compose.service": "web", "com.docker.compose.project": "shop"}


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter.enrich.docker, "_FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(exporter.enrich.docker, "_LONGEST_RETRY_SECONDS", 0.05)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        yield engine


class Following:
    """Names that follow an engine."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.hosts = HostNames()
        self.names = DockerNames(Docker(url=url, **settings), self.hosts.layer("docker"))

    def facts(self, address: str) -> HostFacts | None:
        return self.hosts.find([pack_address(address)])[0]

    def name(self, address: str) -> str:
        facts = self.facts(address)
        return facts.name if facts else ""

    def metric(self, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in self.names.collect()
            for sample in family.samples
            if sample.name == f"flow_exporter_docker_{name}"
            and labels.items() <= sample.labels.items()
        )


@contextmanager
def following(url: str, *, connected: bool = True, **settings: Any) -> Iterator[Following]:
    made = Following(url, **settings)
    made.names.start()
    try:
        if connected:
            until("the engine is followed", 60, lambda: made.metric("connected"))
        yield made
    finally:
        made.names.stop()


def test_containers_that_run_already_have_names(engine: FakeEngine) -> None:
    engine.run("shop-web-1", "172.18.0.2", "2001:db8::2", labels=COMPOSE, image="nginx:1.27")
    engine.run("plain", "172.17.0.2")
    with following(engine.url) as found:
        web = HostFacts("shop-web-1", "web", "shop")
        assert found.facts("172.18.0.2") == found.facts("2001:db8::2") == web
        assert found.name("172.17.0.2") == "plain"
        labels = {"container": "shop-web-1", "service": "web", "project": "shop"}
        assert found.metric("container_info", image="nginx:1.27", **labels) == 1
    # One list, not a question per container.
    assert engine.requests == ["/version", "/events", "/containers/json"]


def test_a_host_can_be_named_by_its_service(engine: FakeEngine) -> None:
    engine.run("shop-web-1", "172.18.0.2", labels=COMPOSE)
    engine.run("plain", "172.17.0.2")
    with following(engine.url, name="service") as found:
        assert (found.name("172.18.0.2"), found.name("172.17.0.2")) == ("web", "plain")


def test_labels_that_are_asked_for_are_told(engine: FakeEngine) -> None:
    engine.run("first", "172.18.0.2", labels={"org.example/team": "data", "other": "x"})
    with following(engine.url, labels=["org.example/team"]) as found:
        engine.run("second", "172.18.0.3", labels={"org.example/team": "web"})
        engine.run("plain", "172.18.0.4")
        until("all came", 60, lambda: found.name("172.18.0.4"))
        for name, team in (("first", "data"), ("second", "web"), ("plain", "")):
            labels = {"container": name, "label_org_example_team": team}
            assert found.metric("container_info", **labels) == 1
    with pytest.raises(ValueError, match="twice"):
        Docker(labels=["org.example/team", "org.example.team"])


def test_containers_come_and_go(engine: FakeEngine) -> None:
    with following(engine.url) as found:
        first = engine.run("first", "172.18.0.2")
        until("a container came", 60, lambda: found.name("172.18.0.2") == "first")
        engine.rename(first, "renamed")
        until("it has another name", 60, lambda: found.name("172.18.0.2") == "renamed")
        engine.connect(first, "172.19.0.9")
        until("it is in one more network", 60, lambda: found.name("172.19.0.9") == "renamed")
        engine.kill(first)
        until("it went", 60, lambda: not found.name("172.18.0.2"))
        assert not found.name("172.19.0.9")
        assert found.metric("container_info") == 0
        engine.remove(first)
        second = engine.run("second", "172.18.0.2")
        until("its address came back", 60, lambda: found.name("172.18.0.2") == "second")
        engine.remove(second)
        until("removed without an end", 60, lambda: not found.name("172.18.0.2"))


def test_an_address_that_has_moved_on_is_not_taken_away_by_a_late_event(engine: FakeEngine) -> None:
    with following(engine.url) as found:
        old = engine.run("old", "172.18.0.2")
        until("it came", 60, lambda: found.name("172.18.0.2") == "old")
        engine.containers[old] |= {"Running": False, "Networks": {}}
        engine.run("new", "172.18.0.2")
        until("another has its address", 60, lambda: found.name("172.18.0.2") == "new")
        engine.emit("container", "die", old)
        engine.run("last", "172.18.0.3")
        until("later events were read", 60, lambda: found.name("172.18.0.3") == "last")
        assert found.name("172.18.0.2") == "new"


def test_an_address_of_two_containers_stays_the_others_when_one_goes(engine: FakeEngine) -> None:
    with following(engine.url) as found:
        engine.run("one", "172.18.0.2")
        other = engine.run("other", "172.18.0.2")
        until("the last one has it", 60, lambda: found.name("172.18.0.2") == "other")
        engine.kill(other)
        until("it went", 60, lambda: found.name("172.18.0.2") == "one")


def test_no_engine_is_no_error_and_one_that_comes_later_is_followed(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    with following(f"unix://{socket}", connected=False) as found:
        until("it was tried again", 60, lambda: found.metric("failures_total") > 2)
        assert found.metric("connected") == 0
        with FakeEngine(socket) as engine:
            engine.run("web", "172.18.0.2", tell=False)
            until("the engine came", 60, lambda: found.name("172.18.0.2") == "web")


def test_names_stay_while_the_engine_is_away_and_are_made_anew_after(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    with FakeEngine(socket) as engine:
        engine.run("stays", "172.18.0.2")
        engine.run("goes", "172.18.0.3")
        before = dict(engine.containers)
        with following(engine.url) as found:
            engine.__exit__()
            until("the engine went away", 60, lambda: not found.metric("connected"))
            assert found.metric("failures_total") > 0
            assert found.name("172.18.0.3") == "goes"
            engine.containers = {key: one for key, one in before.items() if one["Name"] == "/stays"}
            engine.__enter__()
            until("it came back", 60, lambda: found.metric("connected"))
            assert (found.name("172.18.0.2"), found.name("172.18.0.3")) == ("stays", "")


def test_stopping_does_not_wait_for_the_engine(engine: FakeEngine) -> None:
    with following(engine.url) as found:
        thread = found.names._thread
    assert not thread.is_alive()
    until("the stream was left", 60, lambda: engine.followers == 0 or engine.run("x", "172.18.0.4"))


def test_there_are_not_more_names_than_bounds_allow(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter.enrich.docker, "MAX_CONTAINERS", 2)
    for number in range(3):
        engine.run(f"c{number}", f"172.18.0.{number + 2}")
    with following(engine.url) as found:
        assert [bool(found.name(f"172.18.0.{n}")) for n in (2, 3, 4)] == [True, True, False]


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(ConfigError, match=r"\.\[docker\]"):
        Following("unix:///nowhere")
