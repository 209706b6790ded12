"""Policies as ``alerting/policies.yaml`` states them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from exporter.config import Section, load_yaml
from exporter.config.section import PlacedError, refuse_twice
from exporter.policies.bounds import Bound, Bounds, Breach, Positive
from exporter.policies.filter import ListUse, find_lists
from exporter.policies.lists import LoadedList, PolicyList
from exporter.policies.measures import MEASURES, Measure
from exporter.policies.pins import Pin, value_text
from exporter.policies.tables import TABLES, WatchedTable
from exporter.schema import Column, Kind

__all__ = ["Bound", "Bounds", "Breach", "Policy", "PolicySet", "Quota", "load_policies"]

_DURATION: Final = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

#: Dimensions that say where a flow was seen: such a policy wants what each place reports.
_PLACES: Final = frozenset(
    {"device", "device_addr", "in_if", "out_if", "in_if_name", "out_if_name"}
)

_NOT_KEYS: Final = frozenset({Kind.TIME, Kind.FLOAT32, Kind.LABELS, Kind.ADDRESSES})


def _seconds(value: object) -> object:
    """``30s``, ``5m``, ``1h`` or ``7d`` as seconds; anything else is left to pydantic."""
    if not isinstance(value, str):
        return value
    parsed = _DURATION.fullmatch(value)
    if parsed is None:
        raise ValueError(f"{value!r} is not a duration such as 30s, 5m, 1h or 7d")
    return int(parsed[1]) * _SECONDS[parsed[2]]


Duration = Annotated[int, BeforeValidator(_seconds)]


class Quota(Section):
    """How many keys may share one value of a dimension."""

    dimension: str = Field(description="One of the policy's dimensions.")
    top: int = Field(
        ge=1, le=10_000, description="Keys of each of its values that are picked up at most."
    )


class Policy(Section):
    """What is watched, and when it alerts."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,62}$", description="Names the policy in metrics and alerts."
    )
    description: str = Field("", description="What it is for, in one line.")
    table: Literal["flows", "dns_queries"] = Field("flows", description="What is watched.")
    dimensions: list[str] = Field(
        min_length=1, max_length=6, description="Columns; one key per combination of values."
    )
    filter: str = Field("", description="Boolean SQL expression over columns; empty: all rows.")
    deduplicate: bool | None = Field(
        None,
        description="Count a flow once that several devices report. When not given: unless a "
        "dimension says where it was seen (`device`, `in_if`, …).",
    )
    measure: str = Field(description="What is summed or counted per key.")
    window: Annotated[
        Duration, Field(ge=5, le=3600, description="Length of time that one value covers.")
    ] = 300
    interval: Annotated[
        Duration, Field(ge=5, le=300, description="Time from one evaluation to the next.")
    ] = 60
    top: int = Field(
        50, ge=1, le=10_000, description="Keys with the largest values that are picked up."
    )
    per: Quota | None = Field(
        None, description="Of keys that share a value, only the largest are picked up."
    )
    minimum: float = Field(0, ge=0, description="Value below which a key is not picked up.")
    max_keys: Annotated[int, Field(ge=1, le=20_000)] | None = Field(
        None, description="Keys followed at most; twice `top` when not given."
    )
    expiry: Annotated[
        Duration,
        Field(ge=60, le=7 * 86400, description="Time a key is followed after it was last picked."),
    ] = 3600
    pin: list[dict[str, str | int]] = Field(
        default_factory=list,
        max_length=1_000,
        description="Keys, by some or all of their dimensions, that are followed for ever, "
        "whatever their value.",
    )
    bounds: Bounds = Field(description="Where the alert begins.")
    critical: Bounds | None = Field(
        None, description="Where the alert becomes critical, beyond `bounds`."
    )
    combine: Literal["all", "any"] = Field(
        "all", description="Whether static and baseline must both be crossed, or one is enough."
    )
    no_baseline: Literal["skip", "activate", "lowest", "highest"] | Positive = Field(
        "skip",
        description="A key without a baseline: never crosses (skip), always crosses (activate), "
        "or has the lowest or highest baseline of the policy's keys, or this number.",
    )
    breach: Breach = Field(Breach(), description="For how long a bound must be crossed.")
    severity: Literal["critical", "warning", "info"] = Field(
        "warning", description="Severity of the alert."
    )
    team: str = Field("network", pattern=r"^[a-z0-9_-]+$", description="Team that is told.")
    incident: str = Field(
        "traffic",
        pattern=r"^[a-z0-9_-]+$",
        description="Alerts of one team, site and incident become one notification.",
    )
    dashboard: str = Field(
        "flow-incident", pattern=r"^[A-Za-z0-9_-]+$", description="UID of the dashboard to open."
    )

    @property
    def source(self) -> WatchedTable:
        """The table by its name."""
        return TABLES[self.table]

    @property
    def columns(self) -> Mapping[str, Column]:
        """What the policy can group and filter by."""
        return TABLES[self.table].columns

    @property
    def measured(self) -> Measure:
        """The measure by its name."""
        return MEASURES[self.measure]

    @property
    def key_limit(self) -> int:
        """Keys followed at most."""
        return self.max_keys or 2 * self.top

    @property
    def counts_once(self) -> bool:
        """Whether a flow counts once that several devices report."""
        if self.deduplicate is None:
            return not _PLACES & set(self.dimensions)
        return self.deduplicate

    @property
    def counted(self) -> str:
        """The table or view whose rows count."""
        return self.source.once if self.counts_once else self.source.name

    @property
    def pins(self) -> list[Pin]:
        """The pinned keys, their values as metrics show them."""
        return [
            {name: value_text(self.columns[name], value) for name, value in pin.items()}
            for pin in self.pin
        ]

    @property
    def list_uses(self) -> list[ListUse]:
        """The lists that the filter looks up."""
        return find_lists(self.filter, self.columns)

    @property
    def has_baseline(self) -> bool:
        """Whether a bound is a multiple of the baseline."""
        return any(b is not None and b.has_baseline for b in (self.bounds, self.critical))

    @property
    def watches_dips(self) -> bool:
        """Whether a bound is below."""
        return self.bounds.below is not None

    @field_validator("dimensions")
    @classmethod
    def _columns(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for name in value:
            column = _columns_of(info).get(name)
            if column is None:
                raise ValueError(f"no flow column is named {name!r}")
            if column.kind in _NOT_KEYS or column.unit:
                raise ValueError(f"column {name!r} is measured or timed, not a dimension")
            if value.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return value

    @field_validator("filter")
    @classmethod
    def _expression(cls, value: str, info: ValidationInfo) -> str:
        columns = _columns_of(info)
        for use in find_lists(value, columns):
            if columns[use.column].kind not in (Kind.ADDRESS, Kind.NAME, Kind.TEXT):
                raise ValueError(f"{use.column} holds neither addresses nor names")
        return value.strip()

    @field_validator("measure")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in MEASURES:
            raise ValueError(f"no measure is named {value!r}; there are {', '.join(MEASURES)}")
        return value

    @field_validator("per")
    @classmethod
    def _of_dimension(cls, value: Quota | None, info: ValidationInfo) -> Quota | None:
        if value is not None and value.dimension not in info.data.get("dimensions", ()):
            raise ValueError(f"{value.dimension!r} is not one of the dimensions")
        return value

    @field_validator("pin")
    @classmethod
    def _keys(
        cls, value: list[dict[str, str | int]], info: ValidationInfo
    ) -> list[dict[str, str | int]]:
        for pin in value:
            if not pin:
                raise ValueError("a pinned key names at least one dimension")
            for name, text in pin.items():
                if name not in info.data.get("dimensions", ()):
                    raise ValueError(f"{name!r} is not one of the dimensions")
                value_text(_columns_of(info)[name], text)
        return value

    @field_validator("critical")
    @classmethod
    def _beyond(cls, value: Bounds | None, info: ValidationInfo) -> Bounds | None:
        if value is not None and "bounds" in info.data:
            value.check_beyond(info.data["bounds"])
        return value

    @model_validator(mode="after")
    def _sound(self) -> Policy:
        self._check_measure()
        if self.critical is not None and self.severity == "critical":
            raise ValueError("severity is critical already: leave out the bounds of critical")
        if self.window < self.interval:
            raise ValueError("window is shorter than interval: flows between would be missed")
        if self.key_limit < self.top:
            raise ValueError("max_keys is less than top")
        if self.key_limit < len(self.pin):
            raise ValueError("max_keys is less than the number of pinned keys")
        if self.combine == "any" and self.no_baseline == "activate" and self.has_baseline:
            raise ValueError("combine: any with no_baseline: activate would alert on every new key")
        return self

    def _check_measure(self) -> None:
        measure = self.measured
        if self.table not in measure.tables:
            raise ValueError(f"{self.measure} is not a measure of {self.table}")
        if measure.column in self.dimensions:
            raise ValueError(f"{self.measure} is always 1 where {measure.column} is a key")
        if not measure.has_past and self.has_baseline:
            raise ValueError(f"{self.measure} has no baseline")
        if measure.share == "capacity":
            ends = [name for name in ("in_if", "out_if") if name in self.dimensions]
            if "device" not in self.dimensions or len(ends) != 1:
                raise ValueError(f"{self.measure} needs dimensions device and in_if or out_if")


def _columns_of(info: ValidationInfo) -> Mapping[str, Column]:
    """The columns of the table of the policy that is read."""
    return TABLES[info.data.get("table", "flows")].columns


class PolicySet(Section):
    """All of ``policies.yaml``."""

    max_series: int = Field(
        20_000, ge=1, le=100_000, description="Bound on the keys of all policies together."
    )
    lists: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], PolicyList] = Field(
        default_factory=dict, description="Lists that filters look up, by name."
    )
    policies: list[Policy] = Field(default_factory=list, description="The policies.")

    @property
    def loaded_lists(self) -> dict[str, LoadedList]:
        """The lists as they were when the file was read."""
        return {name: each.loaded for name, each in self.lists.items()}

    @model_validator(mode="after")
    def _bounded(self) -> PolicySet:
        refuse_twice([policy.name for policy in self.policies], "policies")
        for number, policy in enumerate(self.policies):
            for use in policy.list_uses:
                self._check_list(number, policy, use)
        total = sum(policy.key_limit for policy in self.policies)
        if total > self.max_series:
            raise PlacedError(f"the policies may follow {total} keys, which is more", "max_series")
        return self

    def _check_list(self, number: int, policy: Policy, use: ListUse) -> None:
        place = ("policies", number, "filter")
        if use.name not in self.lists:
            raise PlacedError(f"no list is named {use.name!r}", *place)
        is_address = policy.columns[use.column].kind is Kind.ADDRESS
        kind = self.lists[use.name].type
        if is_address != (kind == "addresses"):
            raise PlacedError(f"list {use.name!r} holds {kind}, {use.column} does not", *place)


def load_policies(path: Path) -> PolicySet:
    """The policies in ``path``, and the lists that it names.

    Raises:
        ConfigError: one line per fault, each with file and line.
    """
    return load_yaml(path, PolicySet)
