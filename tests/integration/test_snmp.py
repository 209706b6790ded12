"""Interfaces by SNMP, from Debian's snmpd on a free port of loopback."""

import json
import socket
import subprocess

import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import DictColumn, FlowBatch
from exporter.config import Device, Snmp
from exporter.enrich.devices import DeviceNames
from exporter.enrich.learned_interfaces import LearnedInterfaces
from exporter.enrich.snmp import SnmpPoller
from exporter.own_file import OwnFile
from tests.support.peers import udp_bound
from tests.support.programs import program
from tests.support.stack import free_port, soon, until

COMMUNITY, PASSWORD, KEY = "not public", "a long password", "another long password"
#: The loopback interface is there wherever the tests run.
LOOPBACK = socket.if_nametoindex("lo")


def serving(folder, text):
    port = free_port(socket.SOCK_DGRAM)
    config = folder / "snmpd.conf"
    config.write_text(text)
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [program("snmpd"), "-f", "-Lo", "-C", "-c", str(config), "-I", "-smux",
         "-p", str(folder / "pid"), f"udp:127.0.0.1:{port}"],
        stdout=log, stderr=subprocess.STDOUT,
        env={"SNMP_PERSISTENT_DIR": str(folder / "state"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    until("snmpd", 30, lambda: udp_bound(port))
    yield port
    process.terminate()
    process.wait(60)
    log.close()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """The port of an snmpd that knows a community and users."""
    yield from serving(
        tmp_path_factory.mktemp("snmpd"),
        f'rocommunity "{COMMUNITY}" 127.0.0.1\n'
        f'createUser signed SHA-256 "{PASSWORD}"\n'
        f'createUser secret SHA-512 "{PASSWORD}" AES "{KEY}"\n'
        "rouser signed authNoPriv\nrouser secret authPriv\n",
    )


@pytest.fixture
def liar(tmp_path):
    """The port of an snmpd whose interface has a number for a name."""
    yield from serving(
        tmp_path,
        f'rocommunity "{COMMUNITY}" 127.0.0.1\n'
        f"override .1.3.6.1.2.1.31.1.1.1.1.{LOOPBACK} integer 1000000\n",
    )


def access(tmp_path, port, **settings):
    for name, text in (("community", COMMUNITY), ("password", PASSWORD), ("key", KEY)):
        (tmp_path / name).write_text(text + "\n")
    return {"name": "site", "port": port, **settings}


def ways(tmp_path):
    file = lambda name: str(tmp_path / name)  # noqa: E731
    return {
        "2c": {"version": "2c", "community_file": file("community")},
        "signed": {"user": "signed", "auth_password_file": file("password")},
        "encrypted": {
            "user": "secret",
            "auth_protocol": "sha512",
            "auth_password_file": file("password"),
            "priv_password_file": file("key"),
        },
    }


def poller(learned, settings, *addresses):
    found = SnmpPoller(learned)
    devices = [Device(address=address, snmp="site") for address in addresses]
    found.configure(Snmp.model_validate(settings), devices)
    return found


@pytest.mark.parametrize("way", ["2c", "signed", "encrypted"])
def test_interfaces_are_learned(agent, tmp_path, way):
    learned = LearnedInterfaces()
    settings = {"access": [access(tmp_path, agent, **ways(tmp_path)[way])]}
    asked = poller(learned, settings, "127.0.0.1")
    asked.start()
    try:
        soon(lambda: learned.changes)
    finally:
        asked.stop()
    found = learned.of(pack_address("127.0.0.1"))[LOOPBACK]
    assert found.name == "lo"
    assert found.speed == 10_000_000  # as snmpd tells of a loopback


def test_a_device_that_does_not_answer_or_refuses_holds_up_no_other(agent, tmp_path):
    learned = LearnedInterfaces()
    way = {"version": "2c", "community_file": str(tmp_path / "community")}
    settings = {
        "access": [access(tmp_path, agent, **way)], "timeout_seconds": 5, "retries": 0,
        "parallel": 2,
    }  # fmt: skip
    # Nobody listens on 127.0.0.9, and the community is for 127.0.0.1 alone.
    asked = poller(learned, settings, "127.0.0.9", "127.0.0.8", "127.0.0.1")
    asked.start()
    try:
        soon(lambda: learned.changes)
        soon(lambda: len(failures(asked)) == 2)
    finally:
        asked.stop()
    assert learned.of(pack_address("127.0.0.1"))[LOOPBACK].name == "lo"
    assert set(failures(asked)) == {"127.0.0.8", "127.0.0.9"}


def test_a_fault_between_walks_is_counted_and_ends_nothing(agent, tmp_path, monkeypatch):
    learned = LearnedInterfaces()
    settings = {
        "access": [access(tmp_path, agent, **ways(tmp_path)["2c"])],
        "cache_file": str(tmp_path / "cache.json"),
    }
    asked = poller(learned, settings, "127.0.0.1")

    def broken():
        raise RuntimeError("made up")

    monkeypatch.setattr(learned, "snapshot", broken)
    monkeypatch.setattr(asked, "_saved", -1)  # something is to be saved in the first turn
    asked.start()
    try:
        soon(lambda: learned.changes)
    finally:
        asked.stop()
    family = next(m for m in asked.collect() if m.name == "flow_exporter_snmp_errors")
    assert family.samples[0].value > 0


def failures(asked):
    family = next(m for m in asked.collect() if m.name == "flow_exporter_snmp_failures")
    return [sample.labels["device"] for sample in family.samples if sample.value]


def test_a_name_that_is_a_number_does_not_become_as_many_octets(liar, tmp_path, caplog):
    learned = LearnedInterfaces()
    settings = {"access": [access(tmp_path, liar, **ways(tmp_path)["2c"])]}
    asked = poller(learned, settings, "127.0.0.1")
    asked.start()
    try:
        soon(lambda: learned.changes or failures(asked))
    finally:
        asked.stop()
    assert not learned.changes
    assert "a name of type Integer" in caplog.text


def test_what_was_learned_outlives_a_restart(agent, tmp_path, caplog):
    cache = tmp_path / "interfaces.json"
    way = {"version": "2c", "community_file": str(tmp_path / "community")}
    settings = {"access": [access(tmp_path, agent, **way)], "cache_file": str(cache)}
    asked = poller(LearnedInterfaces(), settings, "127.0.0.1")
    other = OwnFile("snmp.cache_file")
    other.hold(cache)  # as another collector's is
    asked.start()
    try:
        soon(lambda: "another collector uses it" in caplog.text)
        assert not cache.exists()
        other.release()
        soon(cache.exists)
    finally:
        asked.stop()
    again = LearnedInterfaces()
    poller(again, settings, "127.0.0.1")  # not started
    assert again.of(pack_address("127.0.0.1"))[LOOPBACK].name == "lo"
    cache.write_text(json.dumps({"127.0.0.1": 5}))
    poller(LearnedInterfaces(), settings, "127.0.0.1")  # a damaged file is no obstacle


def test_learned_names_win_over_told_and_configured_ones(agent, tmp_path):
    learned = LearnedInterfaces()
    way = {"version": "2c", "community_file": str(tmp_path / "community")}
    asked = poller(learned, {"access": [access(tmp_path, agent, **way)]}, "127.0.0.1")
    device = Device.model_validate(
        {"address": "127.0.0.1", "interfaces": {LOOPBACK: "configured", 4000: "configured"}}
    )
    names = DeviceNames([device], learned)

    def name_now():
        batch = FlowBatch(
            3,
            {
                "device_addr": np.frombuffer(3 * pack_address("127.0.0.1"), np.uint8).reshape(
                    3, 16
                ),
                "in_if": np.array([LOOPBACK, 4000, 4001], np.uint32),
                "in_if_name": DictColumn.encode(["told", "", "told too"]),
            },
        )
        names.apply(batch)
        return [row["in_if_name"] for row in batch.rows()]

    assert name_now() == ["told", "configured", "told too"]
    asked.start()
    try:
        soon(lambda: learned.changes)
    finally:
        asked.stop()
    assert name_now() == ["lo", "configured", "told too"]
