"""Names that the configuration gives no more: what had one has not stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Final

from exporter.policies.keys import Row

#: Other collectors go on giving a name for so long, until they have read the configuration, too.
_GRACE_SECONDS: Final = 60

#: No window reaches back so far, the wait for its flows included.
_FORGET_SECONDS: Final = 2 * 3600

#: Columns with the names of services and of networks.
SERVICES: Final = ("service", "src_service", "dst_service")
NETWORKS: Final = ("src_network", "dst_network")

#: Names by the column that shows them.
Names = Mapping[str, Set[str]]


class GoneNames:
    """The names that went, and when, in seconds since the epoch.

    Flows of before have them still, so windows that reach back do, too: a key would be picked up
    once more, to read 0 from then on. With the first :meth:`replace`, at the start, all names went
    that are not known then: the configuration before had given them.
    """

    def __init__(self) -> None:
        self._known: Names = {}
        self._began: float | None = None
        self._gone: dict[tuple[str, str], float] = {}

    def replace(self, known: Names, now: float) -> dict[str, set[str]]:
        """From ``now`` on flows get the ``known`` names; those that went with this."""
        went = {
            column: set(names - known.get(column, set())) for column, names in self._known.items()
        }
        self._known = known
        if self._began is None:
            self._began = now
        self._gone = {
            (column, name): at
            for (column, name), at in self._gone.items()
            if name not in known.get(column, set()) and now - at < _FORGET_SECONDS
        }
        for column, names in went.items():
            self._gone.update(dict.fromkeys(((column, name) for name in names), now))
        return went

    def left_out(self, rows: Iterable[Row], start: float) -> list[Row]:
        """The rows of a window from ``start`` on, less those of names that went since."""
        since = {place for place, at in self._gone.items() if start < at + _GRACE_SECONDS}
        early = self._began is not None and start < self._began + _GRACE_SECONDS
        return [
            row
            for row in rows
            if since.isdisjoint(row.labels.items()) and not (early and self._strange(row))
        ]

    def _strange(self, row: Row) -> bool:
        return any(
            text and column in self._known and text not in self._known[column]
            for column, text in row.labels.items()
        )
