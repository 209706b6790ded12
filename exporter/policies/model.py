"""Policies as ``alerting/policies.yaml`` states them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from exporter.config import Section, load_yaml
from exporter.policies.filter import check_filter
from exporter.policies.measures import MEASURES, Measure
from exporter.schema import BY_NAME, Kind

_DURATION: Final = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """``30s``, ``5m``, ``1h`` or ``7d`` as seconds; anything else is left to pydantic."""
    if not isinstance(value, str):
        return value
    parsed = _DURATION.fullmatch(value)
    if parsed is None:
        raise ValueError(f"{value!r} is not a duration such as 30s, 5m, 1h or 7d")
    return int(parsed[1]) * _SECONDS[parsed[2]]


Duration = Annotated[int, BeforeValidator(_seconds)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Bound(Section):
    """A side on which a value is unusual."""

    static: Positive | None = Field(
        None, description="The value, in the measure's unit, that counts as crossed."
    )
    baseline_ratio: Positive | None = Field(
        None, description="The multiple of the baseline that counts as crossed."
    )

    @model_validator(mode="after")
    def _one(self) -> Bound:
        if self.static is None and self.baseline_ratio is None:
            raise ValueError("give static, baseline_ratio or both")
        return self


class Bounds(Section):
    """Where a policy's alert begins."""

    above: Bound | None = Field(None, description="Alert when the value is at or above.")
    below: Bound | None = Field(None, description="Alert when the value is at or below.")

    @model_validator(mode="after")
    def _apart(self) -> Bounds:
        above, below = self.above, self.below
        if above is None and below is None:
            raise ValueError("give above, below or both")
        if above and above.baseline_ratio is not None and above.baseline_ratio <= 1:
            raise ValueError("above.baseline_ratio must be more than 1")
        if below and below.baseline_ratio is not None and below.baseline_ratio >= 1:
            raise ValueError("below.baseline_ratio must be less than 1")
        if (
            above
            and below
            and above.static is not None
            and below.static is not None
            and above.static <= below.static
        ):
            raise ValueError("above.static must be more than below.static")
        return self


class Breach(Section):
    """For how long a bound must be crossed: in ``minutes`` of the last ``of`` minutes."""

    minutes: int = Field(3, ge=1, description="Minutes in which the bound was crossed.")
    of: Literal[1, 5, 10, 15, 30, 60] = Field(5, description="Minutes looked back.")

    @model_validator(mode="after")
    def _fits(self) -> Breach:
        if self.minutes > self.of:
            raise ValueError(f"{self.minutes} of the last {self.of} minutes cannot be")
        return self


class Policy(Section):
    """What is watched, and when it alerts."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,62}$", description="Names the policy in metrics and alerts."
    )
    description: str = Field("", description="What it is for, in one line.")
    dimensions: list[str] = Field(
        min_length=1, max_length=6, description="Flow columns; one key per combination of values."
    )
    filter: str = Field(
        "", description="Boolean SQL expression over flow columns; empty: all flows."
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
    minimum: float = Field(
        0, ge=0, allow_inf_nan=False, description="Value below which a key is not picked up."
    )
    max_keys: Annotated[int, Field(ge=1, le=20_000)] | None = Field(
        None, description="Keys followed at most; twice `top` when not given."
    )
    expiry: Annotated[
        Duration,
        Field(ge=60, le=7 * 86400, description="Time a key is followed after it was last picked."),
    ] = 3600
    bounds: Bounds = Field(description="Where the alert begins.")
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
    def measured(self) -> Measure:
        """The measure by its name."""
        return MEASURES[self.measure]

    @property
    def key_limit(self) -> int:
        """Keys followed at most."""
        return self.max_keys or 2 * self.top

    @property
    def has_baseline(self) -> bool:
        """Whether a bound is a multiple of the baseline."""
        sides = (self.bounds.above, self.bounds.below)
        return any(side is not None and side.baseline_ratio is not None for side in sides)

    @field_validator("dimensions")
    @classmethod
    def _columns(cls, value: list[str]) -> list[str]:
        for name in value:
            column = BY_NAME.get(name)
            if column is None:
                raise ValueError(f"no flow column is named {name!r}")
            if column.kind in (Kind.TIME, Kind.FLOAT32, Kind.LABELS) or column.unit:
                raise ValueError(f"column {name!r} is measured or timed, not a dimension")
            if value.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return value

    @field_validator("filter")
    @classmethod
    def _expression(cls, value: str) -> str:
        check_filter(value)
        return value.strip()

    @field_validator("measure")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in MEASURES:
            raise ValueError(f"no measure is named {value!r}; there are {', '.join(MEASURES)}")
        return value

    @model_validator(mode="after")
    def _sound(self) -> Policy:
        if self.measured.column in self.dimensions:
            raise ValueError(f"{self.measure} is always 1 where {self.measured.column} is a key")
        if not self.measured.has_past and self.has_baseline:
            raise ValueError(f"{self.measure} has no baseline")
        if self.window < self.interval:
            raise ValueError("window is shorter than interval: flows between would be missed")
        if self.key_limit < self.top:
            raise ValueError("max_keys is less than top")
        if self.combine == "any" and self.no_baseline == "activate" and self.has_baseline:
            raise ValueError("combine: any with no_baseline: activate would alert on every new key")
        return self


class PolicySet(Section):
    """All of ``policies.yaml``."""

    max_series: int = Field(
        20_000, ge=1, le=100_000, description="Bound on the keys of all policies together."
    )
    policies: list[Policy] = Field(default_factory=list, description="The policies.")

    @model_validator(mode="after")
    def _bounded(self) -> PolicySet:
        names: set[str] = set()
        for policy in self.policies:
            if policy.name in names:
                raise ValueError(f"policy {policy.name} is listed twice")
            names.add(policy.name)
        total = sum(policy.key_limit for policy in self.policies)
        if total > self.max_series:
            raise ValueError(f"the policies may follow {total} keys, max_series is less")
        return self


def load_policies(path: Path) -> PolicySet:
    """The policies in ``path``.

    Raises:
        ConfigError: one line per fault, each with file and line.
    """
    return load_yaml(path, PolicySet)
