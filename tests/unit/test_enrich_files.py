"""Devices, networks, hosts and targets from files and servers, read again when they change."""

import contextlib
import http.server
import json
import os
import socket
import threading
import time

import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import FlowBatch
from exporter.config import Config, ConfigError, HostTargets, load_config
from exporter.config.name_files import (
    load_devices,
    load_hosts,
    load_networks,
    load_targets,
    target_host,
)
from exporter.enrich import NameSources
from exporter.enrich.host_names import HostFacts, HostNames, Layer
from exporter.enrich.name_files import NameFiles
from exporter.enrich.targets import TargetNames

DEVICES = """
- targets: ["192.0.2.1:161", "[2001:db8::1]:161"]
  labels: {name: edge, site: fra, role: router, owner: neteng, rack: r7, sampling_rate: "1000"}
  interfaces: {1: transit, 2: {name: ix, speed: 10000000000, provider: DE-CIX}}
- targets: [192.0.2.2]
"""


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_devices_in_the_form_of_file_sd(tmp_path):
    first, second, third = load_devices(written(tmp_path / "d.yml", DEVICES))
    assert (first.address, second.address) == ("192.0.2.1", "2001:db8::1")
    assert (first.name, first.site, first.role, first.owner) == ("edge", "fra", "router", "neteng")
    assert first.labels == {"rack": "r7"}
    assert first.sampling_rate == 1000
    assert first.interfaces[1].name == "transit"
    assert first.interfaces[2].model_dump() == {
        "name": "ix", "speed": 10_000_000_000, "provider": "DE-CIX",
    }  # fmt: skip
    assert third.name == ""


@pytest.mark.parametrize(
    ("load", "name", "text", "line", "what"),
    [
        (load_devices, "d.yml", "- targets: [192.0.2.1]\n- targets: [edge1]\n", 2, "IPv4"),
        (load_devices, "d.json", '[\n{"targets": ["192.0.2.1"], "label": {}}]', 2, "label"),
        (load_devices, "d.yml", "- targets: [192.0.2.1]\n  labels: {sampling_rate: x}", 1, "sampl"),
        (load_devices, "d.yml", "", 1, "list"),
        (load_networks, "n.yml", "- name: a\n  prefixes: [10.0.0.1/8]\n", 2, "meant"),
        (load_networks, "n.csv", "prefix,name\n# ours\n\n10.0.0.0/8,a\n10.0.0.1/8,b\n", 5, "meant"),
        (load_networks, "n.csv", "prefix,nam\n", 1, "nam"),
        (load_networks, "n.csv", "prefix,name,internal\n10.0.0.0/8,a,perhaps\n", 2, "internal"),
        (load_networks, "n.csv", "prefix,name\n10.0.0.0/8\n", 2, "1 values for 2"),
        (load_hosts, "h.csv", "address,name\n10.0.0.1,a\n10.0.0.999,b\n", 3, "10.0.0.999"),
        (load_networks, "n.csv", 'prefix,name\n10.0.0.0/8,"a\nb"\n', 2, "unexpected end"),
        (
            load_devices,
            "d.yml",
            "- labels: {}\n  targets: [2026-99-99]\n",
            2,
            "2026",
        ),
        (load_devices, "d.yml", "- targets: [192.0.2.1]\n- [a]: b\n", 2, "unhashable"),
        (load_hosts, "hosts", "10.0.0.1 a\n10.0.0.2\n", 2, "no name"),
        (load_hosts, "hosts", "# all\nnone a\n", 2, "none"),
        (load_hosts, "hosts", b"10.0.0.1 a\n10.0.0.2 \xff\n", 2, "not UTF-8"),
        (load_targets, "t.yml", b"- targets: []\n  labels: {a: \xff}\n", 2, "not UTF-8"),
        (
            load_networks,
            "n.csv",
            "prefix,name,internal\n10.0.0.0/8,a,yes\n11.0.0.0/8,a,no\n",
            3,
            "network a is internal",
        ),
        (
            load_hosts,
            "h.yaml",
            "- {address: 10.0.0.1, name: a}\n- {address: 10.0.0.1}\n",
            2,
            "name",
        ),
    ],
)
def test_a_fault_is_told_with_file_and_line(tmp_path, load, name, text, line, what):
    path = written(tmp_path / name, text)
    with pytest.raises(ConfigError, match=rf"^{path}:{line}: .*{what}"):
        load(path)


