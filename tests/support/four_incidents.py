"""The simulator's datacenter in the real store, with all four incidents, and what is known of it.

Six hours of the past as the collector would have stored it. ``k122`` and ``k212`` wear out the
registry's quota until an hour and a half ago; the load spike and the query begin twenty minutes
ago, the rogue host four. The registry's name is not configured: only resolvers told it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from clickhouse_connect.driver.client import Client

from exporter.config import ClickHouse, Config
from exporter.enrich import NameSources
from exporter.enrich.inventory import Inventory
from exporter.policies.speeds import SpeedKeeper, known_speeds
from exporter.simulate.demo import demo_config
from exporter.simulate.fill import Past, fill
from exporter.simulate.scenarios import SCENARIOS, told_together
from exporter.simulate.site import AS_NAMES
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from tests.support.store import running_store

ROOT: Final = Path(__file__).parents[2]
HOURS: Final = 6
#: There is an hour that began so many hours ago, too: without, every address would be a new one.
DAY_BEFORE: Final = 27
QUOTA: Final = "registry-429"
#: Seconds before now at which each story begins, but for that of the quota, which alerts nobody: it
#: is explored afterwards, and what leads by bits follows the hour.
BEGINS: Final = {
    "load-spike": 1200,
    "query-fanin": 1200,
    "rogue-host": 240,
}


@dataclass(frozen=True)
class Datacenter:
    """Where it is stored. ``now`` is a whole minute, in seconds since the epoch."""

    settings: ClickHouse
    reader: Client
    now: int
    quota_began: int

    def began(self, scenario: str) -> int:
        """When a story began."""
        return self.quota_began if scenario == QUOTA else self.now - BEGINS[scenario]


def _office_hour(now: int) -> int:
    """Half past ten of a working day, the hours after which are none of the other stories'."""
    moment = datetime.fromtimestamp(now, UTC).replace(hour=10, minute=30, second=0) - timedelta(2)
    while moment.weekday() > 4:
        moment -= timedelta(1)
    return int(moment.timestamp())


@contextmanager
def four_incidents() -> Iterator[Datacenter]:
    """The filled store, until the end of the block."""
    now = int(time.time()) // 60 * 60
    with running_store() as store:
        writer = ClickHouse(url=store.url, password_file=str(store.data_dir / "writer.password"))
        Migrator(writer, ROOT / "clickhouse/migrations").apply()
        config = Config.model_validate(demo_config())
        names = NameSources(config)
        quota_began = _office_hour(now)
        told = [(SCENARIOS[name], float(-before)) for name, before in BEGINS.items()]
        told.append((SCENARIOS[QUOTA], float(quota_began - now)))
        quota_hours = ((now - quota_began) / 3600 + 1, (now - quota_began) / 3600 - 4)
        past = Past(told_together(told), now * 1000, 1, names)
        with store.client(database="flow") as client:
            for begin, end in (quota_hours, (DAY_BEFORE, DAY_BEFORE - 1), (HOURS, 0)):
                span = (int(now - hours * 3600) * 1000 for hours in (begin, end))
                for _ in fill(client, past, *span, stop=threading.Event()):
                    pass
            client.insert("as_names", list(AS_NAMES.items()), ["number", "name"])
            SpeedKeeper(lambda: known_speeds(config.devices, (), str)).store(client)
        Inventory(lambda: connect(writer), names).store()
        with store.client(reader=True, database="flow") as reader:
            yield Datacenter(writer, reader, now, quota_began)
