"""The spool and its quarantine: what is kept, in which order it comes out, what damage does."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from exporter.config import ConfigError
from exporter.config import Spool as Settings
from exporter.store.insert import Insert
from exporter.store.insert_file import DamagedFileError, pack, read_insert, write_durably
from exporter.store.quarantine import Quarantine
from exporter.store.spool import Spool, SpoolError, waiting_files
from exporter.store.spool_stats import SpoolStats

MIB = 1 << 20


class Opened:
    """A spool with its metrics."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.stats = SpoolStats(("type_mismatch",))
        values = {"directory": str(folder), **settings}
        self.spool = Spool(Settings.model_validate(values), self.stats)

    def metric(self, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(self.stats)
        return registry.get_sample_value(f"flow_exporter_{name}", labels)

    def files(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.suffix in (".insert", ".tried"))

    def replay(self) -> list[str]:
        """Tokens in the order in which they come out."""
        tokens = []
        while found := self.spool.next():
            tokens.append(found[1].token)
            self.spool.taken(found[0])
        return tokens


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path / "spool")
    yield opened
    opened.spool.close()


def insert(name: str, *, rows: int = 10, size: int = 1000) -> Insert:
    """One that does not compress."""
    return Insert(name, rows, random.Random(name).randbytes(size))


def test_an_insert_comes_out_as_it_went_in(opened: Opened) -> None:
    kept = insert("a", size=100_000)
    opened.spool.append(Insert("a", 10, memoryview(bytearray(kept.body))), tried=False)
    found = opened.spool.next()
    assert found is not None
    assert found[1] == kept
    assert opened.metric("spool_rows") == 10
    assert opened.metric("spool_batches") == 1
    assert opened.metric("spool_bytes") == opened.files()[0].stat().st_size
    assert opened.metric("spool_oldest_age_seconds") == pytest.approx(0, abs=5)
    opened.spool.taken(found[0])
    assert opened.spool.next() is None
    assert not opened.files()
    for name in ("rows", "batches", "bytes", "oldest_age_seconds"):
        assert opened.metric(f"spool_{name}") == 0, name
    assert opened.metric("spool_spooled_rows_total") == 10
    assert opened.metric("spool_replayed_rows_total") == 10


def test_flows_compress_well(opened: Opened) -> None:
    opened.spool.append(Insert("a", 10, bytes(MIB)), tried=False)
    assert opened.files()[0].stat().st_size < 10_000


def test_what_may_have_been_taken_comes_out_first_then_the_oldest(opened: Opened) -> None:
    for name, tried in (("a", False), ("b", False), ("c", True), ("d", False), ("e", True)):
        opened.spool.append(insert(name), tried=tried)
    assert opened.replay() == ["c", "e", "a", "b", "d"]


def test_another_process_goes_on_where_the_first_was_killed(opened: Opened) -> None:
    for name, tried in (("a", False), ("b", True), ("c", False)):
        opened.spool.append(insert(name), tried=tried)
    assert opened.spool.next() is not None  # and dies while it is sent
    opened.spool.close()
    again = Opened(opened.folder)
    assert again.metric("spool_rows") == 30
    assert again.metric("spool_bytes") == sum(file.stat().st_size for file in again.files())
    again.spool.append(insert("d"), tried=False)
    assert again.replay() == ["b", "a", "c", "d"]
    again.spool.close()


