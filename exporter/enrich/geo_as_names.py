"""Names of autonomous systems, from the MMDB files and a list of one's own, into ``as_names``."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from exporter.config import ConfigError
from exporter.config.load import read_text, version_at
from exporter.enrich.geo import GeoFiles
from exporter.enrich.storing import Storing
from exporter.metric_families import by_label
from exporter.store.session import Client

log = logging.getLogger(__name__)

#: New names are stored this often.
_STORE_SECONDS: Final = 10.0
#: Those of the files, soon after a start.
_FIRST_SECONDS: Final = 1.0
_NUMBER: Final = re.compile(r"(?:AS)?(\d{1,10})", re.ASCII | re.IGNORECASE)
_KNOWN: Final = "SELECT number, name FROM as_names"


class AsNames(Storing):
    """Stores the names of AS numbers as they come up in flows, in a thread of its own.

    ``list_file`` is a CSV of ``number,name``, whose names win; it is read again when it changes.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(
        self, client_factory: Callable[[], Client], files: GeoFiles, list_file: str = ""
    ) -> None:
        super().__init__("as-names", "names of AS numbers", _STORE_SECONDS, _FIRST_SECONDS)
        self._client_factory = client_factory
        self._files = files
        self._list_file = list_file
        self._state = version_at(list_file) if list_file else None
        self._listed = read_names(list_file) if list_file else {}
        self._stored: dict[int, str] | None = None
        self._valid = True
        self._list_failures = 0

    def store(self) -> None:
        self._look()
        wanted: dict[int, str] = {}
        for file in reversed(self._files.files):
            wanted |= dict(file.names)
        wanted |= self._listed
        if not wanted or (self._stored is not None and wanted.items() <= self._stored.items()):
            return
        with closing(self._client_factory()) as client:
            if self._stored is None:
                self._stored = dict(client.query(_KNOWN).result_rows)
            new = [pair for pair in wanted.items() if self._stored.get(pair[0]) != pair[1]]
            if new:
                client.insert("as_names", new, ["number", "name"])
                self._stored |= dict(new)

    def collect(self) -> Iterator[Metric]:
        """``flow_exporter_as_name*``."""
        yield GaugeMetricFamily(
            "flow_exporter_as_names", "Names of AS numbers in ClickHouse.", len(self._stored or {})
        )
        yield by_label(
            CounterMetricFamily, "flow_exporter_as_name_failures",
            "Times that the list (`list`) could not be used or ClickHouse (`store`) took no names.",
            "of", {"list": self._list_failures, "store": self._failures},
        )  # fmt: skip
        yield by_label(
            GaugeMetricFamily, "flow_exporter_as_name_list_valid",
            "Whether the list as it is now is in force; 0: an older version is.",
            "file", {self._list_file: self._valid} if self._list_file else {},
        )  # fmt: skip

    def _look(self) -> None:
        """Read the list again if it has changed; a broken one leaves the old in force."""
        now = version_at(self._list_file) if self._list_file else None
        if now == self._state:
            return
        self._state = now
        try:
            self._listed = read_names(self._list_file)
            self._valid = True
        except ConfigError as error:
            self._valid = False
            self._list_failures += 1
            log.error("the old names stay in force: %s", error)


def read_names(path: str) -> dict[int, str]:
    """The names in a CSV of ``number,name``; ``AS64496`` is a number, ``#`` begins a comment.

    Raises:
        ConfigError: it cannot be read, or a line is wrong: it is named.
    """
    names: dict[int, str] = {}
    lines = csv.reader(io.StringIO(read_text(Path(path)), newline=""), strict=True)
    try:
        for row in lines:
            if not row or row[0].startswith("#") or (lines.line_num == 1 and row[0] == "number"):
                continue
            number = _NUMBER.fullmatch(row[0].strip())
            if len(row) != 2 or number is None or int(number[1]) >= 1 << 32:
                raise ConfigError(f"{path}:{lines.line_num}: not `number,name`: {row}")
            names[int(number[1])] = row[1].strip()
    except csv.Error as error:
        raise ConfigError(f"{path}:{lines.line_num + 1}: {error}") from error
    return names
