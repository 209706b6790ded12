"""Records of inserted parts on disk, as the engine reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.store.server import records


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The folder of a table with a part of its own, and one of five that were merged."""
    made = tmp_path / "store" / "0c1" / "0c1f0000-0000-0000-0000-000000000000"
    (made / "deduplication_logs").mkdir(parents=True)
    for name in ("20261123_7_7_0", "20261123_1_5_1_6", "all_3_3_0", "tmp_insert_20261123_8_8_0"):
        (made / name).mkdir()
        (made / name / "checksums.txt").touch()
    (made / "20261123_8_8_0").mkdir()  # nothing of it came there
    (made / "format_version.txt").write_text("1")
    return made


def write(table: Path, number: int, *lines: str) -> Path:
    log = table / "deduplication_logs" / f"deduplication_log_{number}.txt"
    log.write_text("".join(lines))
    return log


def test_tables_are_those_with_records(table: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / "0c1" / "0c1f0000-0000-0000-0000-000000000001").mkdir()
    assert records.tables(tmp_path) == [table]


def test_a_record_without_its_part_is_found(table: Path) -> None:
    there = [f"1\t{part}\ttoken\n" for part in ("20261123_7_7_0", "20261123_2_2_0", "all_3_3_0")]
    gone = [f"1\t{part}\ttoken\n" for part in ("20261123_8_8_0", "20261124_2_2_0", "all_1_1_0")]
    write(table, 1, *there, *gone[:2])
    write(table, 2, gone[2], "2\t20261122_1_1_0\ttoken\n")
    assert records.without_part(table) == set(gone)
    assert [records.has_part(table, record) for record in (there[0], *gone)] == [True, *[False] * 3]


def test_what_is_forgotten_goes_from_the_logs_and_nothing_else(table: Path) -> None:
    kept, lost = "1\t20261123_7_7_0\ttoken a\n", "1\t20261123_8_8_0\ttoken b\n"
    first, second = write(table, 1, kept), write(table, 2, lost, kept)
    before = first.stat().st_ino
    records.forget(table, {lost})
    assert (first.read_text(), second.read_text()) == (kept, kept)
    assert first.stat().st_ino == before, "is not written anew"
    assert sorted(log.name for log in (table / "deduplication_logs").iterdir()) == [
        "deduplication_log_1.txt", "deduplication_log_2.txt",
    ]  # fmt: skip


def test_lines_that_a_full_disk_cut_short_go_with_what_was_put_behind_them(table: Path) -> None:
    whole = "1\t20261123_7_7_0\ttoken\n"
    log = write(table, 1, whole, "1\t20261123_8_8_01\tall_3_3_0\ttoken\n", whole, "1\t2026")
    assert records.without_part(table) == set()
    records.forget(table, set())
    assert log.read_text() == whole * 2