def test_labels_are_texts_as_they_are_written_as_prometheus_takes_them(tmp_path):
    text = "- targets: [10.0.0.1]\n  labels: {rack: 12, release: 1.10, on: true, left_out: }\n"
    (group,) = load_targets(written(tmp_path / "t.yml", text))
    assert group.labels == {"rack": "12", "release": "1.10", "on": "true", "left_out": ""}
    text = "- targets: [10.0.0.1]\n  labels: {sampling_rate: 100, rack: 07}\n"
    (device,) = load_devices(written(tmp_path / "d.yml", text))
    assert (device.sampling_rate, device.labels) == (100, {"rack": "07"})


def test_the_mark_before_utf_8_is_no_part_of_a_file(tmp_path):
    mark = b"\xef\xbb\xbf"
    (network,) = load_networks(written(tmp_path / "n.csv", mark + b"prefix,name\n10.0.0.0/8,a\n"))
    assert network.prefixes == ["10.0.0.0/8"]
    (host,) = load_hosts(written(tmp_path / "hosts", mark + b"10.0.0.1 a\n"))
    assert host.address == "10.0.0.1"
    (group,) = load_targets(written(tmp_path / "t.yml", mark + b"- targets: [10.0.0.1]\n"))
    assert group.targets == ["10.0.0.1"]


def test_a_version_with_size_and_time_of_the_one_before_is_another(tmp_path):
    file = written(tmp_path / "a.yml", "- targets: [192.0.2.1]\n  labels: {name: odd\n")
    os.utime(file, (1, 1))
    config = Config.model_validate({"device_files": [str(file)]})
    files = NameFiles()
    assert files.read(config) == set()
    file.write_text("- targets: [192.0.2.1]\n  labels: {name: a}\n")
    os.utime(file, (1, 1))
    assert files.read(config) == {"devices"}


def test_a_file_nested_without_end_is_an_error_too(tmp_path):
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_devices(written(tmp_path / "d.json", "[" * 5000))


def test_networks_as_csv(tmp_path):
    text = "prefix,name,internal\n10.0.0.0/8,ours,\n2001:db8::/32,ours,true\n11.0.0.0/8,cdn,no\n"
    ours, cdn = load_networks(written(tmp_path / "n.csv", text))
    assert (ours.name, ours.prefixes, ours.internal) == (
        "ours",
        ["10.0.0.0/8", "2001:db8::/32"],
        True,
    )
    assert (cdn.name, cdn.internal) == ("cdn", False)


def test_hosts_as_csv_and_as_etc_hosts(tmp_path):
    (host,) = load_hosts(written(tmp_path / "h.csv", "address,owner,name\n10.0.0.1,interns,k122\n"))
    assert (host.name, host.role, host.owner) == ("k122", "", "interns")
    text = "127.0.0.1\tlocalhost\n# all\n10.0.0.2 fl13 fl13.example.net # ingest\nfe80::1%lo0 l\n"
    hosts = load_hosts(written(tmp_path / "hosts", text))
    assert [(h.address, h.name) for h in hosts] == [
        ("127.0.0.1", "localhost"), ("10.0.0.2", "fl13"), ("fe80::1", "l"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("h:9100", "h"), ("h", "h"), ("10.0.0.1:1", "10.0.0.1"),
        ("[2001:db8::1]:9100", "2001:db8::1"), ("2001:db8::1", "2001:db8::1"),
    ],
)  # fmt: skip
def test_the_host_of_a_target(target, host):
    assert target_host(target) == host


def metrics(source):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in source.collect()
        for sample in family.samples
    }


