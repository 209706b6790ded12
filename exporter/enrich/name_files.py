"""Devices, networks and hosts from files that are read again when they change.

A new version that is wrong changes nothing: the last good one stays in force, and the fault is
logged, counted, and shown until it is mended. So it is where a name or pattern finds no file any
more. A file that goes while others of its pattern are there was taken away: it is forgotten, which
is logged and counted.
"""

from __future__ import annotations

import glob
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.config import Config, ConfigError, Device, Host, Network
from exporter.config.load import FileVersion, version_of
from exporter.config.name_files import load_devices, load_hosts, load_networks

log = logging.getLogger(__name__)

#: Kind of file, with the setting that lists such files, and what reads them.
_KINDS: Final[dict[str, tuple[str, Callable[[Path], Sequence[Any]]]]] = {
    "devices": ("device_files", load_devices),
    "networks": ("network_files", load_networks),
    "hosts": ("host_files", load_hosts),
}


@dataclass(slots=True)
class _File:
    """One file: its last good content, what was last seen of it, and what of the configuration
    names it."""

    pattern: str
    entries: Sequence[Any] = ()
    version: FileVersion | None = None
    loaded_at: float = 0.0
    fault: str = ""


@dataclass(slots=True)
class _Kind:
    files: dict[Path, _File] = field(default_factory=dict)
    errors: int = 0
    forgotten: int = 0


class NameFiles(Collector):
    """The files that a configuration names. :meth:`read` is for one thread at a time."""

    def __init__(self) -> None:
        self._kinds = {kind: _Kind() for kind in _KINDS}

    def read(self, config: Config) -> frozenset[str]:
        """Read what is new or has changed; the kinds whose content is another than before."""
        changed = set()
        for name, kind in self._kinds.items():
            setting, load = _KINDS[name]
            patterns: list[str] = getattr(config, setting)
            found = _matching(patterns)
            missing = self._missing(name, kind, patterns, found)
            if kind.files.keys() - found.keys() - missing.keys():
                changed.add(name)
            there = {
                path: kind.files.get(path) or _File(pattern) for path, pattern in found.items()
            }
            for path, file in there.items():
                file.pattern = found[path]
                if self._read(kind, path, file, load):
                    changed.add(name)
            kind.files = dict(sorted((there | missing).items()))
        return frozenset(changed)

    def merged(self, config: Config) -> Config:
        """The configuration with what the files add; where both know something, it wins."""
        devices: dict[str, Device] = {d.address: d for d in config.devices}
        for device in self._entries("devices"):
            devices.setdefault(device.address, device)
        hosts: dict[str, Host] = {h.address: h for h in config.hosts}
        for host in self._entries("hosts"):
            hosts.setdefault(host.address, host)
        networks: dict[str, Network] = {}
        # Of equal prefixes the last one counts: that of the configuration.
        for network in (*self._entries("networks"), *config.networks):
            known = networks.pop(network.name, None)
            if known is not None:
                prefixes = [*known.prefixes, *network.prefixes]
                network = network.model_copy(update={"prefixes": prefixes})
            networks[network.name] = network
        return config.model_copy(
            update={
                "devices": [*devices.values()],
                "hosts": [*hosts.values()],
                "networks": [*networks.values()],
            }
        )

    @property
    def count(self) -> int:
        """How many files there are."""
        return sum(len(kind.files) for kind in self._kinds.values())

    def faults(self) -> list[str]:
        """What is wrong with the files that are not in force."""
        return [f.fault for kind in self._kinds.values() for f in kind.files.values() if f.fault]

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_names_file_*``."""
        prefix = "flow_exporter_names_file_"
        labels = ["kind", "file"]
        valid = GaugeMetricFamily(
            prefix + "valid",
            "Whether the file as it is now is in force; 0: an older version is, or none.",
            labels=labels,
        )
        entries = GaugeMetricFamily(
            prefix + "entries", "Devices, networks or hosts of the file.", labels=labels
        )
        loaded = GaugeMetricFamily(
            prefix + "loaded_timestamp_seconds",
            "When the version that is in force was read.",
            labels=labels,
        )
        errors = CounterMetricFamily(
            prefix + "errors",
            "Versions of files that were not taken over because they are wrong.",
            labels=["kind"],
        )
        forgotten = CounterMetricFamily(
            "flow_exporter_names_files_forgotten",
            "Files that are gone while others of their pattern are there.",
            labels=["kind"],
        )
        for name, kind in self._kinds.items():
            errors.add_metric([name], kind.errors)
            forgotten.add_metric([name], kind.forgotten)
            for path, file in list(kind.files.items()):
                valid.add_metric([name, str(path)], not file.fault)
                entries.add_metric([name, str(path)], len(file.entries))
                loaded.add_metric([name, str(path)], file.loaded_at)
        yield from (valid, entries, loaded, errors, forgotten)

    def _entries(self, kind: str) -> Iterator[Any]:
        for file in self._kinds[kind].files.values():
            yield from file.entries

    @staticmethod
    def _missing(
        name: str, kind: _Kind, patterns: Sequence[str], found: Mapping[Path, str]
    ) -> dict[Path, _File]:
        """Files that are gone and yet stay in force; those that do not are told."""
        missing = {}
        for path, file in kind.files.items():
            if path in found or file.pattern not in patterns:
                continue
            if file.pattern in found.values():
                kind.forgotten += 1
                log.warning("%s is gone: its %d %s are forgotten", path, len(file.entries), name)
                continue
            missing[path] = file
            if file.version is not None:
                file.version = None
                file.fault = f"{path}: nothing is there any more that {file.pattern!r} names"
                kind.errors += 1
                log.error("the version before stays in force: %s", file.fault)
        return missing

    def _read(
        self, kind: _Kind, path: Path, file: _File, load: Callable[[Path], Sequence[Any]]
    ) -> bool:
        try:
            version = version_of(path.stat())
            if version == file.version:
                return False
            file.version = version
            entries = load(path)
        except (OSError, ConfigError) as error:
            file.fault = str(error)
            kind.errors += 1
            log.error("the version before stays in force: %s", error)
            return False
        file.fault = ""
        file.loaded_at = time.time()
        different = entries != file.entries
        file.entries = entries
        return different


def _matching(patterns: Sequence[str]) -> dict[Path, str]:
    """The files that are there, with the first pattern that each matches."""
    found: dict[Path, str] = {}
    for pattern in patterns:
        for name in sorted(glob.glob(pattern)):  # noqa: PTH207
            found.setdefault(Path(name), pattern)
    return found
