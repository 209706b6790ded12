"""Keeps lists current: reads their files again when they change, and brings them to ClickHouse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from exporter.config.load import FileVersion, version_at
from exporter.policies.lists import ListError, LoadedList, PolicyList, read_list
from exporter.policies.model import Policy
from exporter.store.session import Client

log = logging.getLogger(__name__)

_COLUMNS: Final = ("version", "length", "addr", "name", "stored_at")

#: The table forgets after a week what nobody has stored again.
_RENEW_SECONDS: Final = 86400.0
_OLDEST_SECONDS: Final = 3 * 86400.0

_COUNT: Final = """SELECT uniqExact(length, addr, name)
FROM policy_lists
WHERE version = {version:UInt64} AND stored_at > fromUnixTimestamp({after:UInt32})"""


@dataclass(slots=True)
class ListState:
    """A list, and how reading it fares; ``read_at`` is in seconds since the epoch."""

    loaded: LoadedList
    read_at: float
    failures: int = 0
    file_version: FileVersion | None = None


class ListKeeper:
    """The lists of policies.yaml as their files are now.

    A file that has become unusable is told and counted, and the list as it was goes on.
    """

    def __init__(
        self, lists: Mapping[str, PolicyList], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._files: dict[str, PolicyList] = {}
        self._states: dict[str, ListState] = {}
        self._stored: dict[int, float] = {}
        self.replace(lists)

    @property
    def lists(self) -> dict[str, LoadedList]:
        """By name."""
        return {name: state.loaded for name, state in self._states.items()}

    @property
    def states(self) -> dict[str, ListState]:
        """By name."""
        return dict(self._states)

    def replace(self, lists: Mapping[str, PolicyList]) -> None:
        """Take over lists that were read just now."""
        old, now = self._states, self._clock()
        self._files = dict(lists)
        self._states = {
            name: ListState(
                each.loaded,
                now,
                old[name].failures if name in old else 0,
                version_at(each.file),
            )
            for name, each in lists.items()
        }

    def refresh(self) -> None:
        """Read the files again that have changed."""
        for name, each in list(self._files.items()):
            state = self._states[name]
            version = version_at(each.file)
            if version == state.file_version:
                continue
            state.file_version = version
            try:
                state.loaded = read_list(Path(each.file), each.type)
            except ListError as error:
                state.failures += 1
                log.warning("list %s stays as it was: %s", name, error)
            else:
                state.read_at = self._clock()
                log.info("list %s was read again: %d entries", name, len(state.loaded.entries))

    def store(self, client: Client, names: Sequence[str]) -> None:
        """Have these lists in ClickHouse, as queries need them.

        Raises:
            clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
        """
        for name in names:
            loaded = self._states[name].loaded
            if self._clock() - self._stored.get(loaded.version, 0.0) > _RENEW_SECONDS:
                store_list(client, loaded, self._clock())
                self._stored[loaded.version] = self._clock()
        current = {state.loaded.version for state in self._states.values()}
        self._stored = {v: at for v, at in self._stored.items() if v in current}


def store_lists(client: Client, policy: Policy, lists: Mapping[str, LoadedList]) -> None:
    """Have the lists of one policy in ClickHouse.

    Raises:
        clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
    """
    for use in policy.list_uses:
        store_list(client, lists[use.name], time.time())


def store_list(client: Client, loaded: LoadedList, now: float) -> None:
    """Write a list's rows unless they are there and recent (``now``: seconds since the epoch)."""
    parameters = {"version": loaded.version, "after": int(now - _OLDEST_SECONDS)}
    if client.query(_COUNT, parameters=parameters).result_rows[0][0] == len(loaded.entries):
        return
    stored_at = datetime.fromtimestamp(int(now), UTC)
    rows = [
        (loaded.version, entry.length, entry.address, entry.name, stored_at)
        for entry in loaded.entries
    ]
    client.insert("policy_lists", rows, column_names=_COLUMNS)