def test_a_broken_version_leaves_the_old_one_in_force_until_it_is_mended(tmp_path, caplog):
    file = written(tmp_path / "a.yml", DEVICES)
    config = Config.model_validate({"device_files": [str(tmp_path / "*.yml")]})
    files = NameFiles()
    valid, errors = "flow_exporter_names_file_valid", "flow_exporter_names_file_errors_total"

    def names():
        return [device.name for device in files.merged(config).devices]

    assert files.read(config) == {"devices"}
    assert names() == ["edge", "edge", ""]
    assert files.read(config) == set()
    file.write_text("- targets: [nowhere]\n")
    for _ in range(3):  # told once, not at each look
        assert files.read(config) == set()
    assert names() == ["edge", "edge", ""]
    assert metrics(files)[valid, "devices", str(file)] == 0
    assert metrics(files)[errors, "devices"] == 1
    assert caplog.text.count(f"{file}:1: ") == 1
    file.write_text("- targets: [192.0.2.9]\n  labels: {name: new}\n")
    assert files.read(config) == {"devices"}
    assert names() == ["new"]
    assert metrics(files)[valid, "devices", str(file)] == 1
    written(tmp_path / "b.yml", "- targets: [192.0.2.8]\n  labels: {name: more}\n")
    assert files.read(config) == {"devices"}
    assert names() == ["new", "more"]
    file.unlink()
    assert files.read(config) == {"devices"}
    assert names() == ["more"]
    assert f"{file} is gone: its 1 devices are forgotten" in caplog.text
    assert metrics(files)["flow_exporter_names_files_forgotten_total", "devices"] == 1


@pytest.mark.parametrize("pattern", ["*.yml", "a.yml"])
def test_where_no_file_is_left_the_last_stays_in_force_and_that_is_told(tmp_path, caplog, pattern):
    file = written(tmp_path / "a.yml", DEVICES)
    config = Config.model_validate({"device_files": [str(tmp_path / pattern)]})
    files = NameFiles()
    files.read(config)
    before = files.merged(config).devices
    file.rename(tmp_path / "elsewhere")
    for _ in range(3):
        assert files.read(config) == set()
    assert files.merged(config).devices == before
    valid = "flow_exporter_names_file_valid", "devices", str(file)
    assert metrics(files)[valid] == 0
    assert metrics(files)["flow_exporter_names_file_errors_total", "devices"] == 1
    assert metrics(files)["flow_exporter_names_files_forgotten_total", "devices"] == 0
    assert caplog.text.count("nothing is there any more that") == 1
    (tmp_path / "elsewhere").rename(file)
    assert files.read(config) == set()
    assert metrics(files)[valid] == 1
    file.rename(tmp_path / "elsewhere")
    assert files.read(config) == set()
    assert metrics(files)["flow_exporter_names_file_errors_total", "devices"] == 2
    # Who takes the file out of the configuration means it.
    assert files.read(Config()) == {"devices"}
    assert metrics(files)["flow_exporter_names_files_forgotten_total", "devices"] == 0


def test_the_configuration_wins_over_files(tmp_path):
    config = Config.model_validate(
        {
            "devices": [{"address": "192.0.2.1", "name": "mine"}],
            "networks": [{"name": "a", "prefixes": ["10.0.0.0/8"], "internal": False}],
            "hosts": [{"address": "10.0.0.1", "name": "mine"}],
            "device_files": [str(written(tmp_path / "d.yml", DEVICES))],
            "network_files": [
                str(written(tmp_path / "n.csv", "prefix,name\n10.0.0.0/8,b\n11.0.0.0/8,a\n"))
            ],
            "host_files": [str(written(tmp_path / "hosts", "10.0.0.1 other\n10.0.0.2 more\n"))],
        }
    )
    sources = NameSources(config)
    assert [d.name for d in sources.config.devices] == ["mine", "edge", ""]
    ends = ["10.0.0.1", "11.0.0.2", "10.0.0.2"]
    rows = np.frombuffer(b"".join(map(pack_address, ends)), np.uint8).reshape(-1, 16)
    batch = sources.enricher.enrich(FlowBatch(3, {"src_addr": rows}))
    found = [(row["src_host"], row["src_network"], row["src_internal"]) for row in batch.rows()]
    assert found == [("mine", "a", 0), ("", "a", 0), ("more", "a", 0)]


