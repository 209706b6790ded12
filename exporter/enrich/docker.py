"""Names of containers by their addresses, from a Docker engine, as containers come and go.

Source: Docker Engine API, ``GET /containers/json``, ``/containers/{id}/json`` and ``/events``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from exporter import config
from exporter.address import pack_address
from exporter.config import ConfigError
from exporter.config.sources import metric_label
from exporter.enrich.host_names import HostFacts, Layer

log = logging.getLogger(__name__)

#: More containers than this are left without names.
MAX_CONTAINERS: Final = 10_000
_TIMEOUT_SECONDS: Final = 10.0
#: After a failure the engine is asked again in this time, doubled each time up to the longest.
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 60.0

_SERVICE: Final = "com.docker.compose.service"
_PROJECT: Final = "com.docker.compose.project"
#: Events after which a container may have another name or other addresses.
_EVENTS: Final = {
    "type": ["container", "network"],
    "event": ["start", "die", "destroy", "rename", "connect", "disconnect"],
}


@dataclass(frozen=True, slots=True)
class Container:
    """A running container; ``addresses`` are packed, ``labels`` are those that were asked for."""

    name: str
    image: str
    service: str
    project: str
    addresses: tuple[bytes, ...]
    labels: tuple[str, ...]


class DockerNames(Collector):
    """Follows an engine in a thread of its own and keeps a layer of names up to date.

    An engine that is not there, or goes away, is asked again and again; meanwhile the names stay
    as they were.

    Raises:
        ConfigError: the package for it is not installed.
    """

    def __init__(self, settings: config.Docker, layer: Layer) -> None:
        self._settings = settings
        self._layer = layer
        self._containers: dict[str, Container] = {}
        self._connected = False
        self._failures = 0
        self._events = 0
        self._stop = threading.Event()
        self._stream: _Stream | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="docker", daemon=True)
        _package()

    def start(self) -> None:
        """Begin to follow the engine."""
        self._thread.start()

    def stop(self) -> None:
        """End; an engine that does not answer is not waited for."""
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_docker_*``."""
        prefix = "flow_exporter_docker_"
        yield GaugeMetricFamily(
            prefix + "connected", "Whether the engine's events are followed.", self._connected
        )
        yield CounterMetricFamily(
            prefix + "failures", "Times that the engine was not there or went.", self._failures
        )
        yield CounterMetricFamily(
            prefix + "events", "Events that made a container looked at again.", self._events
        )
        info = InfoMetricFamily(
            prefix + "container",
            "What runs; always 1.",
            labels=["container", "service", "project", "image"]
            + [metric_label(label) for label in self._settings.labels],
        )
        for one in list(self._containers.values()):
            info.add_metric([one.name, one.service, one.project, one.image, *one.labels], {})
        yield info

    def _run(self) -> None:
        wait = _FIRST_RETRY_SECONDS
        while not self._stop.is_set():
            try:
                self._follow()
            except Exception as error:
                # The package raises its own errors, requests', urllib3's and those of sockets.
                if self._stop.is_set():
                    break
                if self._connected:
                    wait = _FIRST_RETRY_SECONDS
                    log.warning("the Docker engine went away: %s", error)
                elif not self._failures:
                    log.info("no Docker engine at %s yet: %s", self._settings.url, error)
                self._failures += 1
            self._connected = False
            self._stop.wait(wait)
            wait = min(2 * wait, _LONGEST_RETRY_SECONDS)

    def _follow(self) -> None:
        """Know all containers, then what changes, until the engine ends it."""
        engine: _Engine = _package().APIClient(
            base_url=self._settings.url, version="auto", timeout=_TIMEOUT_SECONDS
        )
        try:
            # First the events: what changes while the containers are listed must not be missed.
            stream = engine.events(decode=True, filters=_EVENTS)
            with self._lock:
                self._stream = stream
            self._know(engine.containers())
            self._connected = True
            log.info("following the Docker engine at %s", self._settings.url)
            for event in stream:
                if self._stop.is_set():
                    return
                self._look_again(engine, event)
            raise ConnectionError("its events ended")
        finally:
            with self._lock:
                self._stream = None
            engine.close()

    def _know(self, listed: Iterable[Mapping[str, Any]]) -> None:
        found: dict[str, Container] = {}
        for one in listed:
            if len(found) >= MAX_CONTAINERS:
                log.warning("more than %d containers: the others get no names", MAX_CONTAINERS)
                break
            name = next(iter(one.get("Names") or []), one["Id"][:12])
            found[one["Id"]] = self._container(name, one.get("Image", ""), one.get("Labels"), one)
        self._containers = found
        self._layer.replace(self._facts(found.values()))

    def _look_again(self, engine: _Engine, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        of_network = event.get("Type") == "network"
        identity = attributes.get("container") if of_network else actor.get("ID")
        if not identity:
            return
        self._events += 1
        before = self._containers.get(identity)
        now = self._inspect(engine, identity)
        if now is None:
            self._containers.pop(identity, None)
        elif before is not None or len(self._containers) < MAX_CONTAINERS:
            self._containers[identity] = now
        gone = set(before.addresses if before else ()) - set(now.addresses if now else ())
        # An address may have gone to another container before this event was read, or be another's,
        # too, in a network of its own.
        named = [one for one in self._containers.values() if gone.intersection(one.addresses)]
        self._layer.remove(gone.difference(*(one.addresses for one in named)))
        self._layer.update(self._facts([*named, now] if now is not None else named))

    def _inspect(self, engine: _Engine, identity: str) -> Container | None:
        """The container, if it is there and runs."""
        try:
            found = engine.inspect_container(identity)
        except _package().errors.NotFound:
            return None
        if not (found.get("State") or {}).get("Running"):
            return None
        settings = found.get("Config") or {}
        return self._container(
            found.get("Name") or identity[:12], settings.get("Image", ""), settings.get("Labels"),
            found,
        )  # fmt: skip

    def _container(
        self,
        name: str,
        image: str,
        labels: Mapping[str, str] | None,
        described: Mapping[str, Any],
    ) -> Container:
        networks = (described.get("NetworkSettings") or {}).get("Networks") or {}
        told = (
            (network or {}).get(field)
            for network in networks.values()
            for field in ("IPAddress", "GlobalIPv6Address")
        )
        labels = labels or {}
        return Container(
            name.removeprefix("/"), image, labels.get(_SERVICE, ""), labels.get(_PROJECT, ""),
            tuple(dict.fromkeys(pack_address(address) for address in told if address)),
            tuple(labels.get(label, "") for label in self._settings.labels),
        )  # fmt: skip

    def _facts(self, containers: Iterable[Container]) -> dict[bytes, HostFacts]:
        facts: dict[bytes, HostFacts] = {}
        for one in containers:
            by_service = self._settings.name == "service" and one.service
            known = HostFacts(one.service if by_service else one.name, one.service, one.project)
            facts |= dict.fromkeys(one.addresses, known)
        return facts


class _Stream(Protocol):
    """Events of an engine."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def close(self) -> None:
        """End the iteration, from any thread."""


class _Engine(Protocol):
    """What is used of :class:`docker.APIClient`."""

    def containers(self) -> list[Mapping[str, Any]]: ...

    def inspect_container(self, container: str) -> Mapping[str, Any]: ...

    def events(self, *, decode: bool, filters: Mapping[str, Any]) -> _Stream: ...

    def close(self) -> None: ...


def _package() -> Any:
    """The package ``docker``, which is optional."""
    try:
        import docker
    except ImportError as error:
        raise ConfigError("docker: needs `pip install '.[docker]'` in the checkout") from error
    return docker
