"""Flows in the order in which ClickHouse keeps them."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.batch import FlowBatch, concat
from exporter.store.order import storage_order
from tests.support.flows import random_flows

NOON = 1_760_011_200_000


def few_hosts(rows: int, *, family: int, minutes: int, seed: int = 1) -> FlowBatch:
    """Flows between a few of the hosts, so that pairs return, received in any order."""
    random = np.random.default_rng(seed)
    hosts = random_flows(40, family=family, seed=seed)
    batch = random_flows(rows, family=family, seed=seed)
    batch.columns["src_addr"] = hosts.array("src_addr")[random.integers(0, 5, rows)]
    batch.columns["dst_addr"] = hosts.array("dst_addr")[random.integers(0, 40, rows)]
    batch.columns["time_received"] = NOON + random.integers(0, minutes * 60_000, rows)
    return batch


@pytest.mark.parametrize("family", [4, 6, 0], ids=["IPv4", "IPv6", "both"])
@pytest.mark.parametrize("minutes", [1, 12])
def test_five_minutes_then_drawn_then_addresses_then_time(family: int, minutes: int) -> None:
    batches = [few_hosts(n, family=family, minutes=minutes, seed=n) for n in (700, 1, 300)]
    drawn = np.random.default_rng(1).integers(0, 5, 1001) == 0
    flows = concat(batches)
    keys = [
        (received // 300_000, is_drawn, source.tobytes(), destination.tobytes(), received)
        for received, is_drawn, source, destination in zip(
            flows.array("time_received").tolist(),
            drawn.tolist(),
            flows.array("src_addr"),
            flows.array("dst_addr"),
            strict=True,
        )
    ]
    order = storage_order(batches, drawn).tolist()
    assert sorted(order) == list(range(1001))
    assert [keys[row] for row in order] == sorted(keys)


def test_flows_without_addresses_are_in_the_order_of_time() -> None:
    times = np.array([5, 3, 4, 3], np.int64)
    order = storage_order([FlowBatch(4, {"time_received": times})], np.zeros(4, np.bool_))
    assert times[order].tolist() == [3, 3, 4, 5]
