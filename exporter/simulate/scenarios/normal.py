"""A quiet day: nothing that a policy should alert on."""

from __future__ import annotations

from typing import Final

from exporter.simulate.scenarios.scenario import Scenario

SCENARIO: Final = Scenario("normal", "A quiet day with its daily and weekly rhythm.", hour=0.0)
