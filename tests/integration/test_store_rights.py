"""Who may do what in the embedded store, and that nobody reaches beyond its data."""

from __future__ import annotations

import base64
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.support.store import RunningStore, running_store


@pytest.fixture(scope="module")
def table(store: RunningStore) -> str:
    with store.client() as client:
        client.command("CREATE DATABASE IF NOT EXISTS rights")
        client.command("CREATE TABLE rights.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        client.command("INSERT INTO rights.t VALUES (1)")
    return "rights.t"


def post(store: RunningStore, statement: str, *, reader: bool) -> tuple[int, str]:
    response = urllib3.request(
        "POST",
        store.url,
        body=statement.encode(),
        headers=store.authorization(reader=reader),
    )
    return response.status, response.data.decode()


def test_passwords_are_made_for_the_owner_only(store: RunningStore) -> None:
    for name in ("writer.password", "reader.password"):
        path = store.data_dir / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_text().strip()) >= 24
    assert store.password != store.reader_password


def test_passwords_may_come_from_the_environment() -> None:
    given = {"FLOW_STORE_WRITER_PASSWORD": "w-secret", "FLOW_STORE_READER_PASSWORD": "r-secret"}
    with running_store(environment=given) as store:
        assert not (store.data_dir / "writer.password").exists()
        headers = urllib3.make_headers(basic_auth="flow_reader:r-secret")
        answer = urllib3.request("GET", store.url + "/?query=SELECT+1", headers=headers)
        assert answer.data == b"1\n"
        assert "secret" not in store.log.read_text()


def test_all_ways_to_say_who_one_is(store: RunningStore) -> None:
    password = store.reader_password
    basic = base64.b64encode(f"flow_reader:{password}".encode()).decode()
    for headers, url in (
        ({"X-ClickHouse-User": "flow_reader", "X-ClickHouse-Key": password}, ""),
        ({"Authorization": f"Basic {basic}"}, ""),
        ({}, f"&user=flow_reader&password={password}"),
    ):
        answer = urllib3.request("GET", f"{store.url}/?query=SELECT+1{url}", headers=headers)
        assert answer.data == b"1\n"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-ClickHouse-User": "flow_writer"},
        {"X-ClickHouse-User": "flow_writer", "X-ClickHouse-Key": "wrong"},
        {"X-ClickHouse-User": "nobody", "X-ClickHouse-Key": ""},
        {"X-ClickHouse-User": "", "X-ClickHouse-Key": ""},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Bearer x"},
    ],
)
def test_nobody_else_gets_in(store: RunningStore, headers: dict[str, str]) -> None:
    answer = urllib3.request("GET", f"{store.url}/?query=SELECT+1", headers=headers)
    assert answer.status == 403
    assert answer.headers["X-ClickHouse-Exception-Code"] == "516"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO rights.t VALUES (2)",
        "INSERT INTO rights.t SELECT 2",
        "CREATE TABLE rights.x (a UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE x (a UInt8)",
        "DROP TABLE rights.t",
        "TRUNCATE TABLE rights.t",
        "ALTER TABLE rights.t DELETE WHERE 1",
        "OPTIMIZE TABLE rights.t",
        "KILL QUERY WHERE 1",
        "SYSTEM STOP MERGES",
        "BACKUP TABLE rights.t TO Disk('backups', 'x')",
        "SET readonly = 0",
        "SELECT 1 SETTINGS allow_ddl = 1",
        "EXECUTE AS default SELECT 1",
    ],
)
def test_the_reader_changes_nothing(store: RunningStore, table: str, statement: str) -> None:
    status, text = post(store, statement, reader=True)
    assert status == 403, text
    assert "Code: 164" in text
    assert post(store, f"SELECT count() FROM {table}", reader=True) == (200, "1\n")


