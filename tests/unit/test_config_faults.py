"""A wrong configuration file is refused with the place and the reason, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import Config, ConfigError, load_yaml, read_secret


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"\0", "special characters are not allowed"),
        (b"--- {}\n--- {}", ":2: but found another document"),
        (b"http:\n  port: 1\n  port: 2", ":3: key 'port' is given twice"),
        (b"yes: 1", ":1: 1: Keys should be strings"),
        (b"? [a, b]\n: c", ":1: found unhashable key"),
        (b"!!python/object/apply:os.system [id]", ":1: could not determine a constructor"),
        (b"devices: &a [*a]", ":1: devices.0: "),
        (b"receive: {grpc: {keepalive_seconds: .inf}}", ":1: receive.grpc.keepalive_seconds: "),
        (b"clickhouse:\n  insert_timeout_seconds: 1e300", ":2: clickhouse.insert_timeout_seconds"),
        (b"clickhouse: {retention: {flows: {max_gigabytes: .nan}}}", "max_gigabytes: "),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "flow-exporter.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as told:
        load_yaml(file, Config)
    assert str(told.value).startswith(str(file))
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("http:\n\tport: 1", ":2: found character '\\t' that cannot start any token: indent with"),
        ("htpp: {}", ":1: htpp: there is no such setting: is http meant?"),
        ("http:\n  prot: 1", ":2: http.prot: there is no such setting: is port meant?"),
        (
            "devices:\n  - address: 10.0.0.1\n    interfaces: {1: {nome: a}}",
            ":3: devices.0.interfaces.1.nome: there is no such setting: is name meant?",
        ),
        (
            "clickhouse: {retention: {flows: {weeks: 1}}}",
            "flows.weeks: there is no such setting, but days, max_gigabytes",
        ),
        ("http:\n  port: web", ":2: http.port: a whole number is expected"),
        ("http:\n  - port: 1", ":1: http: settings are expected: lines of `name: value`"),
        ("- http", ":1: file: settings are expected: lines of `name: value`"),
        ("hosts: {}", ":1: hosts: a list is expected"),
        ("hosts:\n  - {address: 10.0.0.1, name: 12}", ":2: hosts.0.name: a text is expected: in q"),
        ("networks:\n  - name: a", ":2: networks.0.prefixes: is required"),
        (
            "networks:\n  - name: a\n    prefixes: [10.0.0.0/33]",
            ":3: networks.0.prefixes.0: '10.0.0.0/33' does not appear to be",
        ),
        (
            "networks:\n  - name: a\n    prefixes: [10.0.0.1/16]",
            ":3: networks.0.prefixes.0: 10.0.0.1/16 is an address in a network: is 10.0.0.0/16 mea",
        ),
        (
            "hosts:\n  - {address: 10.0.0.1, name: a}\n  - {address: 10.0.0.1, name: b}",
            ":3: hosts.1: 10.0.0.1 is listed twice",
        ),
        (
            "services:\n  - {port: 1, name: a}\n  - {port: 2, name: b}\n  - {port: 1, name: c}",
            ":4: services.2: 1/tcp is listed twice",
        ),
        (
            "services:\n  - name: a\n    port: 1\n    networks: [b]",
            ":4: services.0.networks: no network is named 'b'",
        ),
        (
            "devices:\n  - {address: 10.0.0.1, name: a}\n  - {address: 10.0.0.2, name: b, snmp: c}",
            ":3: devices.1.snmp: no snmp.access is named 'c'",
        ),
        ("counters: [{name: a, labels: [src_adr]}]", "no flow column is named 'src_adr'"),
        ("clickhouse:\n  url: localhost:8123", ":2: clickhouse.url: 'localhost:8123' is not an h"),
        ("clickhouse:\n  url: http://x:y", ":2: clickhouse.url: Port could not be cast"),
    ],
)
def test_a_fault_says_what_to_do(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "flow-exporter.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as told:
        load_yaml(file, Config)
    [line] = str(told.value).splitlines()
    assert line.startswith(str(file))
    assert said in line


def test_a_url_holds_no_password_and_its_refusal_none_either(tmp_path: Path) -> None:
    file = tmp_path / "flow-exporter.yaml"
    file.write_text("clickhouse:\n  url: http://me:geheim@store:8123\n")
    with pytest.raises(ConfigError, match=r":2: clickhouse\.url: must not hold a user") as told:
        load_yaml(file, Config)
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize(("name", "why"), [(".", "Is a directory"), ("none", "No such file")])
def test_what_is_no_file_is_told(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_yaml(tmp_path / name, Config)
    with pytest.raises(ConfigError, match=why):
        read_secret(str(tmp_path / name), "")


def test_a_secret_that_is_no_text_is_told_without_any_of_it(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"secret\xe9\n")
    with pytest.raises(ConfigError) as told:
        read_secret(str(file), "")
    assert str(told.value) == f"{file}: not UTF-8"
    assert told.value.__cause__ is None