def test_a_file_and_then_its_name_are_on_the_disk_before_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is what an earlier process named that died before it could see to that."""
    synced: list[tuple[str, list[str]]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, sorted(each.name for each in tmp_path.glob("spool/*.insert"))))

    monkeypatch.setattr(os, "fsync", watched)
    opened = Opened(tmp_path / "spool")
    assert synced == [("spool", [])]
    opened.spool.append(insert("a"), tried=False)
    [file] = opened.files()
    assert synced[1:] == [(f"{file.name}.unfinished", []), ("spool", [file.name])]
    opened.spool.close()
    again = Opened(tmp_path / "spool")
    assert synced[3:] == [("spool", [file.name])]
    again.spool.close()


def test_two_collectors_cannot_share_a_spool(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="another collector uses it"):
        Opened(opened.folder)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"clickhouse\.spool\.directory: .*Not a directory"):
        Opened(tmp_path / "file" / "spool")


@pytest.mark.parametrize("damage", ["torn", "bit", "empty", "other", "longer"])
def test_a_damaged_file_is_set_aside_and_holds_up_no_others(opened: Opened, damage: str) -> None:
    for name in ("a", "b", "c"):
        opened.spool.append(insert(name), tried=False)
    file = opened.files()[1]
    data = bytearray(file.read_bytes())
    if damage == "torn":
        data = data[: len(data) // 2]
    elif damage == "bit":
        data[500] ^= 1
    elif damage == "empty":
        data.clear()
    elif damage == "other":
        data[:8] = b"#!/bin/s"
    else:
        data += b"x"
    file.write_bytes(data)
    assert opened.replay() == ["a", "c"]
    assert opened.metric("spool_corrupt_files_total") == 1
    assert opened.metric("spool_replayed_rows_total") == 20
    assert opened.metric("spool_bytes") == 0
    (aside,) = Quarantine(opened.folder, MIB).files()
    assert aside.path.read_bytes() == bytes(data)
    assert aside.reason.startswith("damaged: ")
    assert opened.metric("quarantine_files") == 1


def test_every_torn_write_and_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.insert"
    write_durably(path, pack(insert("a", size=100)))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFileError):
            read_insert(path)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x40
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            read_insert(path)


@pytest.mark.parametrize(
    ("kind", "place", "value", "why"),
    [
        ("<I", 12, 1 << 20, "its lengths make no sense"),
        ("<Q", 24, 1 << 60, "its lengths make no sense"),
        ("<Q", 24, 1 << 35, "what it tells to hold does not fit into memory"),
        ("<Q", 24, 1, "ZSTD decompression failed: Destination buffer is too small"),
        ("B", 40, 0xFF, "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_what_a_forged_file_tells_of_itself_is_not_believed(
    opened: Opened, kind: str, place: int, value: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made such a file made its checksum, too."""
    monkeypatch.setattr("exporter.store.insert_file._CODEC", SmallMemory())
    opened.spool.append(insert("a"), tried=False)
    opened.spool.append(insert("b"), tried=False)
    file = opened.files()[0]
    data = bytearray(file.read_bytes())
    struct.pack_into(kind, data, place, value)
    struct.pack_into("<I", data, 8, zlib.crc32(data[12:]))
    file.write_bytes(data)
    with pytest.raises(DamagedFileError):
        read_insert(file)
    assert opened.replay() == ["b"]
    (aside,) = Quarantine(opened.folder, MIB).files()
    assert aside.reason == f"damaged: {why}"


class SmallMemory:
    """The codec of a machine that does not promise more memory than it has, as many do."""

    codec = pa.Codec("zstd", compression_level=1)

    def compress(self, data: pa.Buffer) -> pa.Buffer:
        return self.codec.compress(data)

    def decompress(self, data: pa.Buffer, decompressed_size: int, asbytes: bool) -> bytes:
        if decompressed_size > 1 << 30:
            raise MemoryError
        octets: bytes = self.codec.decompress(data, decompressed_size, asbytes=asbytes)
        return octets


def test_a_damaged_file_that_cannot_be_set_aside_stays_and_holds_up_no_others(
    opened: Opened,
) -> None:
    for name in ("a", "b"):
        opened.spool.append(insert(name), tried=False)
    damaged = opened.files()[0]
    damaged.write_bytes(b"#!/bin/sh")
    (opened.folder / "quarantine").write_text("no folder")
    assert opened.replay() == ["b"]
    assert opened.files() == [damaged]
    assert opened.metric("spool_corrupt_files_total") == 1


