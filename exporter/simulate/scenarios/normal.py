"""A quiet day: nothing that a policy should alert on."""

from __future__ import annotations

from typing import Final

from exporter.simulate.scenarios.scenario import Scenario
from exporter.simulate.traffic import normal_streams

SCENARIO: Final = Scenario(
    "normal", "A quiet day with its daily and weekly rhythm.", normal_streams()
)
