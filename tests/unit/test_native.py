"""Native bytes, read back by ClickHouse's own engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.batch import DTYPES, DictColumn, FlowBatch, concat
from exporter.schema import BY_NAME, COLUMNS, Kind
from exporter.store.native import native_parts, present_columns
from tests.support.batches import encode_native, random_batch

chdb = pytest.importorskip("chdb", reason="the engine comes with the extra `embedded`")


def decode(data: bytes, folder: Path) -> list[dict[str, object]]:
    """The rows as the engine reads them, in their order."""
    path = folder / "block.native"
    path.write_bytes(data)
    expressions = []
    for column in COLUMNS:
        if column.kind is Kind.TIME:
            expressions.append(f"toUnixTimestamp64Milli({column.name}) AS {column.name}")
        elif column.kind is Kind.ADDRESS:
            expressions.append(f"hex({column.name}) AS {column.name}")
        elif column.enum is not None:
            expressions.append(f"toInt8({column.name}) AS {column.name}")
        else:
            expressions.append(column.name)
    structure = ", ".join(f"{c.name} {c.clickhouse_type}" for c in COLUMNS)
    structure = structure.replace("'", "\\'")
    result = chdb.query(
        f"SELECT {', '.join(expressions)} FROM file('{path}', Native, '{structure}') "
        "SETTINGS output_format_json_quote_64bit_integers = 0, max_threads = 1, "
        "input_format_native_allow_types_conversion = 1",
        "JSONEachRow",
    )
    return [json.loads(line) for line in str(result).split("\n") if line]


def expected(batch: FlowBatch) -> list[dict[str, object]]:
    """The same rows from memory."""
    columns: dict[str, list[object]] = {}
    for column in COLUMNS:
        if column.kind in (Kind.TEXT, Kind.NAME, Kind.LABELS):
            held = batch.dictionary(column.name)
            values = [list(v) if isinstance(v, tuple) else v for v in held.values]
            columns[column.name] = [values[code] for code in held.codes]
        elif column.kind is Kind.ADDRESS:
            rows = batch.array(column.name)
            columns[column.name] = [row.tobytes().hex().upper() for row in rows]
        elif column.kind is Kind.FLOAT32:
            columns[column.name] = [pytest.approx(float(v)) for v in batch.array(column.name)]
        else:
            columns[column.name] = batch.array(column.name).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_every_column_comes_back_as_it_was(tmp_path: Path) -> None:
    batch = random_batch(500)
    assert decode(encode_native([batch]), tmp_path) == expected(batch)


@pytest.mark.parametrize("distinct", [1, 256, 257, 65536, 65537])
def test_texts_come_back_at_each_width_of_their_codes(distinct: int, tmp_path: Path) -> None:
    values = [f"name-{i}" for i in range(distinct)]
    codes = np.arange(distinct + 10, dtype=np.uint32) % distinct
    batch = FlowBatch(len(codes), {"src_host": DictColumn(codes, values)})
    rows = decode(encode_native([batch]), tmp_path)
    assert [row["src_host"] for row in rows] == [values[code] for code in codes]


@pytest.mark.parametrize("length", [127, 128, 16_383, 16_384])
def test_lengths_come_back_where_they_take_one_more_byte(length: int, tmp_path: Path) -> None:
    count = min(length, 128)
    text = DictColumn(np.zeros(count, np.uint32), ["x" * length])
    rows = decode(encode_native([FlowBatch(count, {"http_host": text})]), tmp_path)
    assert len(rows) == count
    assert {row["http_host"] for row in rows} == {"x" * length}


def test_values_that_no_row_uses_are_left_out() -> None:
    column = DictColumn(np.zeros(3, np.uint32), ["used", *(f"unused{i}" for i in range(1000))])
    assert len(encode_native([FlowBatch(3, {"device": column})])) < 100


def test_several_batches_with_different_columns_make_one_block(tmp_path: Path) -> None:
    first, second = random_batch(30, seed=1), random_batch(40, seed=2)
    del first.columns["src_host"], first.columns["next_hop"], first.columns["mpls_labels"]
    del second.columns["dns_name"], second.columns["bytes"], second.columns["rtt"]
    batches = [first, FlowBatch(5), second]
    rows = decode(encode_native(batches), tmp_path)
    assert rows == expected(concat(batches))


def test_only_present_columns_are_encoded(tmp_path: Path) -> None:
    batch = FlowBatch(2, {"bytes": np.array([1, 2**64 - 1], np.uint64)})
    assert [column.name for column in present_columns([batch])] == ["bytes"]
    data = encode_native([batch])
    assert b"packets" not in data
    assert [row["bytes"] for row in decode(data, tmp_path)] == [1, 2**64 - 1]
    assert decode(data, tmp_path)[0]["device"] == ""


def test_rows_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    first, second = random_batch(300, seed=1), random_batch(400, seed=2)
    del first.columns["src_host"], second.columns["mpls_labels"], second.columns["next_hop"]
    batches = [first, FlowBatch(0), second]
    order = np.random.default_rng(1).permutation(700)
    data = b"".join(map(bytes, native_parts(batches, present_columns(batches), order=order)))
    assert decode(data, tmp_path) == expected(concat(batches).take(order))


def test_a_block_without_rows_is_valid(tmp_path: Path) -> None:
    assert decode(encode_native([random_batch(0)]), tmp_path) == []


def test_text_that_is_no_unicode_does_not_lose_the_batch(tmp_path: Path) -> None:
    batch = FlowBatch(2, {"dns_name": DictColumn.encode(["a\ud800b", "ok"])})
    rows = decode(encode_native([batch]), tmp_path)
    assert [row["dns_name"] for row in rows] == ["a?b", "ok"]


def test_arrays_need_not_be_contiguous(tmp_path: Path) -> None:
    every_other = random_batch(100).array("src_addr")[::2]
    batch = FlowBatch(50, {"src_addr": every_other})
    assert decode(encode_native([batch]), tmp_path) == expected(batch)


def test_addresses_that_are_all_of_ipv4_take_four_bytes(tmp_path: Path) -> None:
    ipv4 = np.zeros((70, 16), np.uint8)
    ipv4[:, 10:12] = 0xFF
    ipv4[:, 12:] = np.random.default_rng(1).integers(0, 256, (70, 4))
    batches = [FlowBatch(30, {"src_addr": ipv4[:30]}), FlowBatch(40, {"src_addr": ipv4[30:]})]
    assert decode(encode_native(batches), tmp_path) == expected(concat(batches))
    order = np.random.default_rng(2).permutation(70)
    data = b"".join(map(bytes, native_parts(batches, present_columns(batches), order=order)))
    assert decode(data, tmp_path) == expected(concat(batches).take(order))
    assert len(data) < 70 * 5


@pytest.mark.parametrize("place", [0, 7, 8, 9, 10, 11])
def test_one_address_that_is_not_of_ipv4_is_kept(place: int, tmp_path: Path) -> None:
    addresses = np.zeros((5, 16), np.uint8)
    addresses[:, 10:12] = 0xFF
    addresses[3, place] ^= 1
    batch = FlowBatch(5, {"src_addr": addresses})
    assert decode(encode_native([batch]), tmp_path) == expected(batch)


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        encode_native([FlowBatch(2, {"bytes": np.zeros(3, np.uint64)})])
    with pytest.raises(ValueError, match="device"):
        encode_native([FlowBatch(2, {"device": DictColumn.constant("r", 3)})])


_TEXT = st.text(st.characters(codec="utf-8"), max_size=200)


@st.composite
def batches(draw: st.DrawFn) -> FlowBatch:
    rows = draw(st.integers(1, 40))
    names = draw(st.sets(st.sampled_from([c.name for c in COLUMNS]), min_size=1))
    seed = draw(st.integers(0, 2**32 - 1))
    drawn = random_batch(rows, seed)
    batch = FlowBatch(rows, {name: drawn.columns[name] for name in names})
    for name in names:
        kind = BY_NAME[name].kind
        values: st.SearchStrategy[object] | None = None
        if kind in (Kind.TEXT, Kind.NAME):
            values = _TEXT
        elif kind is Kind.LABELS:
            values = st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple)
        if values is not None:
            batch.columns[name] = DictColumn.encode(
                draw(st.lists(values, min_size=rows, max_size=rows))
            )
        elif kind in (Kind.UINT64, Kind.UINT16):
            top = int(np.iinfo(DTYPES[kind]).max)
            numbers = draw(st.lists(st.integers(0, top), min_size=rows, max_size=rows))
            batch.columns[name] = np.array(numbers, DTYPES[kind])
    return batch


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(batches(), min_size=1, max_size=3))
def test_any_batches_come_back_as_they_were(tmp_path: Path, drawn: list[FlowBatch]) -> None:
    assert decode(encode_native(drawn), tmp_path) == expected(concat(drawn))
