"""Looks of fields: links, properties of overrides, thresholds, colours."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

GREEN, YELLOW, RED = "green", "yellow", "red"


def link(title: str, target: str) -> builders.DashboardLink:
    """A link of a panel, a field or a dashboard, in the same window."""
    made = builders.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(target)
    made.build().placement = None  # type: ignore[assignment]  # the SDK's default hides it
    return made


def links_property(*links: builders.DashboardLink) -> DynamicConfigValue:
    """Data links of one field, for an override."""
    shown = [{"title": made.build().title, "url": made.build().url} for made in links]
    return DynamicConfigValue(id_val="links", value=shown)


def prop(name: str, value: object) -> DynamicConfigValue:
    """One property of a field override."""
    return DynamicConfigValue(id_val=name, value=value)


def thresholds(*steps: tuple[float, str], base: str = GREEN) -> builders.ThresholdsConfig:
    """Colours from these values upward."""
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps(
            [dashboard.Threshold(value=None, color=base)]
            + [dashboard.Threshold(value=value, color=color) for value, color in steps]
        )
    )
