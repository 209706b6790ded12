"""Records are found wherever their sets lie, equal and side by side or not."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.decode.elements import ElementTable
from exporter.decode.layout import Field, Layout
from exporter.decode.records import TAIL, locate

LAYOUT = Layout(
    tuple(
        Field(0, element, length)
        for element, length in ((8, 4), (12, 4), (27, 16), (7, 2), (11, 2), (4, 1), (1, 8), (80, 6))
    ),
    ElementTable(),
)
RNG = np.random.default_rng(7)
MANY = RNG.integers(0, 9, 50)


@pytest.mark.parametrize(
    ("counts", "gaps"),
    [
        pytest.param([22] * 40, [24] * 40, id="equal, side by side"),
        pytest.param([1], [0], id="a single record"),
        pytest.param([22] * 20 + [9] + [22] * 20, [24] * 41, id="one is shorter"),
        pytest.param([5] * 10, [24] * 5 + [1400] + [24] * 4, id="a gap between"),
        pytest.param([0, 3, 0, 0, 4], [4] * 5, id="some are empty"),
        pytest.param([0, 0], [4, 4], id="all are empty"),
        pytest.param(MANY, RNG.integers(0, 99, 50), id="each one different"),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_every_record_is_found(counts: list[int], gaps: list[int], backwards: bool) -> None:
    size = LAYOUT.min_size
    # Every other set ends with padding.
    length = np.array(counts, np.int64) * size + np.arange(len(counts)) % 2 * 3
    start = np.cumsum(length + gaps) - length
    if backwards:
        start, length = start[::-1], length[::-1]
    buffer = RNG.integers(0, 256, int((start + length).max()) + TAIL, np.uint8).tobytes()

    records = locate(LAYOUT, memoryview(buffer), start, length)

    expected = [
        buffer[at : at + size]
        for begin, octets in zip(start.tolist(), length.tolist(), strict=True)
        for at in range(begin, begin + octets - size + 1, size)
    ]
    assert len(records) == len(expected)
    assert records.set_of.tolist() == np.repeat(np.arange(len(length)), length // size).tolist()
    at = 0
    for number, field in enumerate(LAYOUT.fields):
        (step,) = (step for step in LAYOUT.forward if step.name == f"f{number}")
        if expected:
            found = records.windows[step.place][step.name]
            octets = [record[at : at + field.length] for record in expected]
            assert found.tobytes() == b"".join(octets)
        at += field.length
