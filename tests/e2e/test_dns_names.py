"""A host without an agent: what it asked for comes from the resolver, and names its flows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from exporter.address import pack_address
from exporter.batch import FlowBatch
from exporter.simulate.encode import NetFlow9Encoder
from tests.support.collector import RunningCollector
from tests.support.database import migrated_database
from tests.support.resolvers import unbound
from tests.support.stack import until

ROGUE = "127.0.0.66"
POOLS = {"eu1.pool.example": "198.51.100.7", "us1.pool.example": "198.51.100.8"}


def flows_to_pools() -> FlowBatch:
    """One from the rogue host to each pool, ended now."""
    now = int(time.time() * 1000)
    count = len(POOLS)
    destinations = b"".join(map(pack_address, POOLS.values()))
    return FlowBatch(
        count,
        {
            "time_flow_start": np.full(count, now - 2000, np.int64),
            "time_flow_end": np.full(count, now - 1000, np.int64),
            "bytes": np.full(count, 1500, np.uint64),
            "packets": np.full(count, 3, np.uint64),
            "src_addr": np.frombuffer(pack_address(ROGUE) * count, np.uint8).reshape(-1, 16),
            "dst_addr": np.frombuffer(destinations, np.uint8).reshape(-1, 16),
            "proto": np.full(count, 6, np.uint8),
            "etype": np.full(count, 0x0800, np.uint16),
            "src_port": np.full(count, 50123, np.uint16),
            "dst_port": np.full(count, 3333, np.uint16),
        },
    )


def test_the_pools_of_a_rogue_host_come_through_unbounds_dnstap(tmp_path: Path) -> None:
    tap = tmp_path / "dnstap.sock"
    with (
        migrated_database() as database,
        RunningCollector(
            tmp_path,
            database.store,
            database.settings.database,
            {
                "receive": {"dnstap": [{"socket": str(tap)}]},
                "networks": [{"name": "office", "prefixes": ["127.0.0.0/24"]}],
            },
        ) as collector,
        unbound(tmp_path / "unbound", path=tap, identity="dns1") as resolver,
    ):
        for name in POOLS:
            resolver.ask(name, client=ROGUE)
        until(
            "names of both pools", 20,
            lambda: collector.metric("flow_exporter_host_names", source="dns") == 2,
        )  # fmt: skip
        encoder = NetFlow9Encoder(boot=(int(time.time()) - 3600) * 1000)
        collector.send(encoder, flows_to_pools())
        with database.connect() as client:

            def rows(query: str) -> list[tuple[object, ...]]:
                return list(client.query(query, {"rogue": ROGUE}).result_rows)

            queries = (
                "SELECT dns_name, dns_type, dns_rcode, device, source, src_network, "
                "toString(answers) FROM dns_queries "
                "WHERE src_addr = toIPv6({rogue:String}) ORDER BY dns_name"
            )
            flows = "SELECT dst_host FROM flows WHERE src_addr = toIPv6({rogue:String}) ORDER BY 1"
            until("queries in the store", 30, lambda: len(rows(queries)) == 2)
            until("flows in the store", 30, lambda: len(rows(flows)) == 2)
            assert rows(queries) == [
                (name, "A", "NOERROR", "dns1", "dnstap", "office", f"['::ffff:{address}']")
                for name, address in POOLS.items()
            ]
            assert rows(flows) == [(name,) for name in POOLS]
            # By the name that it has in a dashboard, a flow is found by any name of that hour.
            found = rows(
                "SELECT DISTINCT dst_port FROM flows WHERE dst_addr IN (SELECT addr "
                "FROM names_seen WHERE dns_name = 'eu1.pool.example' "
                "AND time >= toStartOfHour(now() - INTERVAL 1 HOUR))"
            )
            assert found == [(3333,)]
        assert collector.metric("flow_exporter_dnstap_errors_total") == 0
        assert collector.metric("flow_exporter_insert_rows_total", table="dns_queries") >= 2
        assert collector.metric("flow_exporter_host_names", source="dns") == 2
