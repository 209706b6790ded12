"""Writing a story's past up to the present, and showing how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from clickhouse_connect.driver.client import Client

from exporter.config import Config, Host
from exporter.enrich import NameSources
from exporter.policies.blocks import all_or_none, finish_moving, has_blocks, write_blocks
from exporter.progress import progress
from exporter.simulate.devices import DEVICES
from exporter.simulate.fill import Past, fill
from exporter.simulate.lookups import RESOLVERS
from exporter.simulate.scenarios import Story
from exporter.simulate.site import HOSTS, REGISTRY
from exporter.simulate.telemetry import Telemetry, past_samples

_DAY = 86400
#: History is written up to now again until it is as near as this.
_NEAR_SECONDS = 2
#: Of nodes and application; nothing compares with more of it.
_METRICS_DAYS = 7


class StoppedError(Exception):
    """It was to stop, before it came to its end."""


def write_past(
    client: Client,
    story: Story,
    origin: int,
    begin: int,
    settings: Config,
    *,
    seed: int,
    live: bool,
    resume: bool,
    prometheus: Path | None,
    stop: threading.Event,
) -> int:
    """Write the past from ``begin`` to now, both in seconds since the epoch as ``origin`` is.

    With ``live``, up to the moment of the return, so that sending can go on from there. With
    ``resume``, only what came after the newest flow, and the newest query, of the simulated devices
    that are stored. Returns how many flows were written.

    Raises:
        StoppedError: ``stop`` was set before any flows were written.
        exporter.config.ConfigError: a file of names that ``settings`` names cannot be used.
        exporter.policies.blocks.BlockError: ``prometheus`` takes no blocks.
        clickhouse_connect.driver.exceptions.ClickHouseError: ClickHouse is away or refuses.
    """
    # What clients resolved taught the collector this name.
    registry = Host(address=HOSTS[REGISTRY], name=REGISTRY)
    names = NameSources(settings.model_copy(update={"hosts": [*settings.hosts, registry]}))
    past = Past(story, origin * 1000, seed, names)
    if prometheus is not None:
        finish_moving(prometheus)
        if not (resume and has_blocks(prometheus)):
            _write_metrics(Telemetry(story, origin * 1000, seed), begin, prometheus, stop)
    rows = 0
    queries_begin = 0
    if resume:
        begin = max(begin, _newest(client, "flows", DEVICES) // 1000 + 1)
        queries_begin = _newest(client, "dns_queries", RESOLVERS) + 1
    end = int(time.time())
    with progress("flows", end - begin) as advance:
        while not stop.is_set():
            for part in fill(
                client, past, begin * 1000, end * 1000,
                queries_begin=queries_begin, once=resume, stop=stop,
            ):  # fmt: skip
                rows += part.rows
                advance(part.seconds)
            # Time went by meanwhile, of which live sending would know nothing.
            begin, end = end, int(time.time())
            if not live or end - begin < _NEAR_SECONDS:
                break
    return rows


def _newest(client: Client, table: str, devices: Iterable[str]) -> int:
    """When the newest row of a simulated device was received, ms since the epoch, or 0."""
    result = client.query(
        "SELECT toUnixTimestamp64Milli(max(time_received)) FROM {table:Identifier} "
        "WHERE device IN {devices:Array(String)}",
        parameters={"table": table, "devices": list(devices)},
    )
    return int(result.result_rows[0][0])


def _write_metrics(telemetry: Telemetry, begin: int, data: Path, stop: threading.Event) -> None:
    """One call for each day: what writes the blocks reads its input once for each of them."""
    end = int(time.time())
    begin = max(begin, end - _METRICS_DAYS * _DAY)
    days = range(begin // _DAY * _DAY, end, _DAY)
    with all_or_none(data) as folder, progress("metrics", len(days)) as advance:
        for day in days:
            if stop.is_set():
                raise StoppedError
            write_blocks(past_samples(telemetry, max(begin, day), min(day + _DAY, end)), folder)
            advance(1)
