"""The dashboards as code. ``flow-exporter dashboards`` writes them to ``grafana/dashboards/``."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from . import alerts, explorer, home, host, incident, pipeline


def build() -> list[Dashboard]:
    """All dashboards, in the order in which the home dashboard's links show them."""
    return [module.dashboard() for module in (home, explorer, host, alerts, incident, pipeline)]


def files() -> dict[str, str]:
    """File name to contents, the same bytes at every call."""
    return {
        f"{dashboard.uid}.json": json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True)
        + "\n"
        for dashboard in build()
    }
