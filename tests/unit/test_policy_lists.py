"""Lists are read as they are found on the net, and refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.policies.lists import Entry, ListError, read_list


def read(tmp_path: Path, content: bytes, kind: str = "addresses") -> set[Entry]:
    file = tmp_path / "list.txt"
    file.write_bytes(content)
    return set(read_list(file, "names" if kind == "names" else "addresses").entries)


def test_addresses_come_with_marks_comments_and_repetitions(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbf192.0.2.1\r\n; of a vendor\n\n  192.0.2.1 # again\n2001:db8::/32 ; SBL1\n"
    )
    assert read(tmp_path, content) == {Entry(128, "::ffff:192.0.2.1"), Entry(32, "2001:db8::")}


def test_names_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    assert read(tmp_path, b"Example.COM.\n*.pool.example\n", "names") == {
        Entry(2, name="example.com"),
        Entry(2, name="pool.example"),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "list.txt: holds no entry"),
        (b"192.0.2.1\n192.0.2.1/33\n", "list.txt:2: "),
        (b"192.0.2.1 192.0.2.2\n", "list.txt:1: '192.0.2.2' follows the entry"),
        (b"192.0.2.1\n\xff\n", "list.txt:2: not UTF-8"),
        (b"192.0.2.1\0\n", "list.txt:1: "),
    ],
)
def test_a_fault_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ListError) as told:
        read(tmp_path, content)
    assert said in str(told.value)


def test_what_is_no_file_or_too_large_is_told_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="Is a directory"):
        read_list(tmp_path, "addresses")
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # nothing on the disk
    with pytest.raises(ListError, match="larger than"):
        read_list(large, "addresses")
