"""The embedded store over plain HTTP, as curl and Grafana's plugin speak to it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import lz4.frame
import pyarrow.ipc
import pytest
import urllib3
from backports import zstd

from tests.support.store import RunningStore

Ask = Callable[..., urllib3.BaseHTTPResponse]


@pytest.fixture(scope="module")
def ask(store: RunningStore) -> Iterator[Ask]:
    """Sends a request as the writer: ``ask(query, body, reader=…, method=…, headers=…, **url)``."""
    with urllib3.PoolManager(retries=False) as pool:

        def send(
            query: str | None = None,
            body: bytes | None = None,
            *,
            method: str = "POST",
            reader: bool = False,
            headers: dict[str, str] | None = None,
            **url: Any,
        ) -> urllib3.BaseHTTPResponse:
            if query is not None:
                url["query"] = query
            return pool.request(
                method,
                f"{store.url}/?{urlencode(url)}",
                body=body,
                headers={**store.authorization(reader=reader), **(headers or {})},
                decode_content=False,
            )

        assert send("CREATE DATABASE IF NOT EXISTS protocol").status == 200
        yield send
        send("DROP DATABASE protocol")


@pytest.fixture
def table(ask: Ask) -> Iterator[str]:
    ask("CREATE TABLE protocol.t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    yield "protocol.t"
    ask("DROP TABLE protocol.t SYNC")


def code(response: urllib3.BaseHTTPResponse) -> tuple[int, str | None]:
    return response.status, response.headers.get("X-ClickHouse-Exception-Code")


def test_ping_and_root_need_no_password(store: RunningStore) -> None:
    for path in ("/ping", "/replicas_status", "/"):
        response = urllib3.request("GET", store.url + path)
        assert (response.status, response.data) == (200, b"Ok.\n")
    assert urllib3.request("GET", store.url + "/nowhere").status == 404


def test_a_query_may_stand_in_url_or_body_or_both(ask: Ask) -> None:
    assert ask("SELECT 1").data == b"1\n"
    assert ask(None, b"SELECT 1").data == b"1\n"
    assert ask("SELECT 1,", b"2").data == b"1\t2\n"
    assert ask("SELECT 1", method="GET").data == b"1\n"


def test_the_database_may_stand_in_url_or_header(ask: Ask) -> None:
    query = "SELECT currentDatabase()"
    assert ask(query).data == b"default\n"
    assert ask(query, database="protocol").data == b"protocol\n"
    assert ask(query, headers={"X-ClickHouse-Database": "system"}).data == b"system\n"
    assert code(ask(query, database="nowhere")) == (404, "81")


def test_the_format_may_stand_in_query_header_or_url(ask: Ask) -> None:
    assert ask("SELECT 'a' AS x", default_format="JSONEachRow").data == b'{"x":"a"}\n'
    assert ask("SELECT 'a'", headers={"X-ClickHouse-Format": "CSV"}).data == b'"a"\n'
    answer = ask("SELECT 'a' AS x FORMAT CSVWithNames", default_format="JSON")
    assert answer.data == b'"x"\n"a"\n'
    assert answer.headers["X-ClickHouse-Format"] == "CSVWithNames"
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert code(ask("SELECT 1", default_format="Nonsense")) == (400, "73")
    assert code(ask("SELECT 1", default_format="x y")) == (400, "73")


def test_documents_of_many_blocks_are_whole(ask: Ask) -> None:
    numbers = "SELECT number FROM numbers(200000) SETTINGS max_block_size = 10000"
    document = json.loads(ask(f"{numbers} FORMAT JSONCompact").data)
    assert document["rows"] == 200_000
    assert document["data"][-1] == [199_999]
    assert ask(f"{numbers} FORMAT TSVWithNamesAndTypes").data.count(b"number") == 1
    with pyarrow.ipc.open_stream(ask(f"{numbers} FORMAT ArrowStream").data) as reader:
        assert reader.read_all().num_rows == 200_000


def test_totals_belong_to_the_document(ask: Ask) -> None:
    answer = ask(
        "SELECT number % 2 AS k, count() AS n FROM numbers(10) GROUP BY k WITH TOTALS "
        "ORDER BY k FORMAT JSON"
    )
    document = json.loads(answer.data)
    assert document["totals"] == {"k": 0, "n": 10}


def test_parameters_are_bound(ask: Ask) -> None:
    hostile = "'; DROP TABLE x -- "
    answer = ask(
        "SELECT {text:String}, {number:UInt16} + 1, {list:Array(String)}[2]",
        param_text=hostile,
        param_number="41",
        param_list="['a','b']",
    )
    assert answer.data.decode() == hostile.replace("'", "\\'") + "\t42\tb\n"
    assert code(ask("SELECT {x:UInt8}"))[1] == "456"


def test_settings_are_taken_from_the_url(ask: Ask) -> None:
    assert ask("SELECT getSetting('max_block_size')", max_block_size=123).data == b"123\n"
    assert code(ask("SELECT 1", no_such_setting=1)) == (404, "115")
    limited = ask("SELECT * FROM numbers(10)", max_result_rows=5)
    assert limited.headers["X-ClickHouse-Exception-Code"] == "396"


def test_answers_carry_clickhouse_s_headers(ask: Ask) -> None:
    headers = ask("SELECT count() FROM numbers(10)", query_id="my-id").headers
    assert headers["X-ClickHouse-Query-Id"] == "my-id"
    assert headers["X-ClickHouse-Timezone"] == "UTC"
    assert headers["X-ClickHouse-Server-Display-Name"]
    assert json.loads(headers["X-ClickHouse-Summary"])["read_rows"] == "10"


@pytest.mark.parametrize(
    ("query", "status", "number"),
    [
        ("SELEKT 1", 400, "62"),
        ("", 400, "62"),
        ("SELECT nothing", 404, "47"),
        ("SELECT * FROM protocol.nothing", 404, "60"),
        ("SELECT toUInt8('x')", 400, "6"),
        ("SELECT sleep(3), 1 SETTINGS max_execution_time = 0.1", 408, "159"),
        ("SELECT 1; SELECT 2", 400, "62"),
    ],
)
def test_errors_have_status_code_and_text(ask: Ask, query: str, status: int, number: str) -> None:
    answer = ask(query)
    assert code(answer) == (status, number)
    assert answer.data.decode().startswith(f"Code: {number}. DB::Exception: ")


def test_get_reads_only(ask: Ask, table: str) -> None:
    assert code(ask(f"INSERT INTO {table} SELECT 1, ''", method="GET")) == (403, "164")
    assert code(ask(f"DROP TABLE {table}", method="GET")) == (403, "164")
    assert ask(f"SELECT count() FROM {table}", method="GET").data == b"0\n"


@pytest.mark.parametrize(
    ("format", "body"),
    [
        ("CSV", b"1,x\n2,y\n"),
        ("JSONEachRow", b'{"a":1,"b":"x"}\n{"a":2,"b":"y"}'),
        ("Values", b"(1,'x'),(2,'y')"),
        ("TabSeparated", b"1\tx\n2\ty\n"),
        ("RowBinary", b"\1\0\0\0\0\0\0\0\1x\2\0\0\0\0\0\0\0\1y"),
        ("Native", b"\2\2\1a\6UInt64\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1b\6String\1x\1y"),
    ],
)
def test_inserts_in_many_formats(ask: Ask, table: str, format: str, body: bytes) -> None:
    answer = ask(f"INSERT INTO {table} FORMAT {format}", body)
    assert answer.status == 200, answer.data
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    # The statement may come in the body as well, before the data.
    assert ask(None, f"INSERT INTO {table} FORMAT {format}\n".encode() + body).status == 200
    assert ask(f"SELECT a, b FROM {table} ORDER BY a").data == b"1\tx\n1\tx\n2\ty\n2\ty\n"


def test_an_insert_of_arrow(ask: Ask, table: str) -> None:
    data = ask("SELECT 7::UInt64 AS a, 'arrow' AS b FORMAT ArrowStream").data
    assert ask(f"INSERT INTO {table} FORMAT ArrowStream", data).status == 200
    assert ask(f"SELECT a, b FROM {table}").data == b"7\tarrow\n"


def test_an_insert_with_a_token_counts_once(ask: Ask, table: str) -> None:
    ask(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 100")
    for _ in range(2):
        answer = ask(f"INSERT INTO {table} FORMAT CSV", b"1,x\n", insert_deduplication_token="k")
        assert answer.status == 200
    assert ask(f"SELECT count() FROM {table}").data == b"1\n"


def test_bad_data_is_refused_and_named(ask: Ask, table: str) -> None:
    answer = ask(f"INSERT INTO {table} FORMAT CSV", b"1,x\nnonsense,y\n")
    assert code(answer) == (400, "27")
    assert b"row 2" in answer.data
    assert ask(f"SELECT count() FROM {table}").data == b"0\n"
    assert code(ask("INSERT INTO protocol.nothing FORMAT CSV", b"1\n")) == (404, "60")
    assert code(ask(f"INSERT INTO {table} (nothing) FORMAT CSV", b"1\n")) == (404, "16")


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstd.decompress,
    "lz4": lz4.frame.decompress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
def test_bodies_and_answers_may_be_compressed(ask: Ask, table: str, encoding: str) -> None:
    rows = b"".join(b"%d,x\n" % number for number in range(300_000))
    inserted = ask(
        f"INSERT INTO {table} FORMAT CSV",
        COMPRESS[encoding](rows),
        headers={"Content-Encoding": encoding},
    )
    assert inserted.status == 200, inserted.data
    wanted = {"Accept-Encoding": f"br, {encoding}"}
    query = f"SELECT a, b FROM {table} ORDER BY a FORMAT CSV SETTINGS format_csv_delimiter = ','"
    answer = ask(query, headers=wanted, enable_http_compression=1)
    assert answer.headers["Content-Encoding"] == encoding
    assert DECOMPRESS[encoding](answer.data) == rows.replace(b"x", b'"x"')
    # Without the setting ClickHouse does not compress, whatever the client accepts.
    assert "Content-Encoding" not in ask("SELECT 1", headers=wanted).headers


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_compressed_body_may_be_many_pieces_empty_ones_too(
    ask: Ask, table: str, encoding: str
) -> None:
    compress = COMPRESS[encoding]
    body = compress(b"1,x\n") + compress(b"") * 5000 + compress(b"2,y\n") * 1000 + compress(b"")
    sent = ask(f"INSERT INTO {table} FORMAT CSV", body, headers={"Content-Encoding": encoding})
    assert sent.status == 200, sent.data
    assert ask(f"SELECT count(), sum(a) FROM {table}").data == b"1001\t2001\n"


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_broken_compressed_body_stores_nothing(ask: Ask, table: str, encoding: str) -> None:
    whole = COMPRESS[encoding](b"1,x\n" * 100)
    for body in (whole[:-5], b"nonsense"):
        answer = ask(
            f"INSERT INTO {table} FORMAT CSV", body, headers={"Content-Encoding": encoding}
        )
        assert code(answer) == (400, "271")
    assert ask(f"SELECT count() FROM {table}").data == b"0\n"


def test_unknown_ways_to_send_are_refused_by_name(ask: Ask, table: str) -> None:
    answer = ask(
        f"INSERT INTO {table} FORMAT CSV", b"1,x\n", headers={"Content-Encoding": "snappy"}
    )
    assert code(answer) == (400, "89")
    assert b"snappy" in answer.data
    assert code(ask("SELECT 1", compress=1)) == (400, "89")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert code(ask("SELECT 1", b"--x--", headers=form)) == (501, "48")


# Grafana's plugin: clickhouse-go over HTTP. Its requests as that client sends them.
PLUGIN = {
    "client_protocol_version": "54460",
    "database": "protocol",
    "default_format": "Native",
    "max_execution_time": "60",
}


def plugin(ask: Ask, statement: str, **url: str) -> urllib3.BaseHTTPResponse:
    headers = {"Accept-Encoding": "gzip", "User-Agent": "grafana/11.6.0 clickhouse-go/2"}
    return ask(None, statement.encode(), reader=True, headers=headers, **(PLUGIN | url))


def test_the_plugin_s_hello_is_answered_in_the_revision_that_it_reads(ask: Ask) -> None:
    answer = plugin(ask, "SELECT displayName(), version(), revision(), timezone()")
    body = answer.data
    # BlockInfo, four columns, one row; then a name, a type, a serialization flag and a value each.
    assert body.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\0")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in body
    assert body.endswith(b"\x0atimezone()\x06String\x00\x03UTC")


def test_the_plugin_s_queries_are_answered_in_plain_native(ask: Ask, table: str) -> None:
    ask(f"INSERT INTO {table} VALUES (1, 'x'), (2, 'y')")
    assert plugin(ask, "SELECT 1 AS a").data == b"\1\1\1a\5UInt8\1"
    assert plugin(ask, "SELECT 1 WHERE 0").headers["Content-Length"] == "0"
    filtered = plugin(
        ask, "SELECT count() AS n FROM t", additional_table_filters="{'protocol.t': 'a = 2'}"
    )
    assert filtered.data == b"\1\1\1n\6UInt64\1\0\0\0\0\0\0\0"
    assert plugin(ask, "SELECT a FROM t", limit="1").data == b"\1\1\1a\6UInt64\1\0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT name FROM system.databases",
        "SHOW TABLES FROM protocol",
        "DESCRIBE TABLE protocol.t",
        "SELECT name, type FROM system.columns WHERE database = 'protocol' AND table = 't'",
        "SELECT timezone()",
        "SELECT version()",
        "EXPLAIN SELECT 1",
    ],
)
def test_the_plugin_browses_the_schema(ask: Ask, table: str, statement: str) -> None:
    answer = plugin(ask, statement)
    assert answer.status == 200, answer.data
    assert answer.data


def test_the_plugin_reads_why_a_query_failed(ask: Ask) -> None:
    answer = plugin(ask, "SELECT * FROM nothing")
    assert code(answer) == (404, "60")
    assert b"UNKNOWN_TABLE" in answer.data


@pytest.mark.parametrize("reader", [False, True])
def test_expressions_are_not_compiled(ask: Ask, reader: bool) -> None:
    """What a start compiles anew costs more than it saves: also where others would (third time)."""
    sums = "SELECT sum(number * 3 + 7) FROM numbers(1000) WHERE number % 5 > 1 GROUP BY number % 3"
    compiled = "SELECT sum(value) FROM system.events WHERE event = 'CompileFunction'"
    for _ in range(5):
        assert ask(sums, reader=reader).status == 200
    assert ask(compiled).data.strip() == b"0"


def test_many_parts_wait_for_one_merge(ask: Ask) -> None:
    """Fewer merges of more parts write each row less often."""
    settings = ask(
        "SELECT value FROM system.merge_tree_settings "
        "WHERE name IN ('auto_statistics_types', 'merge_selector_base') ORDER BY name"
    )
    assert settings.data.decode().splitlines() == ["", "50"]
