"""The commands of the page on moving, as they stand there, from one store to another."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from exporter.resources import resource
from exporter.store.migrate import Migrator
from exporter.store.schema_check import schema_differences
from tests.support.database import Database, migrated_database

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/move-to-a-cluster.md"
TABLES = (
    "flows", "flows_1m FINAL", "flows_1h FINAL", "hosts_1h FINAL", "networks_1h FINAL",
    "hosts_seen FINAL", "dns_queries", "names_seen FINAL", "alerts FINAL",
    "incident_evidence FINAL", "devices FINAL", "interfaces FINAL", "hosts FINAL",
    "interface_speeds FINAL",
)  # fmt: skip


def contents(database: Database) -> dict[str, list[object]]:
    """Counts and checksums of all tables; states of distinct counts by what they say."""
    with database.connect() as client:
        found: dict[str, list[object]] = {
            table: list(client.query(f"SELECT count() FROM {table}").result_rows)
            for table in TABLES
        }
        found["sums"] = sorted(
            client.query(
                "SELECT sum(bytes), sum(flows), uniqCombinedMerge(12)(unique_src_addr) "
                "FROM flows_1m UNION ALL SELECT sum(bytes), sum(flows), "
                "uniqCombinedMerge(12)(unique_src_addr) FROM flows_1h "
                "UNION ALL SELECT sum(cityHash64(*)), 0, 0 FROM flows"
            ).result_rows
        )
        found["drawn"] = list(
            client.query("SELECT sum(weight), sum(weight * bytes), sum(drawn) FROM flows")
            .result_rows
        )  # fmt: skip
        found["seen"] = list(
            client.query("SELECT addr, min(first_seen) FROM hosts_seen GROUP BY addr ORDER BY addr")
            .result_rows
        )  # fmt: skip
        found["as"] = list(
            client.query("SELECT joinGet('as_names', 'name', toUInt32(64496))").result_rows
        )
    return found


def test_a_store_moves_with_all_its_rows_and_goes_on() -> None:
    [script] = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with migrated_database() as old, migrated_database() as new:
        with old.connect() as client:
            client.command(
                "INSERT INTO flows (time_received, time_flow_start, time_flow_end, device, bytes, "
                "packets, proto, src_port, dst_port, src_addr, src_internal, dst_addr, dns_name) "
                "SELECT now64(3) - toIntervalHour(number % 60) AS t, t - toIntervalMinute(2), t, "
                "concat('r', toString(number % 3)), number, 1, 6, 40000 + number % 999, 443, "
                "toIPv6(concat('10.0.', toString(number % 7), '.1')), 1, toIPv6('10.1.0.1'), "
                "if(number % 100 = 0, 'a.example', '') FROM numbers(20000)"
            )
            client.command("INSERT INTO as_names VALUES (64496, 'Example')")
            client.command(
                "INSERT INTO dns_queries (time_received, dns_name, answers) "
                "VALUES (now64(3), 'a.example', ['192.0.2.1'])"
            )
            client.command(
                "INSERT INTO alerts (fingerprint, starts_at, updated_at, status) "
                "VALUES ('f', now(), now(), 'firing')"
            )
            client.command("INSERT INTO hosts VALUES (toIPv6('10.0.0.1'), 'h', '', 'o', now())")
            client.command("INSERT INTO interface_speeds VALUES ('r1', 1, 1000000000, now())")
            # Rollups reach back further than flows do.
            oldest = client.command("SELECT toString(min(toDate(time_received))) FROM flows")
            client.command(f"ALTER TABLE flows DROP PARTITION '{oldest}'")
        before = contents(old)
        empty = {table.split()[0] for table, count in before.items() if count == [(0,)]}
        assert empty == {"incident_evidence"}
        done = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {
                "OLD_URL": old.store.url,
                "OLD_PASSWORD": old.store.password,
                "NEW_URL": new.store.url,
                "NEW_PASSWORD": new.store.password,
            },
        )
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            here, there = line.split()[-2:]
            assert here == there
        assert len(done.stdout.splitlines()) == 5
        assert contents(new) == before
        migrator = Migrator(new.settings, resource("clickhouse/migrations"))
        with new.connect() as client:
            missing = schema_differences(client, new.settings, migrator.migrations)
            assert {str(d).partition(":")[0] for d in missing} >= {"flows_1m_from_flows"}
            migrator.apply(again=True)
            assert schema_differences(client, new.settings, migrator.migrations) == []
            assert contents(new) == before
            client.command("INSERT INTO flows (time_received, bytes) SELECT now64(3), 1")
            # What comes from now on is rolled up again.
            assert client.command("SELECT sum(flows) FROM flows_1m") == 20001
