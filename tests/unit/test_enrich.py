"""Enrichment: names for devices, interfaces, hosts, networks and services."""

import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.address import pack_address
from exporter.batch import DictColumn, FlowBatch
from exporter.config import Config
from exporter.distinct import distinct_addresses
from exporter.enrich import NameSources
from exporter.enrich.prefixes import PrefixTable
from exporter.enrich.registered_ports import registered_ports
from exporter.enrich.well_known import WELL_KNOWN
from exporter.schema import Source
from tests.support.batches import encode_native


def addresses(*texts):
    return np.frombuffer(b"".join(map(pack_address, texts)), np.uint8).reshape(-1, 16)


def enricher(config):
    return NameSources(Config.model_validate(config)).enricher


def enrich(config, **columns):
    """Rows of an enriched batch made from lists; addresses are given as text."""
    made = {}
    for name, values in columns.items():
        if name.endswith("_addr"):
            made[name] = addresses(*values)
        elif isinstance(values[0], str):
            made[name] = DictColumn.encode(values)
        else:
            made[name] = np.array(values, {"proto": np.uint8}.get(name, np.uint16))
    length = len(next(iter(columns.values())))
    batch = FlowBatch(length, made)
    assert enricher(config).enrich(batch) is batch
    for column in batch.columns.values():
        assert len(column) == length
        if isinstance(column, DictColumn):
            assert len(set(column.values)) == len(column.values)
    return list(batch.rows())


def column(rows, name):
    return [row[name] for row in rows]


def test_devices_are_named_and_strangers_keep_their_address():
    rows = enrich(
        {
            "devices": [
                {
                    "address": "10.0.0.1",
                    "name": "edge1",
                    "site": "ams",
                    "role": "router",
                    "owner": "neteng",
                },
                {"address": "2001:db8::1", "name": "edge1"},
                {"address": "10.0.0.3", "site": "fra"},
            ]
        },
        device_addr=["10.0.0.1", "10.9.9.9", "2001:db8::1", "10.0.0.3", "10.0.0.1"],
    )
    assert column(rows, "device") == ["edge1", "10.9.9.9", "edge1", "10.0.0.3", "edge1"]
    assert column(rows, "site") == ["ams", "", "", "fra", "ams"]
    assert column(rows, "role") == ["router", "", "", "", "router"]
    assert column(rows, "owner") == ["neteng", "", "", "", "neteng"]


def test_agents_are_hosts_unless_another_role_is_configured():
    batch = FlowBatch(
        4,
        {
            "device_addr": addresses("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"),
            "source": np.array([Source.EBPF, Source.EBPF, Source.IPFIX, Source.EBPF], np.int8),
        },
    )
    enricher({"devices": [{"address": "10.0.0.2", "role": "gateway"}]}).enrich(batch)
    assert column(list(batch.rows()), "role") == ["host", "gateway", "", "host"]


def test_configured_interface_names_fill_only_what_the_device_left_empty():
    rows = enrich(
        {"devices": [{"address": "10.0.0.1", "interfaces": {1: "transit", 2: "ix"}}]},
        device_addr=["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"],
        in_if=[1, 2, 3, 1],
        out_if=[2, 2, 2, 2],
        out_if_name=["told", "", "", ""],
    )
    assert column(rows, "in_if_name") == ["transit", "ix", "", ""]
    assert column(rows, "out_if_name") == ["told", "ix", "ix", ""]


def test_hosts_and_networks_of_both_ends_the_longest_prefix_wins():
    rows = enrich(
        {
            "hosts": [
                {"address": "10.1.0.7", "name": "fl13"},
                {"address": "2001:db8::7", "name": "fl13"},
            ],
            "networks": [
                {"name": "all", "prefixes": ["10.0.0.0/8", "2001:db8::/32"]},
                {"name": "production", "prefixes": ["10.1.0.0/16", "2001:db8::/64"]},
                {"name": "wifi", "prefixes": ["10.1.128.0/17"]},
            ],
        },
        src_addr=["10.1.0.7", "10.1.128.1", "10.2.0.1", "192.0.2.1", "2001:db8::7"],
        dst_addr=["10.0.0.0", "10.255.255.255", "11.0.0.0", "9.255.255.255", "10.1.0.7"],
    )
    assert column(rows, "src_host") == ["fl13", "", "", "", "fl13"]
    assert column(rows, "src_network") == ["production", "wifi", "all", "", "production"]
    assert column(rows, "dst_host") == ["", "", "", "", "fl13"]
    assert column(rows, "dst_network") == ["all", "all", "", "", "production"]


