"""New normals: keys whose level has changed for good, as a person has said.

They stand in a file of their own (``policies.new_normal_file``), written by ``flow-exporter
policies new-normal``. The collector tells them as metrics; ``alerting/rules/baselines.yml`` takes
them for the baseline until the key has a history of its new level.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import yaml
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import AwareDatetime, Field, field_validator

from exporter.config import Section, lines_of, load_yaml
from exporter.file_lock import turn_in
from exporter.policies.model import Policy
from exporter.policies.tables import TABLES

#: Seconds after which the weeks before are no longer in a key's baseline.
_FORGOTTEN: Final = 22 * 86400

_HEAD: Final = (
    "# Written by `flow-exporter policies new-normal`. Entries do nothing after 22 days.\n"
)

Level = Annotated[float, Field(ge=0)]


class NewNormal(Section):
    """The level of a key since a time (UTC): quantiles of its values in the policy's measure."""

    policy: str = Field(description="The policy.")
    key: dict[str, str] = Field(min_length=1, description="The key's dimensions and their values.")
    since: AwareDatetime = Field(description="When the level began, with its time zone.")
    p05: Level = Field(description="What 5 % of the values are below.")
    p50: Level = Field(description="What half of the values are below.")
    p95: Level = Field(description="What 95 % of the values are below.")

    @field_validator("key")
    @classmethod
    def _columns(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not any(name in table.columns for table in TABLES.values()):
                raise ValueError(f"no column is named {name!r}")
        return {name: text for name, text in sorted(value.items()) if text}

    def is_of(self, other: NewNormal) -> bool:
        """Whether both are about the same key."""
        return self.policy == other.policy and self.key == other.key

    def matters(self, now: float) -> bool:
        """Whether the key's baseline may still hold what was before (``now``: since the epoch)."""
        return now - self.since.timestamp() <= _FORGOTTEN


class NewNormalFile(Section):
    """All of the file."""

    new_normal: list[NewNormal] = Field(default_factory=list, max_length=10_000)


def load_new_normals(file: Path) -> list[NewNormal]:
    """The new normals in ``file``; none where there is no such file.

    Raises:
        ConfigError: one line per fault, each with file and line.
    """
    return load_yaml(file, NewNormalFile).new_normal if file.exists() else []


def idle_new_normals(
    file: Path, entries: Sequence[NewNormal], policies: Sequence[Policy], now: float
) -> list[str]:
    """What of ``file`` does nothing though it should, because no policy has such a key: each as
    ``file:line: what``. An entry that is too old to matter is left out.

    Raises:
        OSError: the file cannot be read any more.
    """
    known = {policy.name: policy for policy in policies}
    places: list[tuple[int | str, ...]] = []
    faults = []
    for index, entry in enumerate(entries):
        policy = known.get(entry.policy)
        if policy is None:
            fault, place = f"no policy is named {entry.policy!r}", "policy"
        elif strange := sorted(entry.key.keys() - set(policy.dimensions)):
            fault, place = f"policy {policy.name} has no dimension {strange[0]!r}", "key"
        else:
            continue
        if entry.matters(now):
            places.append(("new_normal", index, place))
            faults.append(f"{fault}: this new normal does nothing")
    if not faults:
        return []
    return [
        f"{file}:{line}: {fault}"
        for line, fault in zip(lines_of(file, places), faults, strict=True)
    ]


def add_new_normal(file: Path, new: NewNormal) -> None:
    """Write ``new`` into ``file``, in place of an earlier one of its key.

    Raises:
        ConfigError: the file that is there is wrong.
        OSError: it cannot be written.
    """
    with turn_in(file.parent):  # or of two that are said at once one is lost
        entries = [entry for entry in load_new_normals(file) if not entry.is_of(new)]
        document = NewNormalFile(new_normal=[*entries, new]).model_dump(mode="json")
        draft = file.with_suffix(".tmp")
        draft.write_text(_HEAD + yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        draft.replace(file)


class NewNormalCollector(Collector):
    """Tells the new normals as metrics, as long as they matter.

    ``idle`` is how many of them do nothing, see :func:`idle_new_normals`.
    """

    def __init__(
        self, entries: list[NewNormal], clock: Callable[[], float] = time.time, idle: int = 0
    ) -> None:
        self._entries = entries
        self._clock = clock
        self._idle = idle

    def replace(self, entries: list[NewNormal], idle: int) -> None:
        """Tell these from now on."""
        self._entries = entries
        self._idle = idle

    def collect(self) -> Iterator[Metric]:
        """All families; without a new normal those of levels have no samples."""
        level = Metric(
            "flow_policy_new_normal",
            "Quantiles of the level of a key that was said to be its new normal.",
            "gauge",
        )
        since = Metric(
            "flow_policy_new_normal_timestamp_seconds",
            "When that level began, since the epoch.",
            "gauge",
        )
        for entry in self._entries:
            if not entry.matters(self._clock()):
                continue
            labels = {"policy": entry.policy, **entry.key}
            since.add_sample(since.name, labels, entry.since.timestamp())
            for quantile, value in (("0.05", entry.p05), ("0.5", entry.p50), ("0.95", entry.p95)):
                level.add_sample(level.name, labels | {"quantile": quantile}, value)
        yield from (level, since)
        yield GaugeMetricFamily(
            "flow_exporter_policy_new_normals_idle",
            "New normals that do nothing: of a policy, or by a dimension, that there is not.",
            self._idle,
        )
