"""Looks of fields: links, properties of overrides, thresholds, colours."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass
class DataLink(Builder["DataLink"]):
    """A link of a value, a series or a panel, in the same window."""

    title: str
    url: str

    def build(self) -> DataLink:
        """Itself: there is nothing to put together."""
        return self

    def to_json(self) -> dict[str, object]:
        """Grafana's ``DataLink``."""
        return {"title": self.title, "url": self.url}


def link(title: str, target: str) -> DataLink:
    """A link of a value, a series or a panel.

    Values in it need a format, mostly ``percentencode``: without one Grafana encodes them as a
    whole URL, which leaves ``&`` as it is.
    """
    return DataLink(title, target)


def dashboard_link(title: str, target: str) -> builders.DashboardLink:
    """A link above a dashboard, in the same window, that keeps the range that is looked at."""
    made = builders.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(target)
    made.build().placement = None  # type: ignore[assignment]  # the SDK's default hides it
    return made.keep_time(True)


def links_property(*links: DataLink) -> DynamicConfigValue:
    """Links of one field, for an override."""
    return DynamicConfigValue(id_val="links", value=list(links))


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