@pytest.mark.parametrize(
    ("proto", "src", "dst", "service", "src_service", "dst_service"),
    [
        (6, 40000, 443, "https", "", "https"),
        (6, 443, 40000, "https", "https", ""),
        (17, 53, 123, "domain", "domain", "ntp"),  # both well known: the lower port
        (17, 123, 53, "domain", "ntp", "domain"),
        (6, 80, 14999, "aggregation", "http", "aggregation"),  # ours before well known
        (6, 14999, 80, "aggregation", "aggregation", "http"),
        (6, 20012, 14999, "aggregation", "ingest", "aggregation"),
        (17, 40000, 14999, "", "", ""),  # configured for TCP only
        (6, 40000, 40001, "", "", ""),
        (6, 8080, 40001, "web", "web", ""),  # our name for a well-known port
        (1, 0, 53, "", "", ""),  # no ports in ICMP
    ],
)
def test_a_flow_belongs_to_the_service_at_its_named_end(
    proto, src, dst, service, src_service, dst_service
):
    (row,) = enrich(
        {
            "services": [
                {"port": 14999, "name": "aggregation"},
                {"port": 20012, "name": "ingest"},
                {"port": 8080, "name": "web"},
            ]
        },
        proto=[proto],
        src_port=[src],
        dst_port=[dst],
    )
    assert (row["service"], row["src_service"], row["dst_service"]) == (
        service,
        src_service,
        dst_service,
    )


SCOPED = {
    "networks": [{"name": "lab", "prefixes": ["10.5.0.0/16"]}],
    "services": [
        {"port": 9000, "name": "everywhere"},
        {"port": 9000, "name": "here", "addresses": ["10.1.0.0/16"]},
        {"port": 9000, "name": "on one host", "addresses": ["10.1.0.7"]},
        {"port": 9001, "name": "other", "addresses": ["10.1.0.0/16"]},
        {"port": 9000, "name": "in the lab", "networks": ["lab"]},
        {"port": 443, "name": "admin", "networks": ["lab"]},
    ],
}


@pytest.mark.parametrize(
    ("address", "port", "service"),
    [
        ("192.0.2.1", 9000, "everywhere"),
        ("10.1.0.1", 9000, "here"),
        ("10.1.0.7", 9000, "on one host"),
        ("10.1.0.7", 9001, "other"),  # that of the wider prefix
        ("192.0.2.1", 9001, "etlservicemgr"),  # registered
        ("10.5.0.1", 9000, "in the lab"),
        ("10.5.0.1", 443, "admin"),
        ("10.1.0.7", 443, "https"),
        ("2001:db8::1", 443, "https"),
    ],
)
@pytest.mark.parametrize("end", ["src", "dst"])
def test_a_port_can_mean_something_else_at_some_addresses(end, address, port, service):
    other = {"src": "dst", "dst": "src"}[end]
    (row,) = enrich(
        SCOPED,
        proto=[6],
        **{
            f"{end}_addr": [address],
            f"{other}_addr": ["203.0.113.1"],
            f"{end}_port": [port],
            f"{other}_port": [50000],
        },
    )
    assert (row["service"], row[f"{end}_service"], row[f"{other}_service"]) == (
        service,
        service,
        "",
    )


SYN, SYN_ACK, LONGER = 0x02, 0x12, 0x1B


@pytest.mark.parametrize(
    ("src", "dst", "flags", "service"),
    [
        (40000, 5190, LONGER, "aol"),  # registered
        (5190, 40000, LONGER, "aol"),
        (5190, 40000, SYN, ""),  # the port is the client's own
        (40000, 5190, SYN_ACK, ""),
        (5190, 40000, SYN_ACK, "aol"),
        (5190, 8080, SYN, "http-alt"),
        (5190, 8080, LONGER, "http-alt"),  # well known before registered
        (40842, 50000, LONGER, ""),  # registered, but among the ports of clients
    ],
)
def test_a_registered_port_counts_unless_it_is_the_clients(src, dst, flags, service):
    (row,) = enrich({}, proto=[6], src_port=[src], dst_port=[dst], tcp_flags=[flags])
    assert row["service"] == service


@pytest.mark.parametrize(("flags", "service"), [(SYN, "server"), (SYN_ACK, "client")])
def test_of_equal_ports_the_one_that_was_called_is_the_service(flags, service):
    services = [
        {"port": 9000, "name": "client", "addresses": ["10.0.0.1"]},
        {"port": 9000, "name": "server", "addresses": ["10.0.0.2"]},
    ]
    (row,) = enrich(
        {"services": services},
        proto=[6], src_addr=["10.0.0.1"], dst_addr=["10.0.0.2"], src_port=[9000], dst_port=[9000],
        tcp_flags=[flags],
    )  # fmt: skip
    assert row["service"] == service


def test_only_what_a_configuration_or_a_table_names_becomes_a_name():
    names = {name for *_, name in registered_ports()} | {name for *_, name in WELL_KNOWN}
    ports = np.arange(65536, dtype=np.uint16)
    batch = FlowBatch(65536, {"proto": np.full(65536, 6, np.uint8), "dst_port": ports})
    enricher({}).enrich(batch)
    assert set(batch.dictionary("service").values) <= names | {""}
    assert len(names) < 7000


def test_addresses_are_internal_by_their_network_else_when_private():
    rows = enrich(
        {
            "networks": [
                {"name": "public", "prefixes": ["198.51.100.0/24"]},
                {"name": "partner", "prefixes": ["10.7.0.0/16"], "internal": False},
                {"name": "guests", "prefixes": ["10.7.1.0/24"]},
            ]
        },
        src_addr=["198.51.100.1", "10.7.0.1", "10.7.1.1", "10.8.0.1", "192.0.2.1"],
        dst_addr=["fd00::1", "2001:db8::1", "100.64.0.1", "172.32.0.1", "172.31.255.255"],
    )
    assert column(rows, "src_internal") == [1, 0, 1, 1, 0]
    assert column(rows, "dst_internal") == [1, 0, 1, 0, 1]


