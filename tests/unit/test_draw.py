"""Which flows are drawn, and what they stand for."""

from __future__ import annotations

import numpy as np

from exporter.batch import FlowBatch
from exporter.store.draw import LARGEST_WEIGHT, THRESHOLD, drawn_weights

ROWS = 200_000


def sizes(seed: int) -> FlowBatch:
    """Many small flows and few very large ones, as traffic has them."""
    random = np.random.default_rng(seed)
    octets = (random.lognormal(6, 2.5, ROWS)).astype(np.uint64)
    return FlowBatch(ROWS, {"bytes": octets, "packets": octets // 700 + 1})


def test_drawn_flows_stand_for_all() -> None:
    """Of bytes, packets and flows: each on average over draws, and each draw is near."""
    batches = [sizes(1), sizes(2)]
    truth = np.array([sum(int(b.array(n).sum()) for b in batches) for n in ("bytes", "packets")])
    random = np.random.default_rng(1)
    told = []
    for _ in range(20):
        weights = drawn_weights(batches, random).astype(np.uint64)
        octets, packets = (
            np.concatenate([b.array(n) for b in batches]) for n in batches[0].columns
        )
        told.append([(octets * weights).sum(), (packets * weights).sum(), weights.sum()])
    of_all = np.array([*truth, 2 * ROWS])
    assert np.allclose(np.mean(told, axis=0), of_all, rtol=0.005)
    assert np.allclose(told, of_all, rtol=0.05)


def test_large_flows_are_always_drawn_and_few_others() -> None:
    batch = sizes(1)
    octets = batch.array("bytes")
    weights = drawn_weights([batch], np.random.default_rng(1))
    assert (weights[octets > THRESHOLD * octets.mean()] == 1).all()
    assert weights.max() == LARGEST_WEIGHT
    assert 1 / 33 < (weights > 0).mean() < 1 / THRESHOLD + 1 / LARGEST_WEIGHT


def test_flows_without_bytes_are_drawn_by_number() -> None:
    weights = drawn_weights([FlowBatch(ROWS, {})], np.random.default_rng(1))
    assert set(weights.tolist()) == {0, LARGEST_WEIGHT}
    assert abs((weights > 0).mean() * LARGEST_WEIGHT - 1) < 0.05


class Chances:
    """Gives these chances, one after the other."""

    def __init__(self, chances: list[int]) -> None:
        self._chances = np.array(chances, np.uint32)

    def integers(self, low: int, high: int, count: int, dtype: type) -> np.ndarray:
        assert (low, high, count, dtype) == (0, 1 << 32, len(self._chances), np.uint32)
        return self._chances


def test_of_a_weight_one_chance_in_so_many_draws() -> None:
    octets = [1 << n for n in range(24)]
    threshold = THRESHOLD * float(np.mean(octets))
    told = [int(np.clip(threshold / size, 1, LARGEST_WEIGHT)) for size in octets]
    assert {1, LARGEST_WEIGHT} < set(told)
    batch = FlowBatch(len(octets), {"bytes": np.array(octets, np.uint64)})
    within = [((1 << 32) - 1) // weight for weight in told]
    beyond = [min(most + 1, (1 << 32) - 1) for most in within]
    assert drawn_weights([batch], Chances(within)).tolist() == told
    assert drawn_weights([batch], Chances(beyond)).tolist() == [w if w == 1 else 0 for w in told]
