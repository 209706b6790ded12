"""The shape of a scenario."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.simulate.streams import Stream


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named set of streams whose windows count from the scenario's begin."""

    name: str
    summary: str
    streams: tuple[Stream, ...]