def test_strangers_are_listed_within_bounds():
    made = enricher({"devices": [{"address": "10.0.0.1"}]})
    made.enrich(FlowBatch(2, {"device_addr": addresses("10.0.0.1", "10.9.9.9")}))
    told = {family.name: family for family in made.collect()}
    assert [s.labels["device"] for s in told["flow_exporter_unknown_device"].samples] == [
        "10.9.9.9"
    ]
    forged = np.random.default_rng(1).integers(0, 256, (30_000, 16), np.uint8)
    made.enrich(FlowBatch(len(forged), {"device_addr": forged}))
    told = {family.name: family for family in made.collect()}
    assert len(told["flow_exporter_unknown_device"].samples) == 1000
    assert told["flow_exporter_unknown_devices"].samples[0].value == 10_000


def test_a_batch_without_the_columns_gets_empty_names():
    batch = enricher({}).enrich(FlowBatch(2))
    for name in ("src_host", "dst_network", "service", "site"):
        assert [row[name] for row in batch.rows()] == ["", ""]
    assert len(enricher({}).enrich(FlowBatch(0))) == 0


def test_only_names_that_occur_are_sent():
    hosts = [{"address": f"10.0.{n // 256}.{n % 256}", "name": f"h{n}."} for n in range(1000)]
    made = enricher({"hosts": hosts})
    batches = [
        made.enrich(FlowBatch(2, {"src_addr": addresses(*pair)}))
        for pair in (("10.0.0.5", "10.0.0.5"), ("10.0.3.9", "192.0.2.1"))
    ]
    block = encode_native(batches)
    sent = [host["name"] for host in hosts if host["name"].encode() in block]
    assert sent == ["h5.", "h777."]


IPV4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
#: Few bits, so that prefixes nest, touch and hold the addresses that are asked for.
CROWDED = st.tuples(st.integers(0, 63), st.integers(0, 128)).map(
    lambda pair: ipaddress.ip_network(
        (((pair[0] << 122) | (0xFFFF << 32)) & ~((1 << (128 - pair[1])) - 1), pair[1])
        if pair[0]
        else (0xFFFF << 32 & ~((1 << (128 - pair[1])) - 1), pair[1])
    )
)
NETWORK4 = st.tuples(st.integers(0, 15), st.integers(0, 32)).map(
    lambda pair: ipaddress.ip_network((pair[0] << 28 & ~((1 << (32 - pair[1])) - 1), pair[1]))
)


@settings(max_examples=300, deadline=None)
@given(
    prefixes=st.lists(st.one_of(CROWDED, NETWORK4), max_size=12, unique=True),
    asked=st.lists(
        st.one_of(
            IPV4,
            st.integers(0, 15).map(lambda n: ipaddress.IPv4Address(n << 28)),
            st.integers(1, 15).map(lambda n: ipaddress.IPv4Address((n << 28) - 1)),
            st.integers(0, 63).map(lambda n: ipaddress.IPv6Address(n << 122)),
            st.integers(1, 63).map(lambda n: ipaddress.IPv6Address((n << 122) - 1)),
        ),
        min_size=1,
        max_size=12,
    ),
)
def test_prefix_lookup_agrees_with_a_search_through_all_prefixes(prefixes, asked):
    def span(prefix):
        first = int.from_bytes(pack_address(str(prefix.network_address)), "big")
        return range(first, first + prefix.num_addresses)

    numbered = {prefix: number for number, prefix in enumerate(prefixes, 1)}
    spans = {}
    for prefix, number in numbered.items():  # ::ffff:0:0/96 is 0.0.0.0/0; the last one counts
        spans[span(prefix)] = number
    table = PrefixTable(numbered.items())
    packed = [pack_address(str(address)) for address in asked]
    expected = []
    for address in packed:
        value = int.from_bytes(address, "big")
        holding = [s for s in spans if value in s]
        expected.append(spans[min(holding, key=lambda s: s.stop - s.start)] if holding else 0)
    assert table.find(addresses(*map(str, asked))).tolist() == expected
    each = [table.find(np.frombuffer(a, np.uint8).reshape(1, 16))[0] for a in packed]
    assert each == expected


@given(st.lists(st.one_of(IPV4, st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))))
def test_distinct_addresses_give_every_row_back(asked):
    column = addresses(*map(str, asked)) if asked else np.zeros((0, 16), np.uint8)
    codes, uniques = distinct_addresses(column)
    assert (uniques[codes] == column).all()
    assert len({row.tobytes() for row in uniques}) == len(uniques)


def test_well_known_ports_are_named_once():
    seen = [(port, protocol) for port, protocols, _ in WELL_KNOWN for protocol in protocols]
    assert len(seen) == len(set(seen))
    assert all(0 < port < 65536 and protocols and name for port, protocols, name in WELL_KNOWN)
