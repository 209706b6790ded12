"""A day of made-up flows in a store of its own, to be asked: filled, or found from before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from clickhouse_connect.driver.client import Client
from rich.progress import Progress

from exporter.batch import FlowBatch
from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.insert import Encoding
from exporter.store.migrate import Migrator
from tests.bench.traffic import Traffic
from tests.support.store import RunningStore

DAY_SECONDS: Final = 86_400
#: Flows of an insert.
_INSERT: Final = 500_000
#: Merges are over when none has run for so long.
_QUIET_SECONDS: Final = 3.0

#: What the flows do not bring: a DNS query for each flow to a resolver, of names few of which are
#: asked for often, and who is internal.
_ALSO: Final = (
    "TRUNCATE TABLE dns_queries",
    "TRUNCATE TABLE hosts_seen",
    """INSERT INTO dns_queries (time_received, device, source, src_addr, dst_addr, src_host,
  src_network, dns_name, dns_type, dns_rcode, dns_latency, answers)
WITH cityHash64(src_addr, src_port, time_received) AS drawn,
  toUInt64(exp2(17 * pow((drawn % 10007) / 10007, 0.7))) AS rank
SELECT time_received, device, 'dnstap', src_addr, dst_addr, src_host, src_network,
  concat('name', toString(rank), '.example'), 'A', if(drawn % 31 = 0, 'NXDOMAIN', 'NOERROR'),
  0.001 * (1 + drawn % 80),
  if(drawn % 31 = 0, [], [toIPv6(concat('203.0.113.', toString(rank % 256)))])
FROM flows
WHERE dst_port = 53""",
    """INSERT INTO hosts_seen
SELECT src_addr, anyLast(src_host), anyLast(src_network), anyLast(f.device),
  min(time_received), max(time_received)
FROM flows AS f
WHERE src_network != ''
GROUP BY src_addr""",
)


@dataclass(frozen=True)
class Day:
    """``flows`` flows over the 24 hours before ``end`` (a full hour, seconds since the epoch).

    ``address`` is that of a busy host, the 501st by flows; ``usual_address`` of one in the middle.
    """

    store: RunningStore
    writer: Client
    reader: Client
    settings: ClickHouse
    flows: int
    end: int
    address: str
    usual_address: str


@contextmanager
def migrated_store(folder: Path) -> Iterator[tuple[RunningStore, ClickHouse, Client]]:
    """A store whose data is below ``folder``, how to connect to it, and a client of the writer.

    One that was there before stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_new = not (folder / "store").exists()
    with RunningStore(folder / "store") as store:
        settings = ClickHouse(
            url=store.url,
            user=store.user,
            password_file=str(store.data_dir / "writer.password"),
            insert_timeout_seconds=600,
        )
        if is_new:
            Migrator(settings, resource("clickhouse/migrations")).apply()
        with connect(settings) as client:
            yield store, settings, client


@contextmanager
def asked_day(flows: int, folder: Path | None = None) -> Iterator[Day]:
    """The day, in ``folder`` where it stays and is found again, else in a temporary one."""
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="flow-bench-")))
        store, settings, writer = stack.enter_context(migrated_store(folder))
        if not int(str(writer.command("SELECT count() FROM flows"))):
            fill(writer, flows)
        if not int(str(writer.command("SELECT count() FROM dns_queries"))):
            for statement in _ALSO:
                writer.command(statement)
        until_merged(writer)
        count, last = writer.query("SELECT count(), max(time_received) FROM flows").result_rows[0]
        last = last.replace(tzinfo=UTC) + timedelta(hours=1)
        end = datetime(last.year, last.month, last.day, last.hour, tzinfo=UTC)
        hosts = [
            row[0]
            for row in writer.query(
                "SELECT replaceOne(toString(addr), '::ffff:', '') FROM hosts_1h GROUP BY addr "
                "ORDER BY sum(flows_sent + flows_received) DESC, addr"
            ).result_rows
        ]
        reader = stack.enter_context(store.client(reader=True, database=settings.database))
        yield Day(
            store,
            writer,
            reader,
            settings,
            count,
            int(end.timestamp()),
            address=hosts[min(500, len(hosts) - 1)],
            usual_address=hosts[len(hosts) // 2],
        )


def fill(client: Client, flows: int) -> None:
    """Insert ``flows`` evenly over the 24 hours before the present hour.

    While the store takes the flows of one insert those of the next are made.
    """
    traffic, encoding = Traffic(), Encoding()
    begin = (int(time.time()) // 3600 * 3600 - DAY_SECONDS) * 1000
    rows = min(_INSERT, flows)

    def made(number: int) -> FlowBatch:
        return traffic.flows(
            rows,
            begin=begin + number * DAY_SECONDS * 1000 // flows,
            milliseconds=rows * DAY_SECONDS * 1000 // flows,
        )

    with Progress() as progress, ThreadPoolExecutor(1) as maker:
        numbers = range(0, flows, rows)
        following = maker.submit(made, numbers[0])
        for number in progress.track(numbers, description="filling a day"):
            batch = following.result()
            if number + rows < flows:
                following = maker.submit(made, number + rows)
            encoding.encode([batch], f"bench-{number}").send(client)


def until_merged(client: Client, limit_seconds: float = 600.0) -> None:
    """Wait until no merges have run for some seconds."""
    deadline = time.monotonic() + limit_seconds
    quiet_since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - quiet_since < _QUIET_SECONDS:
        row = client.query("SELECT count() FROM system.merges").first_row
        if row is None or row[0]:
            quiet_since = time.monotonic()
        time.sleep(0.2)
