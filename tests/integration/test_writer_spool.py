"""The writer with a spool against the real store: nothing waits, nothing is lost, nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from clickhouse_connect.driver.exceptions import OperationalError
from typer.testing import CliRunner

from exporter.cli.app import app
from exporter.config import ClickHouse
from exporter.resources import resource
from exporter.store.client import connect
from exporter.store.migrate import Migrator
from exporter.store.quarantine import Quarantine
from exporter.store.writer import Writer
from tests.support.batches import random_batch
from tests.support.mounts import fill, small_disk
from tests.support.stack import soon
from tests.support.store import RunningStore, running_store
from tests.support.writing import LostAnswers, metric, migrated, settings_for, sums, total

TABLES = ("flows", "flows_1m", "flows_1h")


@pytest.fixture
def settings(store: RunningStore, tmp_path: Path) -> Iterator[ClickHouse]:
    """A database and a spool."""
    with migrated(store, spool={"directory": str(tmp_path / "spool")}, queue_batches=4) as settings:
        yield settings


class Hindered(LostAnswers):
    """Its inserts wait as well, while ``hanging`` is set; ``asked``: there was one."""

    hanging = False
    asked = False

    def raw_insert(self, *arguments: object, **options: object) -> None:
        self.asked = True
        while self.hanging:
            time.sleep(0.01)
        super().raw_insert(*arguments, **options)


def test_while_clickhouse_is_away_flows_go_to_disk_and_nobody_waits(tmp_path: Path) -> None:
    with running_store() as store:
        settings = settings_for(
            store, batch_seconds=0.05, queue_batches=2, spool={"directory": str(tmp_path / "spool")}
        )
        Migrator(settings, resource("clickhouse/migrations")).apply()
        writer = Writer(settings)
        writer.start()
        batches = [random_batch(500, seed) for seed in range(40)]
        for number, batch in enumerate(batches):
            writer.write(batch)
            time.sleep(0.02)
            if number == 10:
                store.kill()

        def in_the_spool() -> int:
            return int(metric(writer, "spool_rows") or 0)

        soon(lambda: metric(writer, "rows_total") == 20_000 - in_the_spool())
        # A moment for the disk; never as long as ClickHouse is away.
        assert (metric(writer, "blocked_seconds_total") or 0) < 30
        waiting = in_the_spool()
        assert waiting >= 10_000
        # A slow store had some go by way of the spool before it was killed.
        replayed = metric(writer, "spool_replayed_rows_total") or 0
        store.start()
        soon(lambda: metric(writer, "spool_batches") == 0)
        soon(lambda: metric(writer, "spool_replayed_rows_total") == replayed + waiting)
        assert writer.stop() == 0
        for table in TABLES:
            assert sums(settings, table) == total(*batches), table


def test_an_insert_whose_answer_is_lost_counts_once(settings: ClickHouse) -> None:
    batches = [random_batch(1000, seed) for seed in range(3)]
    client = Hindered(settings, lost=3)
    writer = Writer(settings, lambda: client)
    writer.start()
    for batch in batches:
        writer.write(batch)
    soon(lambda: metric(writer, "rows_total") == 3000)
    assert metric(writer, "failures_total", reason="unreachable") == 3
    assert metric(writer, "spool_replayed_rows_total") >= 1000
    assert writer.stop() == 0
    for table in TABLES:
        assert sums(settings, table) == total(*batches), table


def test_while_an_insert_hangs_the_queue_goes_to_disk(settings: ClickHouse) -> None:
    client = Hindered(settings)
    client.hanging = True
    writer = Writer(settings, lambda: client)
    writer.start()
    batches = [random_batch(1000, seed) for seed in range(12)]
    for batch in batches:
        writer.write(batch)
        time.sleep(0.04)
    assert (metric(writer, "blocked_seconds_total") or 0) < 30  # the disk's time, not the insert's
    assert (metric(writer, "spool_spooled_rows_total") or 0) > 5000
    client.hanging = False
    soon(lambda: metric(writer, "rows_total") == 12_000)
    assert writer.stop() == 0
    for table in TABLES:
        assert sums(settings, table) == total(*batches), table


def test_new_flows_are_stored_while_the_spool_empties(settings: ClickHouse) -> None:
    new_ones: list[int] = []

    class Watched(Hindered):
        """Looks after each insert how many of the new flows are stored."""

        def raw_insert(self, *arguments: object, **options: object) -> None:
            super().raw_insert(*arguments, **options)
            counted = self._client.command("SELECT countIf(bytes = 1) FROM flows")
            assert isinstance(counted, int)
            new_ones.append(counted)

    client = Watched(settings)
    client.hanging = True
    writer = Writer(settings, lambda: client)
    writer.start()
    for seed in range(15):
        writer.write(random_batch(1000, seed))
        time.sleep(0.04)
    client.hanging = False
    new = random_batch(1000, seed=99)
    new.array("bytes")[:] = 1
    writer.write(new)
    soon(lambda: metric(writer, "rows_total") == 16_000)
    assert writer.stop() == 0
    assert new_ones[-1] == 1000
    assert new_ones.count(1000) > 4, "many of the older ones came after the new ones"


def test_what_is_not_stored_at_the_end_is_stored_after_the_next_start(
    settings: ClickHouse,
) -> None:
    """The insert under way at the end is taken, but nobody hears of it."""
    client = Hindered(settings)
    client.hanging = True
    writer = Writer(settings, lambda: client)
    writer.start()
    batches = [random_batch(1000, seed) for seed in range(3)]
    for batch in batches:
        writer.write(batch)
    soon(lambda: client.asked)
    assert writer.stop(timeout=4) == 0
    assert metric(writer, "spool_rows") == 3000
    client.hanging = False
    soon(lambda: sums(settings)[2] == 1000)
    after = Writer(settings)
    assert metric(after, "spool_rows") == 3000
    after.start()
    soon(lambda: metric(after, "spool_rows") == 0)
    assert after.stop() == 0
    for table in TABLES:
        assert sums(settings, table) == total(*batches), table


def test_refused_flows_are_kept_with_the_reason(
    settings: ClickHouse, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(settings) as client:
        client.command("ALTER TABLE flows DROP COLUMN rtt")
    refused, fine = random_batch(1000, seed=1), random_batch(1000, seed=2)
    del fine.columns["rtt"]
    writer = Writer(settings)
    writer.start()
    writer.write(refused)
    writer.write(fine)
    assert writer.stop() == 0
    assert sums(settings) == total(fine)
    reason = {"reason": "no_such_column_in_table"}
    assert metric(writer, "refused_rows_total", **reason) == 1000
    assert metric(writer, "quarantined_rows_total", **reason) == 1000
    assert "1000 rows put into quarantine, refused" in caplog.text
    (kept,) = Quarantine(Path(settings.spool.directory), 1 << 30).files()
    assert kept.rows == 1000
    assert "No such column rtt" in kept.reason


def test_flows_of_the_spool_that_are_refused_hold_up_no_others(settings: ClickHouse) -> None:
    refused, fine = random_batch(1000, seed=1), random_batch(1000, seed=2)
    del fine.columns["rtt"]
    client = Hindered(settings)
    client.hanging = True
    writer = Writer(settings, lambda: client)
    writer.start()
    for batch in (refused, fine):
        writer.write(batch)
    soon(lambda: client.asked)
    assert writer.stop(timeout=4) == 0
    with connect(settings) as asking:
        asking.command("ALTER TABLE flows DROP COLUMN rtt")
    client.hanging = False
    after = Writer(settings)
    after.start()
    soon(lambda: metric(after, "spool_batches") == 0)
    assert after.stop() == 0
    assert sums(settings) == total(fine)
    assert metric(after, "quarantine_files") == 1


def test_a_batch_that_clickhouse_fails_on_for_ever_holds_up_no_others(
    settings: ClickHouse,
) -> None:
    """Not a refusal by its number, but of one batch only."""

    class Failing(Hindered):
        def raw_insert(self, *arguments: object, **options: object) -> None:
            if len(bytes(options["insert_block"])) < 100_000:  # type: ignore[call-overload]
                raise OperationalError("Too much memory.", code=241, name="MEMORY_LIMIT_EXCEEDED")
            super().raw_insert(*arguments, **options)

    client = Failing(settings)
    writer = Writer(settings, lambda: client)
    writer.start()
    writer.write(random_batch(10))
    soon(lambda: metric(writer, "spool_batches") == 1)
    batches = [random_batch(1000, seed) for seed in range(8)]
    for batch in batches:
        writer.write(batch)
        time.sleep(0.2)
    soon(lambda: metric(writer, "quarantine_files") == 1)
    soon(lambda: metric(writer, "spool_batches") == 0)
    assert writer.stop() == 0
    assert sums(settings) == total(*batches)


def test_with_a_full_disk_flows_wait_in_memory_and_then_the_sender_waits(
    store: RunningStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        ballast = fill(disk)
        spool = disk / "spool"
        with migrated(store, spool={"directory": str(spool)}, queue_batches=3) as settings:
            client = Hindered(settings)
            client.hanging = True
            writer = Writer(settings, lambda: client)
            writer.start()
            batches = [random_batch(500, seed) for seed in range(12)]

            def write_all() -> None:
                for batch in batches:
                    writer.write(batch)

            sender = threading.Thread(target=write_all, daemon=True)
            sender.start()
            soon(lambda: "No space left on device" in caplog.text)
            assert "Flows wait in memory" in caplog.text
            soon(lambda: metric(writer, "queue_rows") == 3000)
            time.sleep(0.2)
            assert sender.is_alive()
            assert (metric(writer, "spool_write_failures_total") or 0) > 0
            # Room again: the spool takes what waits, though ClickHouse does not.
            ballast.unlink()
            soon(lambda: not sender.is_alive())
            assert (metric(writer, "spool_rows") or 0) > 0
            client.hanging = False
            soon(lambda: metric(writer, "rows_total") == 6000)
            assert writer.stop() == 0
            for table in TABLES:
                assert sums(settings, table) == total(*batches), table


def test_without_room_anywhere_the_loss_is_told(tmp_path: Path, store: RunningStore) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        fill(disk)
        with migrated(store, spool={"directory": str(disk / "spool")}) as settings:
            client = Hindered(settings)
            client.hanging = True
            writer = Writer(settings, lambda: client)
            writer.start()
            for seed in range(3):
                writer.write(random_batch(1000, seed))
            began = time.monotonic()
            assert writer.stop(timeout=1) == 3000
            assert time.monotonic() - began < 20  # not for ever
            assert metric(writer, "lost_rows_total") == 3000
            client.hanging = False


def test_quarantine_can_be_listed_replayed_and_dropped(
    settings: ClickHouse, tmp_path: Path
) -> None:
    config = tmp_path / "flow-exporter.yaml"
    config.write_text(yaml.safe_dump({"clickhouse": settings.model_dump(mode="json")}))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["spool", *arguments, "-c", str(config)])
        return done.exit_code, done.output

    with connect(settings) as client:
        client.command("ALTER TABLE flows DROP COLUMN rtt")
    writer = Writer(settings)
    writer.start()
    kept, given_up = random_batch(1000, seed=1), random_batch(1000, seed=2)
    writer.write(kept)
    soon(lambda: metric(writer, "quarantine_files") == 1)
    writer.write(given_up)
    soon(lambda: metric(writer, "quarantine_files") == 2)
    first, second = (f.name for f in Quarantine(Path(settings.spool.directory), 1 << 30).files())
    code, listed = run("list")
    assert code == 0
    assert "quarantine: 2 inserts, 2000 flows" in listed
    assert first in listed
    code, told = run("replay")
    assert code == 1
    assert "No such column rtt" in told
    with connect(settings) as client:
        client.command("ALTER TABLE flows ADD COLUMN rtt Float32")
    assert run("drop", second) == (0, f"{second}: 1000 flows dropped\n")
    assert run("replay", second)[0] == 1
    assert run("replay", first) == (0, f"{first}: 1000 flows inserted\n")
    assert metric(writer, "quarantine_files") == 0
    assert writer.stop() == 0
    assert sums(settings) == total(kept)