def test_files_of_others_stay_where_they_are(opened: Opened) -> None:
    opened.spool.append(insert("a"), tried=False)
    opened.spool.close()
    others = ("12-10.bak", "notes.insert", "12-all.insert", "last-10.tried")
    for name in others:
        (opened.folder / name).write_text("")
    again = Opened(opened.folder)
    assert again.metric("spool_batches") == 1
    assert again.replay() == ["a"]
    assert sorted(path.name for path in opened.folder.iterdir()) == sorted([*others, "lock"])
    again.spool.close()


def test_a_file_that_somebody_took_holds_up_no_others(opened: Opened) -> None:
    for name in ("a", "b"):
        opened.spool.append(insert(name), tried=False)
    opened.files()[0].unlink()
    assert opened.replay() == ["b"]
    assert opened.metric("spool_corrupt_files_total") == 1


def test_a_write_that_was_cut_short_is_cleared_away(opened: Opened) -> None:
    opened.spool.append(insert("a"), tried=False)
    opened.spool.close()
    (opened.folder / "000000000000001-10.insert.unfinished").write_bytes(b"FLOW")
    again = Opened(opened.folder)
    assert again.metric("spool_corrupt_files_total") == 1
    assert again.replay() == ["a"]
    assert sorted(p.name for p in opened.folder.iterdir()) == ["lock"]
    again.spool.close()


def test_when_it_is_full_the_oldest_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Opened(tmp_path / "spool", max_bytes=MIB)
    for name in "abcdef":
        opened.spool.append(insert(name, size=300_000), tried=name == "b")
        assert sum(file.stat().st_size for file in opened.files()) <= MIB
        if name == "d":  # a went, not b, which would come out before it
            assert [read_insert(file).token for file in opened.files()] == ["b", "c", "d"]
    assert opened.metric("spool_dropped_rows_total", reason="full") == 30
    assert "is full: the oldest flows are dropped" in caplog.text
    assert opened.metric("spool_batches") == 3
    assert opened.metric("spool_bytes_limit") == MIB
    with pytest.raises(SpoolError, match="max_bytes"):
        opened.spool.append(insert("g", size=2 * MIB), tried=False)
    assert opened.replay() == ["d", "e", "f"]
    opened.spool.close()


def test_what_is_on_its_way_to_clickhouse_is_not_dropped(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "spool", max_bytes=MIB)
    opened.spool.append(insert("a", size=500_000), tried=False)
    found = opened.spool.next()
    assert found is not None
    for name in "bc":
        opened.spool.append(insert(name, size=300_000), tried=False)
    assert opened.metric("spool_dropped_rows_total", reason="full") == 10  # b
    opened.spool.taken(found[0])
    assert opened.metric("spool_replayed_rows_total") == 10
    assert opened.replay() == ["c"]
    opened.spool.close()


def test_flows_that_are_too_old_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(tmp_path / "spool", max_age_seconds=600)
    opened.spool.append(insert("a"), tried=False)
    opened.spool.close()
    now = int(time.time() * 1000)
    for age in (601_000, 300_000):
        write_durably(opened.folder / f"{now - age:015d}-7.insert", pack(insert(str(age), rows=7)))
    again = Opened(opened.folder, max_age_seconds=600)
    assert again.metric("spool_oldest_age_seconds") == pytest.approx(601, abs=60)
    # A clock that is ahead says so, too: none is dropped yet.
    first = again.spool.next()
    assert first is not None
    again.spool.failed(first[0], by_clickhouse=False)
    assert again.metric("spool_dropped_rows_total", reason="age") == 0
    assert again.metric("spool_rows") == 24
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    again.spool.append(insert("b"), tried=False)
    assert again.replay() == ["b"]
    assert again.metric("spool_dropped_rows_total", reason="age") == 24
    assert "longer than max_age_seconds: the oldest flows are dropped" in caplog.text
    again.spool.close()


