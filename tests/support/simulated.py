"""What simulated devices tell, counted once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.address import pack_address
from exporter.batch import FlowBatch, concat
from exporter.schema import Direction
from exporter.simulate.devices import DEVICES

AGENTS = {pack_address(device.address) for device in DEVICES.values() if device.role == "host"}


def once(told: Mapping[str, FlowBatch]) -> FlowBatch:
    """All flows as the view ``flows_once`` has them: what agents see by theirs, of two agents by
    the receiver's."""
    parts = []
    for name, flows in told.items():
        from_agent, to_agent = (
            np.array([row.tobytes() in AGENTS for row in flows.array(column)])
            for column in ("src_addr", "dst_addr")
        )
        if DEVICES[name].role == "host":
            parts.append(flows.take((flows.array("direction") == Direction.INGRESS) | ~to_agent))
        else:
            parts.append(flows.take(~from_agent & ~to_agent))
    return concat(parts)


def total(flows: FlowBatch, measure: str) -> float:
    """Sum of a column."""
    return float(flows.array(measure).astype(np.float64).sum())


def of(flows: FlowBatch, column: str, address: str) -> np.ndarray:
    """Which rows have that address."""
    return (flows.array(column) == np.frombuffer(pack_address(address), np.uint8)).all(axis=1)
