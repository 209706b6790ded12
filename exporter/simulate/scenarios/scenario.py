"""The shape of a scenario, and several of them told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from exporter.simulate.lookups import Lookups
from exporter.simulate.names import normal_lookups
from exporter.simulate.streams import Stream, Window, shifted
from exporter.simulate.traffic import normal_streams


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story told on top of a quiet day; its windows count from its begin, in seconds.

    Args:
        name: as the command line has it.
        summary: one sentence.
        hour: when the story began as it is told, hours of the day (UTC).
        added: streams that there are only in this story.
        lookups: names that are asked for only in this story.
        changed: windows of usual streams, by the stream's name.
        busy_nodes: windows in which a node's CPU load takes the factor's value (0 to 1).
        latency: windows in which the 95th percentile of query latency is the factor's (seconds).
    """

    name: str
    summary: str
    hour: float
    added: tuple[Stream, ...] = ()
    lookups: tuple[Lookups, ...] = ()
    changed: Mapping[str, tuple[Window, ...]] = field(default_factory=lambda: MappingProxyType({}))
    busy_nodes: Mapping[str, tuple[Window, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    latency: tuple[Window, ...] = ()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Everything that is sent when only this story is told."""
        return told_together([(self, 0.0)]).streams


@dataclass(frozen=True, slots=True)
class Story:
    """Scenarios put on one time axis, seconds from its origin."""

    streams: tuple[Stream, ...]
    lookups: tuple[Lookups, ...]
    busy_nodes: Mapping[str, tuple[Window, ...]]
    latency: tuple[Window, ...]


def told_together(scenarios: Iterable[tuple[Scenario, float]]) -> Story:
    """Scenarios with the moments of their begin, seconds from a common origin."""
    streams = {stream.name: stream for stream in normal_streams()}
    busy: dict[str, tuple[Window, ...]] = {}
    latency: tuple[Window, ...] = ()
    lookups = list(normal_lookups())
    for scenario, begin in scenarios:
        added = {stream.name: stream for stream in scenario.added}
        streams |= added
        changed = {name: stream.windows for name, stream in added.items()} | dict(scenario.changed)
        for name, windows in changed.items():
            usual = () if name in added else streams[name].windows
            streams[name] = replace(streams[name], windows=usual + shifted(windows, begin))
        lookups += [
            replace(each, windows=shifted(each.windows, begin)) for each in scenario.lookups
        ]
        for node, windows in scenario.busy_nodes.items():
            busy[node] = busy.get(node, ()) + shifted(windows, begin)
        latency += shifted(scenario.latency, begin)
    return Story(tuple(streams.values()), tuple(lookups), MappingProxyType(busy), latency)
