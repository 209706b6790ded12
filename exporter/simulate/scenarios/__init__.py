"""What can happen to the datacenter; each module tells one story as streams."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from exporter.simulate.scenarios import load_spike, normal
from exporter.simulate.scenarios.scenario import Scenario

#: All scenarios by name.
SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {scenario.name: scenario for scenario in (normal.SCENARIO, load_spike.SCENARIO)}
)

__all__ = ["SCENARIOS", "Scenario"]