A = pack_address("10.0.0.1")
B = pack_address("10.0.0.2")


class Targets(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self):
        good = self.headers["Authorization"] == "Bearer secret"
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(type(self).body)

    def log_message(self, *_):
        pass


def test_targets_of_files_and_servers_name_hosts(tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Targets)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/targets"
        token = str(written(tmp_path / "token", "secret\n"))
        group = {
            "targets": ["10.0.0.1:9100"],
            "labels": {"instance": "k122:9100", "owner": "interns"},
        }
        file = written(tmp_path / "t.json", json.dumps([group]))
        group = {"targets": ["10.0.0.2:9100", "localhost:9100"], "labels": {"role": "vm"}}
        Targets.body = json.dumps([group]).encode()
        hosts = HostNames()
        targets = TargetNames(hosts.layer("targets"))
        settings = {
            "files": [str(tmp_path / "*.json")],
            "http": [{"url": url, "token_file": token}],
        }
        targets.configure(HostTargets.model_validate(settings))
        targets.look()
        local = pack_address("127.0.0.1")
        known = [
            HostFacts("k122", "", "interns"),
            HostFacts("", "vm"),
            HostFacts("localhost", "vm"),
        ]
        assert hosts.find([A, B, local]) == known
        # Neither a broken file nor a server that fails takes away what is known.
        file.write_text("[{")
        Targets.body = b"no JSON"
        targets._origins[url].due = 0.0
        targets.look()
        assert hosts.find([A, B, local]) == known
        told = metrics(targets)
        assert told["flow_exporter_names_target_errors_total", "file"] == 1
        assert told["flow_exporter_names_target_errors_total", "http"] == 1
        assert told["flow_exporter_names_target_origin_valid", url] == 0
        file.write_text("[]")
        targets.look()
        assert hosts.find([A]) == [None]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000]
)
def test_a_server_that_answers_nonsense_holds_up_no_other_origin(tmp_path, answer):
    written(tmp_path / "t.json", '[{"targets": ["10.0.0.2"], "labels": {"name": "b"}}]')
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        hosts = HostNames()
        targets = TargetNames(hosts.layer("targets"))
        targets.configure(
            HostTargets.model_validate({"files": [f"{tmp_path}/*.json"], "http": [{"url": url}]})
        )
        targets.look()
        thread.join()
    assert hosts.find([B]) == [HostFacts("b")]
    told = metrics(targets)
    assert told["flow_exporter_names_target_errors_total", "http"] == 1
    assert told["flow_exporter_names_target_origin_valid", url] == 0


