"""Countries and autonomous systems of both ends of a flow, from MMDB files."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter import config
from exporter.batch import FlowBatch
from exporter.config import ConfigError
from exporter.config.load import version_at
from exporter.distinct import distinct
from exporter.enrich.geo_mmdb import MmdbFile, country_text
from exporter.enrich.texts import Texts
from exporter.metric_families import by_label

log = logging.getLogger(__name__)


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
        states = {path: version_at(path) for path in settings.files}
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
                now = version_at(path)
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
        with self._lock:
            families: list[Metric] = [
                by_label(
                    GaugeMetricFamily, prefix + "valid",
                    "Whether the file as it is now is in force; 0: an older version is.",
                    "file", {path: path not in self._broken for path in self._files},
                ),
                by_label(
                    CounterMetricFamily, prefix + "failures",
                    "New versions of a file that could not be used; the old one stayed in force.",
                    "file", self._failures,
                ),
                by_label(
                    GaugeMetricFamily, prefix + "timestamp_seconds",
                    "When the version in force was read, since the epoch.",
                    "file", self._read_at,
                ),
                by_label(
                    GaugeMetricFamily, prefix + "memory_bytes", "Memory of the version in force.",
                    "file", {path: file.bytes for path, file in self._files.items()},
                ),
            ]  # fmt: skip
        yield from families


class GeoSearch:
    """What the files in force know, each asked for what those before it do not."""

    def __init__(self, files: GeoFiles) -> None:
        self._source = files
        #: The last answer: both facts ask for the same addresses, one after the other.
        self._asked: tuple[NDArray[np.uint8], tuple[MmdbFile, ...]] | None = None
        self._found = np.zeros(0, np.uint32), np.zeros(0, np.uint32)

    @property
    def version(self) -> int:
        """Another one when a file was read again."""
        return self._source.version

    def find(self, addresses: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """As :meth:`MmdbFile.find`; for one thread."""
        files = self._source.files
        if self._asked is None or self._asked[0] is not addresses or self._asked[1] != files:
            systems = np.zeros(len(addresses), np.uint32)
            countries = np.zeros(len(addresses), np.uint32)
            for file in files:
                system, country = file.find(addresses)
                systems = np.where(systems == 0, system, systems)
                countries = np.where(countries == 0, country, countries)
            self._asked, self._found = (addresses, files), (systems, countries)
        return self._found


class SystemFact:
    """Fills ``src_as`` and ``dst_as``.

    Where a device tells an AS number it is kept, unless ``prefer_device_as`` is off: then it is
    kept where the files have none.
    """

    def __init__(self, search: GeoSearch, *, prefer_device_as: bool) -> None:
        self._search = search
        self._version = search.version
        self._prefer_device_as = prefer_device_as

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The AS number, 0 where none is known."""
        return self._search.find(addresses)[0]

    def changed(self) -> Sequence[bytes] | None:
        """All addresses, when a file was read again."""
        seen, self._version = self._version, self._search.version
        return () if seen == self._version else None

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add the AS of one end."""
        name = f"{side}_as"
        if name not in batch.columns:
            batch.columns[name] = numbers
            return
        told = batch.array(name)
        first, second = (told, numbers) if self._prefer_device_as else (numbers, told)
        batch.columns[name] = np.where(first == 0, second, first)


class CountryFact:
    """Fills ``src_country`` and ``dst_country``."""

    def __init__(self, search: GeoSearch) -> None:
        self._search = search
        self._version = search.version
        self._texts = Texts()
        #: By the two letters as a number, that of the text.
        self._numbers = np.zeros(1 << 16, np.uint32)

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The number of the country, 0 where none is known."""
        letters = self._search.find(addresses)[1]
        numbers = self._numbers.take(letters)
        new = np.flatnonzero((numbers == 0) & (letters != 0))
        if len(new):
            for country in distinct(letters[new])[1].tolist():
                self._numbers[country] = self._texts.number(country_text(country))
            numbers = self._numbers.take(letters)
        return numbers

    def changed(self) -> Sequence[bytes] | None:
        """All addresses, when a file was read again."""
        seen, self._version = self._version, self._search.version
        return () if seen == self._version else None

    def fill(self, batch: FlowBatch, side: str, numbers: NDArray[np.uint32]) -> None:
        """Add the country of one end."""
        batch.columns[f"{side}_country"] = self._texts.column(numbers)
