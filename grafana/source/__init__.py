"""The dashboards as code. ``flow-exporter dashboards`` writes them to ``grafana/dashboards/``."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from . import (
    alerts,
    baselines,
    dns,
    explorer,
    home,
    host,
    incident,
    interfaces,
    pipeline,
    services,
)

#: In the order in which the links at the top show them.
_ALL = (
    home,
    explorer,
    host,
    alerts,
    incident,
    services,
    interfaces,
    dns,
    baselines,
    pipeline,
)


def build() -> list[Dashboard]:
    """All dashboards."""
    return [module.dashboard() for module in _ALL]


def files() -> dict[str, str]:
    """File name to contents, the same bytes at every call."""
    return {
        f"{dashboard.uid}.json": json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True)
        + "\n"
        for dashboard in build()
    }
