"""Records are found wherever their sets lie, equal and side by side or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.decode.elements import ElementTable
from exporter.decode.layout import VARIABLE, Field, Layout
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
        pytest.param([300] * 50, [24] * 50, id="more than are gathered at a time"),
        pytest.param([22] * 900 + [9] * 2 + [22] * 900, [24] * 1802, id="equal but for a place"),
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


# Fields of variable length: (address, text, port, text)
VARIABLE_LAYOUT = Layout(
    (Field(0, 8, 4), Field(0, 96, VARIABLE), Field(0, 7, 2), Field(0, 460, VARIABLE)),
    ElementTable(),
)
_TEXTS = st.sampled_from([0, 1, 5, 254, 255, 256, 300]).map(lambda n: bytes([n % 251]) * n)


def told(text: bytes, *, long: bool) -> bytes:
    """RFC 7011, section 7: one octet of length, or 255 and two more."""
    if long or len(text) > 254:
        return b"\xff" + len(text).to_bytes(2, "big") + text
    return bytes([len(text)]) + text


@st.composite
def variable_set(draw: st.DrawFn) -> bytes:
    """Records, and behind the last one padding or what is left of one that was cut off."""
    body = b""
    for number in range(draw(st.integers(0, 4))):
        texts = [told(draw(_TEXTS), long=draw(st.booleans())) for _ in range(2)]
        body += bytes([draw(st.integers(1, 255)), 0, 0, number]) + texts[0] + b"\1\2" + texts[1]
    return body[: len(body) - draw(st.integers(0, 9))] + bytes(draw(st.integers(0, 7)))


def parsed(body: bytes) -> tuple[list[tuple[bytes, bytes, bytes, bytes]], bool]:
    """The records of a set one by one, and whether the rest of it is malformed."""
    found = []
    at = 0
    while len(body) - at >= 8:
        parts = []
        for size in (4, 2):
            parts.append(body[at : at + size])
            at += size
            head = body[at : at + 3]
            at += 3 if head[:1] == b"\xff" else 1
            length = int.from_bytes(head[1:], "big") if head[:1] == b"\xff" else sum(head[:1])
            parts.append(body[at : at + length])
            at += length
        if at > len(body):
            return found, True
        found.append((parts[0], parts[1], parts[2], parts[3]))
    return found, False


@settings(deadline=None)
@given(st.lists(variable_set(), min_size=1, max_size=20), st.integers(0, 5))
def test_records_of_variable_length_are_found_set_by_set(bodies: list[bytes], gap: int) -> None:
    """Many sets are walked together, few of them one by one: either way all are found."""
    expected = [parsed(body) for body in bodies]
    length = np.array([len(body) for body in bodies], np.int64)
    start = np.cumsum(length + gap) - length
    buffer = b"".join(b"\xff" * gap + body for body in bodies) + bytes(TAIL)

    records = locate(VARIABLE_LAYOUT, buffer, start, length)

    assert records.counts.tolist() == [len(rows) for rows, _ in expected]
    assert sorted(records.malformed) == [n for n, (_, broken) in enumerate(expected) if broken]
    rows = [row for rows, _ in expected for row in rows]
    assert len(records) == len(rows)
    if rows:
        steps = {step.column: step for step in VARIABLE_LAYOUT.forward}
        for column, part in (("src_addr", 0), ("src_port", 2)):
            field = records.windows[steps[column].place][steps[column].name]
            assert field.tobytes() == b"".join(row[part] for row in rows)
        for column, part in (("app", 1), ("http_host", 3)):
            bounds = zip(
                records.starts[steps[column].place], records.ends[steps[column].place], strict=True
            )
            assert [buffer[a:b] for a, b in bounds] == [row[part] for row in rows]
