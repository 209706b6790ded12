"""What is wrong with a file's content, in the words of those who wrote it."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, RootModel, ValidationError

from exporter.config.section import PlacedError
from exporter.meant import close_to

#: By the kind of pydantic's error: what should be there instead.
_EXPECTED: Final = {
    "int_parsing": "a whole number is expected",
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_parsing": "a number is expected",
    "float_type": "a number is expected",
    "bool_parsing": "true or false is expected",
    "bool_type": "true or false is expected",
    "string_type": "a text is expected: in quotes, where it looks like a number",
    "list_type": "a list is expected: lines that begin with `- `",
    "dict_type": "settings are expected: lines of `name: value`",
    "model_type": "settings are expected: lines of `name: value`",
    "missing": "is required",
}
#: Settings are listed where there are at most so many.
_FEW: Final = 12

Place = tuple[int | str, ...]


def faults_of(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Place, str]]:
    """Where each fault lies below ``model``, and what is to be done about it."""
    for fault in error.errors():
        place = fault["loc"]
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, PlacedError):
            place += cause.place
        yield place, _told(fault["type"], fault["msg"], place, cause, model)


def shown(place: Place) -> str:
    """A place as messages name it."""
    return ".".join(str(part) for part in place) or "file"


def _told(kind: str, text: str, place: Place, cause: object, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return _unknown(str(place[-1]), _settings_at(model, place[:-1]))
    # What pydantic says of our own validators' errors begins with their kind.
    return str(cause) if isinstance(cause, ValueError) else _EXPECTED.get(kind, text)


def _unknown(name: str, known: list[str]) -> str:
    near = close_to(name, known)
    if near:
        return f"there is no such setting: is {near} meant?"
    if known and len(known) <= _FEW:
        return f"there is no such setting, but {', '.join(known)}"
    return "there is no such setting"


def _settings_at(model: type[BaseModel], place: Place) -> list[str]:
    """Settings that the section at ``place`` may have."""
    models = _models(model)
    for part in place:
        inner = [
            found
            for each in models
            if part in each.model_fields
            for found in _models(each.model_fields[str(part)].annotation)
        ]
        # Positions in lists, keys of mappings and choices of unions lead no further down.
        models = inner or models
    return [name for each in models for name in each.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        root = annotation.model_fields.get("root") if issubclass(annotation, RootModel) else None
        return [annotation] if root is None else _models(root.annotation)
    return [found for part in typing.get_args(annotation) for found in _models(part)]
