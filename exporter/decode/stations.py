"""Stations of wireless controllers, of which a record tells one end alone."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from exporter.decode import values
from exporter.schema import Direction

_PARTS: Final = ("addr", "mac")


def stations(columns: dict[str, Any]) -> None:
    """The station is the source of what it sends, and the destination of what it is sent: that
    leaves the controller (egress). Addresses that the record tells of that end itself hold.
    """
    for part in _PARTS:
        station = columns.pop(f"station_{part}", None)
        if station is None:
            continue
        egress = np.zeros(len(station), np.bool_)
        if "direction" in columns:
            egress = columns["direction"] == Direction.EGRESS
        for side, rows in (("src", ~egress), ("dst", egress)):
            if rows.any():
                name, own = f"{side}_{part}", station.copy()
                own[~rows] = 0
                columns[name] = values.fill(columns[name], own) if name in columns else own