def test_a_server_whose_answer_never_ends_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.enrich.targets._HTTP_TIMEOUT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                while True:
                    connection.sendall(b" ")
                    time.sleep(0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        targets = TargetNames(HostNames().layer("targets"))
        targets.configure(HostTargets.model_validate({"http": [{"url": url}]}))
        targets.look()
        thread.join()
    assert metrics(targets)["flow_exporter_names_target_errors_total", "http"] == 1


def test_targets_that_are_as_they_were_are_not_gone_through_again(tmp_path, monkeypatch):
    file = written(tmp_path / "t.json", '[{"targets": ["10.0.0.1"], "labels": {"name": "a"}}]')
    hosts = HostNames()
    layer = hosts.layer("targets")
    replaced = []
    monkeypatch.setattr(
        layer, "replace", lambda facts: (replaced.append(facts), Layer.replace(layer, facts))
    )
    targets = TargetNames(layer)
    settings = {"files": [str(file)]}
    targets.configure(HostTargets.model_validate(settings))
    for _ in range(3):
        targets.look()
    assert len(replaced) == 1
    targets.configure(HostTargets.model_validate(settings | {"name_labels": ["other"]}))
    targets.look()
    assert hosts.find([A]) == [None]
    written(file, '[{"targets": ["10.0.0.1"], "labels": {"other": "b"}}]')
    targets.look()
    assert hosts.find([A]) == [HostFacts("b")]
    file.unlink()
    targets.look()
    assert hosts.find([A]) == [None]


def test_a_configuration_that_is_refused_leaves_all_of_the_one_before(tmp_path, monkeypatch):
    file = written(tmp_path / "hosts", "10.0.0.1 a\n")
    old = Config.model_validate({"host_files": [str(file)]})
    names = NameSources(old)
    monkeypatch.setattr("exporter.enrich.snmp.importlib.util.find_spec", lambda _: None)
    access = {"access": [{"name": "site", "user": "u"}]}
    devices = [{"address": "192.0.2.1", "snmp": "site"}]
    with pytest.raises(ConfigError, match="not installed"):
        names.configure(Config.model_validate({"snmp": access, "devices": devices}))
    monkeypatch.setattr("exporter.enrich.sources.POLL_SECONDS", 0.05)
    written(file, "10.0.0.1 another\n")
    changed = threading.Event()
    names.on_change = changed.set
    names.start()
    try:
        assert changed.wait(120)
    finally:
        names.stop()
    assert names.hosts.find([A]) == [HostFacts("another")]
    assert not names.config.devices


def test_devices_that_cannot_be_asked_have_their_names_all_the_same(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("exporter.enrich.sources.POLL_SECONDS", 0.05)
    file = written(tmp_path / "d.yml", "- targets: [192.0.2.1]\n  labels: {name: before}\n")
    access = {"access": [{"name": "site", "user": "u"}]}
    names = NameSources(Config.model_validate({"snmp": access, "device_files": [str(file)]}))
    monkeypatch.setattr("exporter.enrich.snmp.importlib.util.find_spec", lambda _: None)
    changed = threading.Event()
    names.on_change = changed.set
    names.start()
    try:
        written(file, "- targets: [192.0.2.1]\n  labels: {name: after, snmp: site}\n")
        assert changed.wait(120)
    finally:
        names.stop()
    assert [device.name for device in names.config.devices] == ["after"]
    assert "not installed" in caplog.text
    assert metrics(names)["flow_exporter_snmp_errors_total",] == 1


def test_secrets_in_urls_are_in_no_metric_and_no_log(tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/sd"
    targets = TargetNames(HostNames().layer("targets"))
    servers = [{"url": f"{url}?token=geheim{n}"} for n in range(2)]
    targets.configure(HostTargets.model_validate({"http": servers}))
    targets.look()
    told = metrics(targets)
    assert told["flow_exporter_names_target_origin_valid", url] == 0
    assert told["flow_exporter_names_target_origin_valid", f"{url} (2)"] == 0
    assert url in caplog.text
    assert "geheim" not in caplog.text
    file = written(
        tmp_path / "c.yaml", "host_targets:\n  http:\n    - url: http://me:geheim@sd.example/\n"
    )
    with pytest.raises(ConfigError, match=r"c\.yaml:3: .*user or a password") as refused:
        load_config(file)
    assert "geheim" not in str(refused.value)


def test_names_that_take_long_to_resolve_hold_up_no_others(tmp_path, monkeypatch):
    asked = []

    def slow(host, *_, **__):
        asked.append(host)
        time.sleep(0.02)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr("exporter.enrich.targets._RESOLVE_BUDGET_SECONDS", 0.05)
    group = {"targets": [f"host{n}.example" for n in range(50)]}
    written(tmp_path / "a.json", json.dumps([group]))
    written(tmp_path / "b.json", '[{"targets": ["10.0.0.1"], "labels": {"name": "a"}}]')
    hosts = HostNames()
    targets = TargetNames(hosts.layer("targets"))
    targets.configure(HostTargets.model_validate({"files": [f"{tmp_path}/*.json"]}))
    targets.look()
    assert hosts.find([A]) == [HostFacts("a")]
    assert 1 <= len(asked) <= 4
    for _ in range(60):
        targets.look()
    assert sorted(asked) == sorted(group["targets"])  # each once, for now
