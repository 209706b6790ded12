"""The past of many policies at once, day by day, into Prometheus' database.

While ClickHouse computes one policy, the values of another are followed key by key here, and
Prometheus' tool writes the day before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from exporter.policies import list_store
from exporter.policies.blocks import all_or_none, promtool, sample_lines, write_lines
from exporter.policies.lists import LoadedList
from exporter.policies.model import Policy
from exporter.policies.past import PolicyPast
from exporter.store.session import Client

_DAY: Final = 86400

#: Policies that are computed at a time: more would wait for the same cores.
_AT_ONCE: Final = 2


class Backfill:
    """The values of ``policies`` from ``start`` to ``end`` (seconds since the epoch)."""

    def __init__(
        self,
        client: Client,
        policies: Sequence[Policy],
        lists: Mapping[str, LoadedList],
        start: int,
        end: int,
    ) -> None:
        self._client = client
        self._policies = policies
        self._lists = lists
        self._start = start
        self._ends = [min(begin + _DAY, end) for begin in range(start, end, _DAY)]

    @property
    def steps(self) -> int:
        """Days of all policies together."""
        return len(self._ends) * len(self._policies)

    def write(self, data: Path, on_step: Callable[[], None]) -> dict[str, int]:
        """Add blocks to Prometheus' data directory, all or none; the number of samples by policy.

        ``on_step`` is called after each of :attr:`steps`.

        Raises:
            exporter.policies.blocks.BlockError: ``promtool`` is not there or did not do it.
            clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
        """
        promtool()
        for policy in self._policies:
            list_store.store_lists(self._client, policy, self._lists)
        walks = {
            policy.name: PolicyPast(self._client, policy, self._start, self._lists)
            for policy in self._policies
        }
        samples = dict.fromkeys(walks, 0)

        def day_of(name: str, until: int) -> list[str]:
            lines = sample_lines(walks[name].samples(until))
            samples[name] += len(lines)
            on_step()
            return lines

        with (
            all_or_none(data) as folder,
            ThreadPoolExecutor(_AT_ONCE, "past") as computing,
            ThreadPoolExecutor(1, "blocks") as writing,
        ):
            written: Future[int] | None = None
            for until in self._ends:
                parts = computing.map(day_of, walks, [until] * len(walks))
                lines = [line for part in parts for line in part]
                if written is not None:
                    written.result()
                written = writing.submit(write_lines, lines, folder)
            if written is not None:
                written.result()
        return samples
