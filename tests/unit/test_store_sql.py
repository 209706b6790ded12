"""What the embedded store reads out of a statement."""

from __future__ import annotations

import time

import pytest

from exporter.store.server.sql import Insert, split_insert, split_query, verb


@pytest.mark.parametrize(
    ("text", "head", "format", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x0a\x00", "INSERT INTO t", "Native", b"\x0a\x00"),
        (b"insert into t (a, b) format CSV 1,2", "insert into t (a, b)", "CSV", b"1,2"),
        (b"INSERT INTO t VALUES (1, 'FORMAT')", "INSERT INTO t", "Values", b" (1, 'FORMAT')"),
        (b"INSERT INTO TABLE db.t (`format`) FORMAT CSV\r\nx", "INSERT INTO TABLE db.t (`format`)",
         "CSV", b"x"),
        (b"INSERT INTO values VALUES (1)", "INSERT INTO values", "Values", b" (1)"),
        (b"/* FORMAT */ INSERT INTO t -- VALUES\n SETTINGS x = 'FORMAT A' FORMAT B",
         "/* FORMAT */ INSERT INTO t -- VALUES\n SETTINGS x = 'FORMAT A'", "B", b""),
    ],
)  # fmt: skip
def test_an_insert_ends_where_its_data_begins(
    text: bytes, head: str, format: str, data: bytes
) -> None:
    assert split_insert(text) == Insert(head, format, data)


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"SELECT 'INSERT INTO t FORMAT CSV'",
        b"EXPLAIN INSERT INTO t VALUES",
        b"",
    ],
)
def test_other_statements_carry_no_data(text: bytes) -> None:
    assert split_insert(text) is None


@pytest.mark.parametrize(
    ("text", "query", "format", "tail"),
    [
        (b"SELECT 1", "SELECT 1", "TSV", ""),
        (b"SELECT 1 FORMAT JSON;", "SELECT 1", "JSON", ""),
        (b"SELECT 1 format CSV SETTINGS a = 1", "SELECT 1", "CSV", "SETTINGS a = 1"),
        (b"SELECT a AS format FROM t", "SELECT a AS format FROM t", "TSV", ""),
        (b"SELECT 1 AS format", "SELECT 1 AS format", "TSV", ""),
        (b"SELECT format('{}', 'FORMAT CSV')", "SELECT format('{}', 'FORMAT CSV')", "TSV", ""),
        (b"SELECT (SELECT 1 FORMAT CSV)", "SELECT (SELECT 1 FORMAT CSV)", "TSV", ""),
        (b"SELECT $$ FORMAT CSV$$", "SELECT $$ FORMAT CSV$$", "TSV", ""),
        (b"SELECT 1 -- FORMAT CSV", "SELECT 1 -- FORMAT CSV", "TSV", ""),
    ],
)
def test_the_format_is_the_query_s_own_or_the_default(
    text: bytes, query: str, format: str, tail: str
) -> None:
    found = split_query(text, "TSV")
    assert (found.text, found.format, found.tail) == (query, format, tail)


def test_the_answer_goes_to_a_file_before_the_format_clause() -> None:
    query = split_query(b"SELECT 1 -- one\nFORMAT CSV SETTINGS a = 1", "TSV")
    assert query.into("/dev/fd/3") == (
        "SELECT 1 -- one\nINTO OUTFILE '/dev/fd/3' TRUNCATE FORMAT CSV SETTINGS a = 1"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b" -- x\n(SELECT 1)", "SELECT"), (b"kill query", "KILL"), (b"'x'", ""), (b"", "")],
)
def test_the_verb_is_the_first_word(text: bytes, expected: str) -> None:
    assert verb(text) == expected


@pytest.mark.parametrize(
    "hostile", [b"'\\'" * 100_000, b"/*/" * 100_000, b"$a$b" * 100_000, b'"`' * 100_000]
)
def test_hostile_text_takes_linear_time(hostile: bytes) -> None:
    began = time.process_time()
    split_query(b"SELECT " + hostile, "TSV")
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("head", "statement"),
    [
        ("INSERT INTO t (a, b)", "INSERT INTO t (a, b) FROM INFILE '/f'  FORMAT CSV"),
        (
            "INSERT INTO t SETTINGS x = 1, y = 2",
            "INSERT INTO t  FROM INFILE '/f' SETTINGS x = 1, y = 2 FORMAT CSV",
        ),
        ("INSERT INTO settings", "INSERT INTO settings FROM INFILE '/f'  FORMAT CSV"),
    ],
)
def test_an_insert_can_take_its_data_from_a_file(head: str, statement: str) -> None:
    assert Insert(head, "CSV", b"").from_file("/f") == statement