def test_the_reader_may_ask_for_less_but_not_for_more(store: RunningStore) -> None:
    with store.client(reader=True) as client:

        def setting(name: str, value: str) -> str:
            answer = urllib3.request(
                "POST",
                f"{store.url}/?{name}={value}",
                body=f"SELECT getSetting('{name}')",
                headers=store.authorization(reader=True),
            )
            return answer.data.decode().strip()

        assert float(setting("max_execution_time", "5")) == 5
        assert float(setting("max_execution_time", "0")) == 60
        assert float(setting("max_execution_time", "86400")) == 60
        for wish in ("0", "99G", "4294967296K", "1e30", "-1", "nan"):
            assert int(setting("max_memory_usage", wish)) == 2 << 30
        assert int(setting("max_threads", "1")) == 1
        assert int(setting("max_threads", "512")) == os.cpu_count()
        assert client.command("SELECT getSetting('readonly')") == 1
        for name in ("allow_introspection_functions", "readonly'", "max_threads,readonly"):
            assert "Code: " in setting(name, "0")


#: Everything that reads or writes outside of the data directory, in many disguises.
ESCAPES = [
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    r"SELECT `fi\x6ce`('/etc/passwd')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
    "WITH file('/etc/passwd') AS x SELECT x",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "EXPLAIN SELECT file('/etc/passwd')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "DESCRIBE file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM python(x)",
    "SELECT * FROM Python(password)",
    "SELECT * FROM executable('id', 'LineAsString', 'x String')",
    "SELECT * FROM sqlite('/tmp/x.db', 't')",
    "SELECT 1 INTO OUTFILE '/tmp/flow-store-escape'",
    "SELECT 1 FORMAT CSV SETTINGS max_threads = 1 INTO OUTFILE '/tmp/flow-store-escape'",
    "EXPLAIN SELECT 1 INTO OUTFILE '/tmp/flow-store-escape'",
    "SHOW TABLES INTO OUTFILE '/tmp/flow-store-escape'",
    "KILL QUERY WHERE 0 INTO OUTFILE '/tmp/flow-store-escape'",
    "SELECT 1 INTO/**/OUTFILE $$/tmp/flow-store-escape$$",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    r"SELECT arrayMap(`fi\x6ce`, ['/etc/passwd'])",
    "SELECT b FROM values('a String, b String ALIAS file(''/etc/passwd'')', 'x')",
    "SELECT b FROM values(concat('a String, b String AL', 'IAS f', 'ile(''/etc/passwd'')'), 'x')",
    "SELECT b FROM generateRandom('a String, b String ALIAS file(''/etc/passwd'')') LIMIT 1",
    "SELECT number FROM numbers(2) FORMAT ProtobufList "
    "SETTINGS output_format_schema = '/tmp/flow-store-escape'",
    "SELECT * FROM eval(concat('SELECT f', 'ile(''/etc/passwd'')'))",
    "SELECT * FROM (SELECT * FROM eval(concat('SELECT f', 'ile(''/etc/passwd'')')) "
    "SETTINGS allow_experimental_eval_table_function = 1)",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/passwd'",
    "SELECT * FROM filesystem('/etc')",
]


