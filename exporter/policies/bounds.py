"""Where a policy's alert begins: bounds on either side, and for how long they must be crossed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from exporter.config import Section

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Bound(Section):
    """A side on which a value is unusual."""

    static: NotNegative | None = Field(
        None,
        description="The value, in the measure's unit, that counts as crossed; below 0 is: none.",
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

    @property
    def sides(self) -> list[tuple[Literal["above", "below"], Bound]]:
        """The bounds that there are, by name."""
        given: list[tuple[Literal["above", "below"], Bound]] = []
        if self.above is not None:
            given.append(("above", self.above))
        if self.below is not None:
            given.append(("below", self.below))
        return given

    @property
    def has_baseline(self) -> bool:
        """Whether one of them is a multiple of the baseline."""
        return any(bound.baseline_ratio is not None for _, bound in self.sides)

    @model_validator(mode="after")
    def _apart(self) -> Bounds:
        above, below = self.above, self.below
        if above is None and below is None:
            raise ValueError("give above, below or both")
        if above and above.static == 0:
            raise ValueError("above.static must be more than 0")
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

    def check_beyond(self, other: Bounds) -> None:
        """Refuses to begin before ``other`` does.

        Raises:
            ValueError: says where.
        """
        for side, bound in self.sides:
            inner = other.above if side == "above" else other.below
            if inner is None:
                raise ValueError(f"critical.{side} needs bounds.{side}, which begins before it")
            sign = 1 if side == "above" else -1
            further = False
            for name in ("static", "baseline_ratio"):
                mine, theirs = getattr(bound, name), getattr(inner, name)
                if mine is not None and theirs is not None:
                    if sign * mine < sign * theirs:
                        raise ValueError(f"critical.{side}.{name} begins before bounds.{side}")
                    further |= mine != theirs
                else:
                    further |= mine is not None
            if not further:
                raise ValueError(f"critical.{side} is the same as bounds.{side}")


class Breach(Section):
    """For how long a bound must be crossed: in ``minutes`` of the last ``of`` minutes."""

    minutes: int = Field(3, ge=1, description="Minutes in which the bound was crossed.")
    of: Literal[1, 5, 10, 15, 30, 60] = Field(5, description="Minutes looked back.")

    @model_validator(mode="after")
    def _fits(self) -> Breach:
        if self.minutes > self.of:
            raise ValueError(f"{self.minutes} of the last {self.of} minutes cannot be")
        return self
