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