@pytest.mark.parametrize("jump", [86_400 * 30, -86_400 * 30])
def test_a_clock_that_is_set_meanwhile_makes_no_flows_old(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    opened.spool.append(insert("a"), tried=False)
    now = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + jump)
        assert opened.metric("spool_oldest_age_seconds") == pytest.approx(0, abs=60)
        opened.spool.append(insert("b"), tried=False)
        assert opened.spool.next() is not None
    assert opened.replay() == ["a", "b"]
    assert opened.metric("spool_dropped_rows_total", reason="age") == 0


def test_files_of_a_clock_that_was_ahead_wait_like_new_ones(opened: Opened) -> None:
    opened.spool.close()
    ahead = int(time.time() * 1000) + 86_400_000
    write_durably(opened.folder / f"{ahead:015d}-7.insert", pack(insert("ahead", rows=7)))
    again = Opened(opened.folder, max_age_seconds=600)
    assert again.metric("spool_oldest_age_seconds") == pytest.approx(0, abs=60)
    again.spool.append(insert("b"), tried=False)
    again.spool.close()
    later = Opened(opened.folder, max_age_seconds=600)
    assert later.replay() == ["ahead", "b"]
    later.spool.close()


def test_a_full_disk_is_told_and_leaves_nothing_behind(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.spool.append(insert("a"), tried=False)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SpoolError, match="No space left on device"):
            opened.spool.append(insert("b"), tried=False)
    assert opened.metric("spool_write_failures_total") == 1
    assert opened.metric("spool_bytes") == opened.files()[0].stat().st_size
    opened.spool.append(insert("c"), tried=False)
    # What could not be written takes no room: else the oldest would be dropped for it.
    assert opened.metric("spool_bytes") == sum(file.stat().st_size for file in opened.files())
    assert opened.replay() == ["a", "c"]
    assert sorted(p.name for p in opened.folder.iterdir()) == ["lock"]


def test_one_that_clickhouse_never_takes_lets_others_pass_and_is_found_out(opened: Opened) -> None:
    for name in ("bad", "b", "c", "d", "e"):
        opened.spool.append(insert(name), tried=False)
    passed = []
    for _ in range(20):
        found = opened.spool.next()
        assert found is not None
        entry, given = found
        if given.token != "bad":
            passed.append(given.token)
            opened.spool.taken(entry)
        elif opened.spool.failed(entry, by_clickhouse=True):
            break
    else:
        pytest.fail("never found out")
    assert passed == ["b", "c", "d", "e"][: len(passed)]
    assert len(passed) >= 3
    assert entry.failures == 8  # until then it may be ClickHouse that has a bad time


def test_no_insert_is_to_blame_while_clickhouse_takes_none(opened: Opened) -> None:
    for name in "abcdef":
        opened.spool.append(insert(name), tried=False)
    tried = []
    for _ in range(50):
        found = opened.spool.next()
        assert found is not None
        tried.append(found[1].token)
        assert not opened.spool.failed(found[0], by_clickhouse=True)
    assert set(tried) == {"a", "b"}  # few are in doubt
    assert {"a", "b"} <= set(opened.replay()[:3])


def test_refused_inserts_go_to_quarantine_with_the_reason(opened: Opened) -> None:
    refused = insert("a", rows=5)
    assert opened.spool.quarantine(refused, "type_mismatch", "Code: 53. Type mismatch")
    (kept,) = Quarantine(opened.folder, MIB).files()
    assert read_insert(kept.path) == refused
    assert kept.reason == "type_mismatch: Code: 53. Type mismatch"
    assert kept.rows == 5
    assert kept.since == pytest.approx(time.time(), abs=60)
    assert opened.metric("quarantined_rows_total", reason="type_mismatch") == 5
    assert opened.metric("quarantine_bytes") == kept.size
    Quarantine(opened.folder, MIB).remove(kept)  # as the command line does
    assert opened.metric("quarantine_files") == 0
    assert not list((opened.folder / "quarantine").iterdir())


