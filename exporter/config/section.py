"""What all parts of the configuration share: strict sections, file names, errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

Port = Annotated[int, Field(ge=0, le=65535)]
#: A length of time. Timers know none that is much longer.
Seconds = Annotated[float, Field(le=366 * 86400)]
SamplingRate = Annotated[int, Field(ge=1, le=2**32 - 1)]


def _from_folder(value: str, info: ValidationInfo) -> str:
    """Relative names are taken from the configuration file's folder, not from where we started."""
    folder = (info.context or {}).get("folder")
    return str(folder / value) if value and folder is not None else value


FileName = Annotated[str, AfterValidator(_from_folder)]


class ConfigError(Exception):
    """A file that cannot be used; the text names file and line and says what is wrong."""


class PlacedError(ValueError):
    """What a validator finds wrong at ``place`` below what it looks at: keys and positions."""

    def __init__(self, text: str, *place: int | str) -> None:
        super().__init__(text)
        self.place = place


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change.

    No number is infinite or NaN.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def refuse_twice(names: Iterable[str], *place: str) -> None:
    """Refuse a list, at ``place`` below what is validated, that has one of these names twice."""
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            raise PlacedError(f"{name} is listed twice", *place, number)
        seen.add(name)
