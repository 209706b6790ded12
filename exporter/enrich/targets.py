"""Names of hosts from what Prometheus scrapes: files of `file_sd` and servers of `http_sd`.

Sources: Prometheus' documentation of `file_sd_config`, `http_sd_config` and "HTTP SD".
"""

from __future__ import annotations

import glob
import ipaddress
import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from operator import is_not
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import ValidationError

from exporter.address import pack_address
from exporter.config import ConfigError, HostTargets, HttpTargets, read_secret
from exporter.config.faults import faults_of, shown
from exporter.config.load import version_of
from exporter.config.name_files import TargetGroup, TargetGroups, load_targets, target_host
from exporter.enrich.fetch import fetch
from exporter.enrich.host_names import HostFacts, Layer
from exporter.metric_families import by_label

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 5.0
_HTTP_TIMEOUT_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 64 << 20
#: Addresses of targets that are names are asked for again after this time.
_RESOLVE_SECONDS: Final = 300.0
#: In one look no further names are resolved after so long: a dead resolver holds up no other names.
_RESOLVE_BUDGET_SECONDS: Final = 2.0
#: More hosts than these are left without names.
MAX_HOSTS: Final = 200_000


@dataclass(slots=True)
class _Origin:
    """A file or a server: its last good groups, and when to look again.

    ``name`` is what metrics and the log call it: URLs may have secrets in them.
    """

    name: str
    groups: Sequence[TargetGroup] = ()
    version: object = None
    due: float = 0.0
    valid: bool = True


@dataclass(slots=True)
class _Resolved:
    until: float
    addresses: tuple[bytes, ...] = field(default=())


class TargetNames(Collector):
    """Keeps a layer of names up to date, in a thread of its own.

    An origin that fails keeps what it last told. A target's name comes from its labels, else from
    the target itself where that is a name; labels ``role`` and ``owner`` are taken over, too.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._settings = HostTargets()
        self._origins: dict[str, _Origin] = {}
        self._resolved: dict[str, _Resolved] = {}
        self._resolve_until = 0.0
        #: The settings, and what each origin told, as they were taken over last.
        self._taken: list[object] = []
        self._errors = Counter({"file": 0, "http": 0, "resolve": 0})
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="targets", daemon=True)

    def configure(self, settings: HostTargets) -> None:
        """Look there from now on."""
        self._settings = settings
        self._changed.set()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a request that is under way is left to itself."""
        self._stop.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_names_target*``."""
        valid = GaugeMetricFamily(
            "flow_exporter_names_target_origin_valid",
            "Whether a file or server of targets told something usable when it was last asked.",
            labels=["origin"],
        )
        targets = GaugeMetricFamily(
            "flow_exporter_names_targets", "Targets of a file or server.", labels=["origin"]
        )
        for origin in list(self._origins.values()):
            valid.add_metric([origin.name], origin.valid)
            targets.add_metric([origin.name], sum(len(group.targets) for group in origin.groups))
        yield from (valid, targets)
        yield by_label(
            CounterMetricFamily, "flow_exporter_names_target_errors",
            "Times that a file or server told nothing usable, or a name had no address.",
            "kind", self._errors,
        )  # fmt: skip

    def look(self) -> None:
        """Ask all origins that are due, and take over what they tell."""
        settings, now = self._settings, time.monotonic()
        files = {name for pattern in settings.files for name in glob.glob(pattern)}  # noqa: PTH207
        servers = {server.url: server for server in settings.http}
        names = {file: file for file in sorted(files)} | _shown(list(servers))
        self._origins = {
            key: self._origins.get(key) or _Origin(name) for key, name in names.items()
        }
        for key, origin in self._origins.items():
            origin.name = names[key]
            try:
                if key in servers:
                    self._ask(origin, servers[key], now)
                else:
                    _read(origin, Path(key))
            except (OSError, ValueError, ConfigError, HTTPException, RecursionError) as error:
                self._errors["http" if key in servers else "file"] += 1
                origin.valid = False
                log.error("%s: what was told before stays in force: %s", origin.name, error)
        # Tens of thousands of targets take a second: not each time for nothing.
        told = [settings, *(origin.groups for origin in self._origins.values())]
        due = any(known.until <= now for known in self._resolved.values())
        if due or len(told) != len(self._taken) or any(map(is_not, told, self._taken)):
            self._layer.replace(self._hosts(now))
            self._taken = told

    def _run(self) -> None:
        while not self._stop.is_set():
            self._changed.clear()
            try:
                self.look()
            except Exception:
                log.exception("targets were not taken over")
            self._changed.wait(_POLL_SECONDS)

    def _ask(self, origin: _Origin, server: HttpTargets, now: float) -> None:
        if now < origin.due:
            return
        origin.due = now + server.refresh_seconds
        secrets = {}
        if server.token_file:
            secrets["Authorization"] = f"Bearer {read_secret(server.token_file, '')}"
        headers = {"Accept": "application/json"}
        body = fetch(server.url, headers, secrets, _HTTP_TIMEOUT_SECONDS, _MAX_ANSWER_BYTES)
        try:
            origin.groups = TargetGroups.model_validate(json.loads(body)).root
        except ValidationError as error:
            place, what = next(faults_of(error, TargetGroups))
            raise ConfigError(f"{shown(place)}: {what}") from error
        origin.valid = True

    def _hosts(self, now: float) -> dict[bytes, HostFacts]:
        hosts: dict[bytes, HostFacts] = {}
        self._resolve_until = time.monotonic() + _RESOLVE_BUDGET_SECONDS
        wanted: set[str] = set()
        for origin in self._origins.values():
            for group in origin.groups:
                labels = group.labels
                told = next((labels[k] for k in self._settings.name_labels if labels.get(k)), "")
                for target in group.targets:
                    host = target_host(target)
                    wanted.add(host)
                    addresses = self._addresses(host, now)
                    name = target_host(told) or ("" if _is_address(host) else host)
                    facts = HostFacts(name, labels.get("role", ""), labels.get("owner", ""))
                    for address in addresses:
                        if len(hosts) < MAX_HOSTS:
                            hosts.setdefault(address, facts)
        for gone in self._resolved.keys() - wanted:
            del self._resolved[gone]
        return hosts

    def _addresses(self, host: str, now: float) -> tuple[bytes, ...]:
        """Addresses of a target; those of before where a name has none at the moment."""
        if _is_address(host):
            return (pack_address(host),)
        known = self._resolved.setdefault(host, _Resolved(0.0))
        in_time = time.monotonic() < self._resolve_until
        if known.until <= now and in_time and not self._stop.is_set():
            known.until = now + _RESOLVE_SECONDS
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
                known.addresses = tuple(
                    sorted({pack_address(str(a[4][0]).partition("%")[0]) for a in found})
                )
            except (OSError, UnicodeError):
                self._errors["resolve"] += 1
        return known.addresses


def _read(origin: _Origin, path: Path) -> None:
    version = version_of(path.stat())
    if version == origin.version:
        return
    origin.version = version
    origin.groups = load_targets(path)
    origin.valid = True


def _shown(urls: Sequence[str]) -> dict[str, str]:
    """URLs without queries, which may hold secrets; those that are then the same are numbered."""
    shown: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for url in urls:
        text = urlsplit(url)._replace(query="", fragment="").geturl()
        seen[text] += 1
        shown[url] = text if seen[text] == 1 else f"{text} ({seen[text]})"
    return shown


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
