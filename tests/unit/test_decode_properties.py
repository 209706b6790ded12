"""Whatever arrives: no exception, bounded memory and time, and good sets survive bad ones."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import config
from exporter.batch import FlowBatch
from exporter.decode import Decoder
from exporter.receive.datagrams import DatagramBatch
from tests.support.netflow import (
    FLOW,
    FieldSpec,
    batch,
    flow,
    ipfix,
    netflow9,
    options_template10,
    set_of,
    template9,
    template10,
)

CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("*.dat"))
PAYLOADS = [path.read_bytes() for path in CAPTURES]

usual = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Strict(Decoder):
    """Also faults of ours that ``decode`` would count as internal must not happen."""

    def __init__(self, settings: config.Decode | None = None) -> None:
        super().__init__(settings or config.Decode(), [])

    def decode(self, batch: DatagramBatch) -> list[FlowBatch]:
        found = super().decode(batch)
        assert not any(reason == "internal" for _, reason in self.stats.errors())
        for flows in found:
            for name, column in flows.columns.items():
                assert len(column) == len(flows), name
        return found


def flows(found: list[FlowBatch]) -> int:
    return sum(map(len, found))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A capture with some octets changed, cut out, or put in, or its end cut off."""
    data = bytearray(draw(st.sampled_from(PAYLOADS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "end"]))
        if kind == "set":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[at:]
    return bytes(data)


@usual
@given(st.lists(mutated(), min_size=1, max_size=8))
def test_mutated_captures_raise_nothing(datagrams: list[bytes]) -> None:
    decoder = Strict()
    decoder.decode(batch(*PAYLOADS))
    decoder.decode(batch(*datagrams))
    for datagram in datagrams:
        decoder.decode(batch(datagram))


@usual
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_noise_raises_nothing(noise: list[bytes]) -> None:
    decoder = Strict()
    heads = [b"\0\5", b"\0\x09", b"\0\x0a", b"\0\0\0\5"]
    decoder.decode(batch(*noise))
    decoder.decode(batch(*(heads[n % 4] + data for n, data in enumerate(noise))))


elements = st.one_of(
    st.integers(0, 500), st.sampled_from([0x8000 | 1, 33000, 40001, 57590, 57677, 65535])
)
lengths = st.one_of(st.integers(0, 20), st.sampled_from([32, 65535, 65534, 255, 4, 8]))


@usual
@given(
    st.lists(st.tuples(elements, lengths), max_size=12),
    st.binary(max_size=300),
    st.sampled_from([9, 10]),
)
def test_any_template_with_any_data_raises_nothing(
    fields: list[FieldSpec], data: bytes, version: int
) -> None:
    decoder = Strict()
    if version == 9:
        decoder.decode(batch(netflow9(template9(256, fields), set_of(256, data))))
        return
    plain = [(element & 0x7FFF, length) for element, length in fields]
    decoder.decode(batch(ipfix(template10(256, plain), set_of(256, data))))
    decoder.decode(batch(ipfix(options_template10(257, 1, plain), set_of(257, data))))


@usual
@given(st.lists(st.tuples(st.integers(4, 999), st.binary(max_size=60)), max_size=6),
       st.integers(0, 6))  # fmt: skip
def test_good_sets_survive_beside_any_others(others: list[tuple[int, bytes]], place: int) -> None:
    sets = [set_of(number, body) for number, body in others if number not in (256, 257)]
    sets.insert(place, set_of(256, flow() * 2))
    decoder = Strict()
    decoder.decode(batch(ipfix(template10(256, FLOW), template10(257, FLOW))))
    assert flows(decoder.decode(batch(ipfix(*sets)))) == 2
    assert flows(decoder.decode(batch(ipfix(set_of(257, flow()))))) == 1


@usual
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.data())
def test_any_order_and_grouping_gives_the_same_flows(sizes: list[int], data: st.DataObject) -> None:
    datagrams = [
        netflow9(set_of(256, b"".join(flow(octets=100 * n + k) for k in range(size))), sequence=n)
        for n, size in enumerate(sizes)
    ]
    order = data.draw(st.permutations(range(len(datagrams))))
    cut = data.draw(st.integers(0, len(datagrams)))
    decoder = Strict()
    decoder.decode(batch(netflow9(template9(256, FLOW), sequence=0xFFFFFFFF)))
    seen: list[int] = []
    for part in (order[:cut], order[cut:]):
        for found in decoder.decode(batch(*(datagrams[n] for n in part))):
            seen += found.array("bytes").tolist()
    assert sorted(seen) == sorted(100 * n + k for n, size in enumerate(sizes) for k in range(size))


def seconds(decoder: Decoder, *datagrams: bytes) -> float:
    before = time.process_time()
    decoder.decode(batch(*datagrams))
    return time.process_time() - before


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(netflow9(*[set_of(300, b"")] * 16_000), id="empty sets"),
        pytest.param(netflow9(*[set_of(0, b"")] * 16_000),
                     id="empty template sets"),
        pytest.param(netflow9(template9(256, [(8, 4)]), set_of(256, bytes(65_000))),
                     id="shortest records"),
        pytest.param(ipfix(template10(256, [(8, 4), (96, 65535)]), set_of(256, bytes(65_000))),
                     id="shortest records of variable length"),
        pytest.param(ipfix(template10(256, [(291, 65535)] * 500), set_of(256, bytes(60_000))),
                     id="many fields of variable length"),
        pytest.param(ipfix(options_template10(256, 1, [(10, 1)]), set_of(256, bytes(65_000))),
                     id="shortest options"),
        pytest.param(netflow9(*(template9(256 + n, [(8, 4)]) for n in range(4_000))),
                     id="template bomb"),
    ],
)  # fmt: skip
def test_a_hostile_datagram_takes_little_time(hostile: bytes) -> None:
    decoder = Strict()
    assert seconds(decoder, hostile) < 1.0


def test_a_flood_of_distinct_layouts_keeps_to_the_limits() -> None:
    decoder = Strict(config.Decode(max_templates_per_device=50))
    rng = np.random.default_rng(1)
    for number in range(60):
        fields: list[FieldSpec] = [(int(e), 4) for e in rng.integers(1, 400, 20)]
        decoder.decode(batch(netflow9(template9(256 + number, fields), sequence=number)))
    assert decoder.state.fields <= 50 * 20
