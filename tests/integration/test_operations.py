"""What operators do, and machines do to them, with the real collector."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

from exporter.simulate.encode import NetFlow5Encoder
from tests.support.collector import RunningCollector
from tests.support.flows import random_flows
from tests.support.mounts import small_disk
from tests.support.stack import until
from tests.support.store import RunningStore, running_store


def send(collector: RunningCollector, flows: int, *, source: str = "127.0.0.1") -> None:
    now = int(time.time())
    encoder = NetFlow5Encoder(boot=(now - 3600) * 1000)
    collector.send(encoder, random_flows(flows, now=now * 1000), source=source)


def stored(store: RunningStore, database: str) -> dict[str, int]:
    """Flows by device."""
    return dict(store.ask(database, "SELECT device, count() FROM flows GROUP BY device"))


def folders(tmp_path: Path, *names: str) -> list[Path]:
    made = [tmp_path / name for name in names]
    for folder in made:
        folder.mkdir()
    return made


def test_two_collectors_begin_at_once_and_one_outlives_the_other(
    store: RunningStore, tmp_path: Path
) -> None:
    database = "two_collectors"
    one, other = (
        RunningCollector(folder, store, database, {"clickhouse": {"spool": {"directory": "spool"}}})
        for folder in folders(tmp_path, "one", "other")
    )
    one.start(ready=False)
    with other:
        try:
            until("the first to be ready", 60, lambda: one.get("/-/ready")[0] == 200)
            send(one, 300, source="127.0.5.1")
            send(other, 600, source="127.0.5.2")
            # A device that sends to both is stored by both: nobody can tell.
            for each in (one, other):
                send(each, 100, source="127.0.5.3")
            until("all flows", 60, lambda: sum(stored(store, database).values()) == 1100)
            one.stop(signal.SIGKILL)
            send(other, 60, source="127.0.5.1")
            until("the rest", 60, lambda: stored(store, database)["127.0.5.1"] == 360)
            one.start()
            send(one, 30, source="127.0.5.1")
            until("the last", 60, lambda: stored(store, database)["127.0.5.1"] == 390)
        finally:
            if one.process is not None:
                one.stop()
    assert stored(store, database) == {"127.0.5.1": 390, "127.0.5.2": 600, "127.0.5.3": 200}
    migrations = store.ask(database, "SELECT version FROM schema_migrations ORDER BY version")
    assert migrations == sorted(set(migrations))
    assert store.ask(database, "SELECT count() FROM devices FINAL") == [(3,)]


def use_up_names(folder: Path) -> list[Path]:
    """Empty files, until the disk takes no more."""
    made = [folder / f"ballast{number}" for number in range(100)]
    with suppress(OSError):
        for file in made:
            file.touch()
    made = [file for file in made if file.exists()]
    assert len(made) < 100
    return made


def test_a_disk_without_room_for_files_ends_no_collector_and_loses_nothing(tmp_path: Path) -> None:
    with (
        running_store() as store,
        small_disk(tmp_path / "state", "16m,nr_inodes=40") as state,
    ):
        config = {
            "decode": {"template_file": str(state / "templates.json")},
            "clickhouse": {"spool": {"directory": str(state / "spool")}},
        }
        (folder,) = folders(tmp_path, "collector")
        with RunningCollector(folder, store, "flow", config) as collector:
            send(collector, 300)
            until("the first flows", 60, lambda: stored(store, "flow") == {"127.0.0.1": 300})
            store.stop()
            ballast = use_up_names(state)
            send(collector, 600)
            failures = "flow_exporter_spool_write_failures_total"
            until("a full disk", 60, lambda: collector.metric(failures))
            assert collector.get("/-/healthy")[0] == 200
            assert collector.get("/-/reload", method="POST")[0] == 200
            for file in ballast:
                file.unlink()
            send(collector, 90)
            until("a spool again", 60, lambda: collector.metric("flow_exporter_spool_rows"))
            store.start()
            until("all flows", 60, lambda: stored(store, "flow") == {"127.0.0.1": 990})
            use_up_names(state)
            assert collector.stop() == 0  # though templates cannot be saved
        assert "no space left" in collector.log.read_text().lower()


def test_a_collector_that_was_suspended_goes_on_with_what_the_kernel_kept(
    store: RunningStore, tmp_path: Path
) -> None:
    with RunningCollector(tmp_path, store, "suspended") as collector:
        assert collector.process is not None
        collector.process.send_signal(signal.SIGSTOP)
        try:
            send(collector, 900)
        finally:
            collector.process.send_signal(signal.SIGCONT)
        until("all flows", 60, lambda: stored(store, "suspended") == {"127.0.0.1": 900})
        assert collector.get("/-/ready")[0] == 200