def test_a_spooled_insert_that_is_refused_needs_no_room_on_the_disk(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.spool.append(insert("a", rows=5), tried=False)
    found = opened.spool.next()
    assert found is not None
    entry, given = found

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(Path, "write_text", full)
        assert opened.spool.quarantine(given, "type_mismatch", "Code: 53", entry)
    opened.spool.remove(entry)
    (kept,) = Quarantine(opened.folder, MIB).files()
    assert read_insert(kept.path) == given
    assert kept.rows == 5
    assert opened.files() == []
    assert opened.metric("spool_bytes") == 0
    assert opened.metric("quarantined_rows_total", reason="type_mismatch") == 5


def test_quarantine_is_bounded(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "spool", quarantine_max_bytes=MIB)
    for name in "abcd":
        assert opened.spool.quarantine(insert(name, size=400_000), "type_mismatch", name)
    kept = Quarantine(opened.folder, MIB).files()
    assert [file.reason for file in kept] == ["type_mismatch: c", "type_mismatch: d"]
    assert opened.metric("quarantine_dropped_rows_total") == 20
    assert not opened.spool.quarantine(insert("e", size=2 * MIB), "type_mismatch", "e")
    assert opened.metric("quarantine_files") == 2
    opened.spool.append(insert("f", size=900_000), tried=False)
    opened.files()[0].write_bytes(bytes(900_000))
    assert opened.replay() == []
    assert opened.metric("quarantine_files") == 1
    assert opened.metric("quarantine_dropped_rows_total") == 40
    opened.spool.close()


def test_what_a_death_left_in_quarantine_is_cleared_away(opened: Opened) -> None:
    assert opened.spool.quarantine(insert("a"), "type_mismatch", "why")
    opened.spool.close()
    folder = opened.folder / "quarantine"
    whole = sorted(path.name for path in folder.iterdir())
    (folder / "000000000000001-10.reason").write_text("of nothing")
    (folder / "000000000000002-10.insert.unfinished").write_bytes(b"FLOW")
    Opened(opened.folder).spool.close()
    assert sorted(path.name for path in folder.iterdir()) == whole
    (kept,) = Quarantine(opened.folder, MIB).files()
    assert kept.reason == "type_mismatch: why"


def test_no_file_stays_open(opened: Opened) -> None:
    def held() -> list[str]:
        files = []
        for each in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that by which they are listed
                files.append(str(each.readlink()))
        return sorted(file for file in files if file.startswith(str(opened.folder)))

    before = held()
    assert before == [str(opened.folder / "lock")]
    for number in range(20):
        opened.spool.append(insert(str(number)), tried=False)
    assert opened.spool.quarantine(insert("a"), "type_mismatch", "why")
    opened.replay()
    assert held() == before


WRITE_FOR_EVER = """
import sys
from exporter.config import Spool as Settings
from exporter.store.insert import Insert
from exporter.store.spool import Spool
from exporter.store.spool_stats import SpoolStats
spool = Spool(Settings(directory=sys.argv[1]), SpoolStats(()))
number = 0
while True:
    spool.append(Insert(str(number), 1, bytes([number % 256]) * 100_000), tried=False)
    print(number, flush=True)
    number += 1
"""


def test_what_was_kept_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(20 + number)]
        time.sleep(0.003 * number)
        process.kill()
        process.wait()
        lines += process.stdout.readlines()
        process.stdout.close()
        kept = [line.strip() for line in lines]
        again = Opened(folder)
        tokens = again.replay()
        assert tokens[: len(kept)] == kept
        assert len(tokens) <= len(kept) + 1  # written, not yet told
        again.spool.close()


def test_a_file_that_goes_while_others_look_is_passed_over(opened: Opened) -> None:
    opened.spool.append(insert("a", rows=3), tried=False)
    (opened.folder / "000000000000001-7.insert").symlink_to(opened.folder / "gone")
    assert [file.rows for file in waiting_files(opened.folder)] == [3]