@pytest.mark.parametrize("reader", [True, False])
@pytest.mark.parametrize("statement", ESCAPES)
def test_nobody_reaches_beyond_the_data(store: RunningStore, statement: str, reader: bool) -> None:
    status, text = post(store, statement, reader=reader)
    assert status >= 400, text
    assert "root:" not in text
    assert not Path("/tmp/flow-store-escape").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO rights.t FROM INFILE '/etc/passwd' FORMAT LineAsString",
        "INSERT INTO FUNCTION file('/tmp/flow-store-escape', 'CSV', 'a UInt8') SELECT 1",
        "INSERT INTO FUNCTION file('/tmp/flow-store-escape', 'CSV', 'a UInt8') VALUES (1)",
        "CREATE TABLE rights.f (a String) ENGINE = File(LineAsString, '/etc/passwd')",
        "CREATE TABLE rights.u (a String) ENGINE = URL('http://127.0.0.1:1/', 'LineAsString')",
        "CREATE TABLE rights.q (a String) ENGINE = SQLite('/tmp/x.db', 't')",
        "CREATE VIEW rights.v AS SELECT file('/etc/passwd')",
        "CREATE TABLE rights.d (a UInt8, b String DEFAULT file('/etc/passwd')) ENGINE = Memory",
        "ALTER TABLE rights.t ADD COLUMN b String MATERIALIZED file('/etc/passwd')",
        "CREATE FUNCTION f AS x -> file(x)",
        "BACKUP TABLE rights.t TO File('/tmp/flow-store-escape')",
        "BACKUP TABLE rights.t TO Disk('backups', '../../../../tmp/flow-store-escape')",
        "BACKUP TABLE rights.t TO Disk('default', 'escape')",
        "CREATE DICTIONARY rights.d (a UInt64, b String) PRIMARY KEY a "
        "SOURCE(EXECUTABLE(command 'touch /tmp/flow-store-escape' format 'TSV')) "
        "LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE DICTIONARY rights.d (a UInt64) PRIMARY KEY a "
        "SOURCE(HTTP(url 'http://127.0.0.1:1/' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE TABLE rights.k (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = "
        "disk(type = object_storage, object_storage_type = local_blob_storage, "
        "path = '/tmp/flow-store-escape/')",
        "CREATE VIEW rights.v AS SELECT arrayMap(file, ['/etc/passwd'])",
        "INSERT INTO rights.t SETTINGS format_template_row = '/etc/passwd' FORMAT Template x",
        "INSERT INTO rights.t SETTINGS format_avro_schema_registry_url = 'http://127.0.0.1:1/' "
        "FORMAT AvroConfluent \n\0\0\0\0\1x",
        "SELECT * FROM format(Values, 'a String', concat('(f', 'ile(''/etc/passwd''))'))",
        "INSERT INTO FUNCTION null('a String ALIAS file(1)') SELECT 1",
        r"INSERT INTO FUNCTION null('a String ALIAS fi\x6ce(1)') SELECT 1",
        "INSERT INTO FUNCTION NULL /**/\n('a String ALIAS fi\\x6ce(1)') SELECT 1",
        "INSERT INTO FUNCTION null -- \n('a String ALIAS fi\\x6ce(1)') SELECT 1",
        r"INSERT INTO FUNCTION `null`('a String ALIAS fi\x6ce(1)') SELECT 1",
        "CREATE USER intruder",
        "GRANT ALL ON *.* TO default",
    ],
)
def test_nor_does_the_writer(store: RunningStore, table: str, statement: str) -> None:
    status, text = post(store, statement, reader=False)
    assert status >= 400, text
    assert not Path("/tmp/flow-store-escape").exists()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "values",
    [
        "(file('/etc/passwd'))",
        r"(`fi\x6ce`('/etc/passwd'))",
        "('" + "x" * (17 << 20) + "'), (file('/etc/passwd'))",
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        "VALUES",
        "FORMAT values",
        "SETTINGS input_format_values_interpret_expressions = 1 VALUES",
    ],
)
def test_values_reach_no_files(store: RunningStore, values: str, words: str) -> None:
    post(store, "CREATE TABLE rights.s (a String) ENGINE = MergeTree ORDER BY a", reader=False)
    status, text = post(store, f"INSERT INTO rights.s {words} {values}", reader=False)
    assert status >= 400, text
    assert post(store, "SELECT count() FROM rights.s", reader=False) == (200, "0\n")
    post(store, "DROP TABLE rights.s SYNC", reader=False)


def test_values_may_be_expressions_and_words(store: RunningStore) -> None:
    post(store, "CREATE TABLE rights.w (a String) ENGINE = MergeTree ORDER BY a", reader=False)
    status, text = post(
        store, "INSERT INTO rights.w VALUES (upper('x')), (toString(1 + 1))", reader=False
    )
    assert status == 200, text
    status, text = post(
        store,
        "INSERT INTO rights.w VALUES ('a file'), (concat('file', '()')), ('b');",
        reader=False,
    )
    assert status == 200, text
    rows = post(store, "SELECT a FROM rights.w ORDER BY a", reader=False)
    assert rows == (200, "2\nX\na file\nb\nfile()\n")
    post(store, "DROP TABLE rights.w SYNC", reader=False)


@pytest.mark.parametrize(
    "condition", [r"file(\'/etc/passwd\') != \'\'", r"1 INTO OUTFILE \'/tmp/flow-store-escape\'"]
)
def test_a_filter_is_looked_at_like_a_query(
    store: RunningStore, table: str, condition: str
) -> None:
    status, text = post(
        store,
        f"SELECT count() FROM {table} SETTINGS additional_table_filters = "
        f"{{'rights.t': '{condition}'}}",
        reader=True,
    )
    assert status >= 400, text
    assert not Path("/tmp/flow-store-escape").exists()


