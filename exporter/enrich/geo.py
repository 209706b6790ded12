"""Countries and autonomous systems of both ends of a flow, from MMDB files."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter import config
from exporter.batch import FlowBatch
from exporter.config import ConfigError
from exporter.distinct import distinct
from exporter.enrich.address_index import AddressIndex
from exporter.enrich.geo_mmdb import MmdbFile, country_text
from exporter.enrich.texts import Texts

log = logging.getLogger(__name__)

#: Pairs of AS and country that have come up, above which they are numbered anew.
_MAX_PAIRS: Final = 1_000_000

State = tuple[int, int, int] | None


class GeoFiles(Collector):
    """The files that are in force, read again when they are replaced.

    A new version that cannot be used is counted and told; the old one stays in force.

    Raises:
        ConfigError: a file cannot be used when it is to be read first.
    """

    def __init__(self, settings: config.Geo) -> None:
        self.version = 0
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._settings: config.Geo | None = None
        self.configure(settings)

    @property
    def files(self) -> tuple[MmdbFile, ...]:
        """Those in force, best first."""
        return tuple(self._files.values())

    def configure(self, settings: config.Geo) -> None:
        """Use these files.

        Raises:
            ConfigError: one cannot be used; everything stays as it was.
        """
        if settings == self._settings:
            return
        states = {path: state_of(path) for path in settings.files}
        with self._lock:
            self._files = {path: MmdbFile(path) for path in settings.files}
            self._states = states
            self._read_at = dict.fromkeys(states, time.time())
            self._failures = {path: self._failures.get(path, 0) for path in states}
            self._broken: set[str] = set()
            self._settings = settings
            self.version += 1

    def look(self) -> None:
        """Read what has changed; to be called every few seconds."""
        with self._lock:
            for path, before in list(self._states.items()):
                now = state_of(path)
                if now == before:
                    continue
                self._states[path] = now
                try:
                    self._files = self._files | {path: MmdbFile(path)}
                except ConfigError as error:
                    self._failures[path] += 1
                    self._broken.add(path)
                    log.error("the old version stays in force: %s", error)
                    continue
                self._broken.discard(path)
                self._read_at[path] = time.time()
                self.version += 1
                log.info("%s was read again", path)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_geo_*``."""
        prefix = "flow_exporter_geo_file_"
        valid = GaugeMetricFamily(
            prefix + "valid",
            "Whether the file as it is now is in force; 0: an older version is.",
            labels=["file"],
        )
        failures = CounterMetricFamily(
            prefix + "failures",
            "New versions of a file that could not be used; the old one stayed in force.",
            labels=["file"],
        )
        read = GaugeMetricFamily(
            prefix + "timestamp_seconds",
            "When the version in force was read, since the epoch.",
            labels=["file"],
        )
        memory = GaugeMetricFamily(
            prefix + "memory_bytes", "Memory of the version in force.", labels=["file"]
        )
        with self._lock:
            for path, number in self._failures.items():
                memory.add_metric([path], self._files[path].bytes)
                valid.add_metric([path], path not in self._broken)
                failures.add_metric([path], number)
                read.add_metric([path], self._read_at[path])
        yield valid
        yield failures
        yield read
        yield memory


def state_of(path: str) -> State:
    """What tells versions of a file apart; ``None`` where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class GeoFact:
    """Fills ``src_country`` and ``dst_country``, and ``src_as`` and ``dst_as``.

    Where a device tells an AS number it is kept, unless ``prefer_device_as`` is off: then it is
    kept where the files have none.
    """

    _systems: NDArray[np.uint32]
    _countries: NDArray[np.uint32]

    def __init__(self, files: GeoFiles, *, prefer_device_as: bool) -> None:
        self._source = files
        self._prefer_device_as = prefer_device_as
        self._take_over()

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The number of the pair of AS and country; 0 where neither is known."""
        systems = np.zeros(len(addresses), np.uint32)
        countries = np.zeros(len(addresses), np.uint32)
        for file in self._files:
            system, country = file.find(addresses)
            systems = np.where(systems == 0, system, systems)
            countries = np.where(countries == 0, country, countries)
        return self._number(systems.astype(np.uint64) << np.uint64(16) | countries)

    def changed(self) -> Sequence[bytes] | None:
        """All addresses, when a file was read again."""
        if self._version == self._source.version and len(self._systems) < _MAX_PAIRS:
            return ()
        self._take_over()
        return None

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add what is known of one end."""
        batch.columns[f"{side}_country"] = self._texts.column(self._countries[numbers])
        found = self._systems[numbers]
        told = batch.array(f"{side}_as")
        first, second = (told, found) if self._prefer_device_as else (found, told)
        batch.columns[f"{side}_as"] = np.where(first == 0, second, first)

    def _number(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The numbers of pairs, which may be new ones: each is ``AS << 16 | country``."""
        numbers = self._numbers.find([keys])
        new = np.flatnonzero((numbers == 0) & (keys != 0))
        if len(new):
            _, pairs = distinct(keys[new])
            first = len(self._systems)
            self._numbers.add([pairs], np.arange(first, first + len(pairs), dtype=np.uint32))
            self._systems = np.append(self._systems, (pairs >> np.uint64(16)).astype(np.uint32))
            codes, countries = distinct(pairs.astype(np.uint16))
            texts = [self._texts.number(country_text(country)) for country in countries.tolist()]
            self._countries = np.append(self._countries, np.array(texts, np.uint32)[codes])
            numbers[new] = self._numbers.find([keys[new]])
        return numbers

    def _take_over(self) -> None:
        self._version = self._source.version
        self._files = self._source.files
        self._numbers = AddressIndex(np.uint64)
        self._texts = Texts()
        #: AS and country (as a text) of each pair; the first is that of neither.
        self._systems = self._countries = np.zeros(1, np.uint32)
