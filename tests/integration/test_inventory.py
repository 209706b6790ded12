"""Owners, labels, aliases, providers and hosts come to the tables beside what flows showed."""

import re
from pathlib import Path

import pytest

from exporter.address import pack_address
from exporter.config import Config
from exporter.enrich import NameSources
from exporter.enrich.host_names import HostFacts
from exporter.enrich.inventory import Inventory
from exporter.enrich.learned_interfaces import LearnedInterface
from tests.support.database import migrated_database

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/name-devices-and-hosts.md"
CONFIG = {
    "devices": [
        {
            "address": "192.0.2.1", "name": "edge1", "site": "fra", "role": "router",
            "owner": "neteng", "labels": {"rack": "r7"},
            "interfaces": {1: {"name": "transit", "provider": "Transit North"}},
        }
    ],
    "hosts": [
        {"address": "10.1.1.22", "name": "k122", "role": "vm", "owner": "interns"},
        {"address": "10.1.1.23", "name": "k123"},
    ],
}  # fmt: skip

FLOW = """INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, device_addr,
    site, role, in_if, in_if_name, out_if) VALUES (now64(3), now64(3), now64(3), '{}', '{}', 'fra',
    'router', 1, 'transit', 2)"""
DEVICES = """SELECT device, toString(device_addr), site, role, owner, labels,
    first_seen > now() - 300 AND first_seen <= now(), last_seen >= first_seen
    FROM devices FINAL ORDER BY device"""
INTERFACES = """SELECT device, interface, name, alias, provider, first_seen <= now()
    FROM interfaces FINAL ORDER BY device, interface"""
HOSTS = "SELECT toString(addr), name, role, owner FROM hosts FINAL ORDER BY addr"


@pytest.fixture(scope="module")
def database():
    with migrated_database() as made:
        yield made


def rows(client, query):
    return [tuple(row) for row in client.query(query).result_rows]


def test_the_tables_follow_what_is_known(database):
    names = NameSources(Config.model_validate(CONFIG))
    inventory = Inventory(database.connect, names)
    client = database.connect()
    inventory.store()
    assert rows(client, DEVICES) == []  # nobody has sent anything
    assert rows(client, HOSTS) == [("::ffff:10.1.1.22", "k122", "vm", "interns")]
    client.command(FLOW.format("edge1", "192.0.2.1"))
    client.command(FLOW.format("192.0.2.9", "192.0.2.9"))
    names.interfaces.put(
        pack_address("192.0.2.1"), {2: LearnedInterface("xe-0/0/2", "to the core", 10**10)}
    )
    for _ in range(2):
        inventory.store()
        assert rows(client, DEVICES) == [
            ("192.0.2.9", "::ffff:192.0.2.9", "fra", "router", None, None, 1, 1),
            ("edge1", "::ffff:192.0.2.1", "fra", "router", "neteng", '{"rack": "r7"}', 1, 1),
        ]
        assert rows(client, INTERFACES) == [
            ("192.0.2.9", 1, "transit", None, None, 1),
            ("192.0.2.9", 2, "", None, None, 1),
            ("edge1", 1, "transit", "", "Transit North", 1),
            ("edge1", 2, "", "to the core", "", 1),
        ]
        client.command(FLOW.format("edge1", "192.0.2.1"))  # flows take nothing of it away

    # Another configuration: an owner less, another owner, a host that is known no more.
    names.configure(Config.model_validate({"devices": [{"address": "192.0.2.1", "name": "edge1"}]}))
    names.hosts.layer("docker").update({pack_address("2001:db8::1"): HostFacts("c", "web", "")})
    inventory.store()
    assert rows(client, DEVICES)[1][4:6] == ("", "")
    assert rows(client, INTERFACES)[2][3:5] == ("", "")
    assert rows(client, HOSTS) == [
        ("::ffff:10.1.1.22", "", "", ""),
        ("2001:db8::1", "c", "web", ""),
    ]
    client.close()


def test_the_queries_of_the_documentation_give_use_and_owners(database):
    client = database.connect()
    client.command(
        "INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, in_if, bytes, "
        "src_addr, src_host, dst_host, packets) VALUES (now64(3), now64(3), now64(3), 'edge9', 1, "
        "375000000, '10.1.2.12', 'k212', 'gcr.io', 5)"
    )
    client.command(
        "INSERT INTO interfaces (device, interface, name, provider, first_seen) VALUES "
        "('edge9', 1, 'xe-1', 'Transit South', toDateTime('2106-02-07 00:00:00'))"
    )
    client.command("INSERT INTO interface_speeds VALUES ('edge9', 1, 100000000, now())")
    client.command("INSERT INTO hosts VALUES ('10.1.2.12', 'k212', 'vm', 'interns', now())")
    use, owners = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.S)
    assert rows(client, use) == [("edge9", "xe-1", "Transit South", 10.0)]
    assert rows(client, owners) == [("k212", "vm", "interns", 5)]
    client.close()
