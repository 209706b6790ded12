"""Settings of dnstap and of names from DNS."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import Config, ConfigError, load_config


def load(folder: Path, text: str) -> Config:
    file = folder / "flow-exporter.yaml"
    file.write_text(text)
    return load_config(file)


def test_resolvers_may_come_by_path_and_by_port(tmp_path: Path) -> None:
    config = load(tmp_path, "receive:\n  dnstap:\n    - socket: tap.sock\n    - port: 6000\n")
    by_path, by_port = config.receive.dnstap
    assert (by_path.socket, by_path.mode) == (str(tmp_path / "tap.sock"), "0660")
    assert (by_port.address, by_port.port) == ("127.0.0.1", 6000)


def test_nobody_listens_and_nobody_is_asked_by_default(tmp_path: Path) -> None:
    config = load(tmp_path, "{}")
    assert config.receive.dnstap == []
    assert not config.dns.reverse.enabled


@pytest.mark.parametrize(
    ("entry", "line", "what"),
    [
        ("{socket: a, port: 1}", 3, "give either `socket` or `port`"),
        ("{address: 127.0.0.1}", 3, "give either `socket` or `port`"),
        ("{socket: a, mode: '0999'}", 3, "mode"),
        ("{port: 1, address: localhost}", 3, "address"),
    ],
)
def test_a_wrong_socket_is_told_with_its_line(
    tmp_path: Path, entry: str, line: int, what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load(tmp_path, f"receive:\n  dnstap:\n    - {entry}\n")
    assert f"flow-exporter.yaml:{line}:" in str(caught.value)


def test_wrong_networks_and_resolvers_are_told(tmp_path: Path) -> None:
    for text in ("networks: [10.0.0.1/8]", "servers: [dns.example]", "queries_per_second: 0"):
        with pytest.raises(ConfigError, match=r"flow-exporter\.yaml:3: dns\.reverse"):
            load(tmp_path, f"dns:\n  reverse:\n    {text}\n")