@pytest.mark.parametrize("name", ["file", "`file`"])
def test_a_parameter_names_no_function(store: RunningStore, name: str) -> None:
    answer = urllib3.request(
        "POST",
        f"{store.url}/?param_f={name}",
        body="SELECT arrayMap({f:Identifier}, ['/etc/passwd'])",
        headers=store.authorization(reader=True),
    )
    assert answer.status >= 400
    assert b"root:" not in answer.data


def test_where_guards_fail_the_kernel_keeps_files_programs_and_servers(tmp_path: Path) -> None:
    """What no guard has heard of yet: here the system calls themselves, in a process of its own."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "secret").write_text("secret")
    program = f"""
import os, socket, subprocess, sys
from pathlib import Path
from exporter.store.server.confine import confine
mine = Path({str(tmp_path / "mine")!r})
if not confine([mine]):
    sys.exit("this kernel has no Landlock")
(mine / "a").mkdir()
(mine / "file").write_text("here")
os.rename(mine / "file", mine / "a" / "file")
assert (mine / "a" / "file").read_text() == "here"
def refused(attempt):
    try:
        attempt()
    except PermissionError:
        return
    raise AssertionError(attempt)
refused(lambda: (mine.parent / "secret").read_text())
refused(lambda: (mine.parent / "secret").write_text(""))
refused(lambda: (mine.parent / "other").mkdir())
refused(lambda: Path("/proc/self/environ").read_text())
refused(lambda: subprocess.run(["/bin/true"]))
assert os.environ["PASSWORD"] == "secret"
assert not Path("/proc/thread-self/environ").read_bytes().strip(bytes(1))
# What the kernel may not forget, as the rules of it would be forgotten with it.
kept = {{os.readlink(entry.path) for entry in os.scandir("/proc/thread-self/fd")}}
assert {{"/proc/meminfo", f"/proc/{{os.getpid()}}/task"}} <= kept, kept
"""
    with_network = """
refused(lambda: socket.create_connection(("127.0.0.1", 1)))
"""
    # Connections are the kernel's matter since Linux 6.7 only.
    if tuple(map(int, platform.release().split(".")[:2])) >= (6, 7):
        program += with_network
    environment = os.environ | {"PASSWORD": "secret"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "secret").read_text() == "secret"


def test_the_store_is_kept_to_its_folder(store: RunningStore) -> None:
    status = Path(f"/proc/{store.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Landlock" not in store.log.read_text()


def test_the_kernel_refuses_nothing_that_the_engine_needs(store: RunningStore) -> None:
    """What its threads cannot read they try again and again, each time with a stack trace."""
    with store.client() as client:
        client.command("SELECT sum(number) FROM numbers_mt(1000000)")
        refused = client.query(
            "SELECT name, last_error_message FROM system.errors "
            "WHERE last_error_message LIKE '%/proc/%Permission denied%'"
        )
    assert refused.result_rows == []


@pytest.mark.parametrize(
    "name", ["additional_table_filters", r"`addit\x69onal_table_filters`"], ids=["plain", "escaped"]
)
@pytest.mark.parametrize("around", ["{}", "SELECT * FROM ({})"], ids=["outer", "inner"])
def test_nor_does_the_writer_by_a_filter(
    store: RunningStore, table: str, around: str, name: str
) -> None:
    query = (
        f"SELECT count() FROM {table} SETTINGS {name} = "
        r"{'rights.t': 'fi\x6ce(\'/etc/passwd\') != \'\''}"
    )
    status, text = post(store, around.format(query), reader=False)
    assert status in (400, 403, 404), text
    assert "Permission denied" not in text


def test_the_word_file_in_data_is_just_a_word(store: RunningStore) -> None:
    with store.client(reader=True) as client:
        answer = client.query("SELECT 'file(''/etc/passwd'')' AS `file`, 'INTO OUTFILE' AS outfile")
        assert answer.first_row == ("file('/etc/passwd')", "INTO OUTFILE")


def test_the_client_tells_a_reader_why(store: RunningStore, table: str) -> None:
    with (
        store.client(reader=True) as client,
        pytest.raises(DatabaseError, match="readonly mode"),
    ):
        client.insert(table, [[2]], column_names=["a"])
