"""Different octet strings out of one buffer, whatever their lengths."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.decode.slices import sliced_bytes
from exporter.decode.values import MAX_TEXT, clean_text, clean_texts

_LENGTHS = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 255, 256, 257, 32_768, 32_769, 65_535]


def _sliced(rows: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The rows as cut out of a buffer in which they lie the other way round."""
    sizes = np.array([len(row) for row in rows], np.int64)
    ends = 5 + np.cumsum(sizes[::-1])[::-1]
    buffer = b"start" + b"".join(rows[::-1])
    ((codes, values),) = sliced_bytes(buffer, [(ends - sizes, ends)])
    return [values[code] for code in codes.tolist()], values


def test_slices_may_lie_anywhere_and_overlap() -> None:
    starts, ends = np.array([3, 0, 1, 3, 7, 0]), np.array([7, 7, 4, 7, 7, 3])
    ((codes, values),) = sliced_bytes(b"abcabca", [(starts, ends)])
    assert [values[code] for code in codes] == [b"abca", b"abcabca", b"bca", b"abca", b"", b"abc"]
    assert len(values) == 5


@settings(deadline=None)  # the first call loads Arrow's functions
@given(st.lists(st.tuples(*[st.sampled_from([b"", b"a", b"b", b"longer"])] * 3), max_size=20))
def test_fields_of_a_row_have_values_of_their_own(rows: list[tuple[bytes, ...]]) -> None:
    sizes = np.array([len(part) for row in rows for part in row], np.int64)
    ends = np.cumsum(sizes)
    bounds = zip((ends - sizes).reshape(-1, 3).T, ends.reshape(-1, 3).T, strict=True)
    found = sliced_bytes(b"".join(part for row in rows for part in row), list(bounds))
    columns = [[values[code] for code in codes] for codes, values in found]
    assert list(zip(*columns, strict=True)) == rows
    for column, (_, values) in zip(columns, found, strict=True):
        assert sorted(values) == sorted(set(column))


@settings(deadline=None)  # the first call loads Arrow's functions
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            # Strings that differ in one octet or in their length only.
            st.tuples(st.sampled_from([b"\0", b"x"]), st.integers(0, 70)).map(
                lambda p: p[0] * p[1]
            ),
            st.integers(0, 69).map(lambda at: bytes(at) + b"x" + bytes(69 - at)),
        ),
        max_size=60,
    )
)
def test_slices_come_back_each_value_once(rows: list[bytes]) -> None:
    found, values = _sliced(rows)
    assert found == rows
    assert sorted(values) == sorted(set(rows))


def test_slices_of_any_length_come_back() -> None:
    rows = [octet * length for length in _LENGTHS for octet in (b"a", b"b")] * 2
    found, values = _sliced(rows)
    assert found == rows
    assert sorted(values) == sorted(set(rows))


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.text(max_size=12).map(str.encode),
            st.sampled_from([b"a\0b", b" a ", b"\xff", b"x" * (MAX_TEXT + 1)]),
        ),
        max_size=12,
    )
)
def test_texts_read_together_read_as_each_alone(raws: list[bytes]) -> None:
    assert clean_texts(raws) == [clean_text(raw) for raw in raws]
