"""What can happen to the datacenter; each module tells one story as streams."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from exporter.simulate.scenarios import (
    load_spike,
    normal,
    query_fanin,
    registry_429,
    rogue_host,
)
from exporter.simulate.scenarios.scenario import Scenario, Story, told_together

#: All scenarios by name.
SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            normal.SCENARIO,
            registry_429.SCENARIO,
            load_spike.SCENARIO,
            query_fanin.SCENARIO,
            rogue_host.SCENARIO,
        )
    }
)

__all__ = ["SCENARIOS", "Scenario", "Story", "told_together"]
