"""What the shell offers for values; each reads what it needs only when asked."""

from __future__ import annotations


def dimensions(incomplete: str) -> list[str]:
    """Dimensions of the Data Explorer."""
    from exporter.explore.columns import DIMENSIONS

    return [name for _, name in DIMENSIONS if name.startswith(incomplete)]


def measures(incomplete: str) -> list[str]:
    """Measures of the Data Explorer."""
    from exporter.explore.columns import MEASURES

    return [measure.name for measure in MEASURES if measure.name.startswith(incomplete)]


def scenarios(incomplete: str) -> list[tuple[str, str]]:
    """Scenarios of the simulator, with what they tell."""
    from exporter.simulate.scenarios import SCENARIOS

    return [(s.name, s.summary) for s in SCENARIOS.values() if s.name.startswith(incomplete)]
