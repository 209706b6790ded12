"""Lists are read as they are found on the net, and refused with file and line; filters look columns
up in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.policies.filter import expand_lists, find_lists, is_plain
from exporter.policies.lists import Entry, ListError, read_list
from exporter.schema import BY_NAME


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


@pytest.mark.parametrize(
    "name", ["two..dots", "-x.example", "a b", "x" * 64 + ".example", "x." * 127 + "x", "'; --"]
)
def test_what_is_no_domain_name_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ListError, match=r"list\.txt:2: "):
        read(tmp_path, f"example.com\n{name}\n".encode(), "names")


def test_what_is_no_file_or_too_large_is_told_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="Is a directory"):
        read_list(tmp_path, "addresses")
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # nothing on the disk
    with pytest.raises(ListError, match="larger than"):
        read_list(large, "addresses")


@pytest.mark.parametrize(
    ("text", "column", "negated", "found"),
    [
        ("src_addr IN list('x')", "src_addr", False, "src_addr IN list('x')"),
        ("proto = 6 AND src_addr in list('x')", "src_addr", False, "src_addr in list('x')"),
        ("dst_addr NOT IN list('x') OR bytes > 1", "dst_addr", True, "dst_addr NOT IN list('x')"),
        ("NOT src_addr IN list('x')", "src_addr", False, "src_addr IN list('x')"),
        ("if(src_addr IN list ( 'x' ), 1, 0) = 1", "src_addr", False, "src_addr IN list ( 'x' )"),
    ],
)
def test_a_filter_may_look_a_column_up(text: str, column: str, negated: bool, found: str) -> None:
    (use,) = find_lists(text, BY_NAME)
    assert (use.column, use.negated, use.name) == (column, negated, "x")
    assert text[use.start : use.end] == found
    word = "NOT " if negated else ""
    assert expand_lists(text, [use], lambda _: "here") == text.replace(found, f"({word}(here))")


@pytest.mark.parametrize(
    "text",
    [
        "list('x')",
        "IN list('x')",
        "NOT IN list('x')",
        "src_addr = list('x')",
        "src_addr IN list(x)",
        "src_addr IN list('x'",
        "src_addr IN list('x', 'y')",
        "src_addr IN list()",
        "src_addr IN (list('x'))",
        "upper(app) IN list('x')",
        "'10.0.0.1' IN list('x')",
        "bytes + packets IN list('x')",
    ],
)
def test_what_is_looked_up_is_a_column_alone(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("column IN list('name')")):
        find_lists(text, BY_NAME)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("proto = 6 AND dst_port IN (80, 443)", True),
        ("app = 'a -- b' OR bytes / packets > 1.5e3", True),
        ("dst_port IN [53, 123]", False),
        ("app = 'a\\'b'", False),
        ("proto = 6 -- x", False),
        ("proto /* x */ = 6", False),
        ("proto - -6 = 12", True),
        ("proto --6 = 12", False),
        ("proto = 6; x", False),
    ],
)
def test_dashboards_take_a_filter_that_their_own_patterns_let_pass(text: str, plain: bool) -> None:
    assert is_plain(text) == plain
