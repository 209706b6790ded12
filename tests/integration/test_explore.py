"""`flow-exporter explore` against the real store, with the dashboards' hour of traffic."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from exporter.cli import app
from exporter.config import load_config
from exporter.explore.ask import Asked
from exporter.explore.keys import keys_query
from exporter.explore.series import series_query
from exporter.explore.show import human, sparkline
from exporter.explore.table import table_query
from exporter.store.client import connect
from tests.support.dashboard_flows import END, MINUTES, START, fill
from tests.support.database import migrated_database
from tests.support.grafana import tables_read


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


HOUR = ("--from", moment(START), "--to", moment(END))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with migrated_database() as database:
        with database.connect() as writer:
            fill(writer)
        file = tmp_path_factory.mktemp("explore") / "flow-exporter.yaml"
        clickhouse = {
            "url": database.settings.url,
            "user": database.settings.user,
            "password_file": database.settings.password_file,
        }
        file.write_text(yaml.safe_dump({"clickhouse": clickhouse}))
        yield file


def explore(config: Path | None, *arguments: str) -> Result:
    told = ["--config", str(config)] if config else []
    return CliRunner().invoke(app, ["explore", *told, *arguments], env={"COLUMNS": "300"})


def keys(config: Path, *arguments: str) -> list[dict[str, Any]]:
    run = explore(config, *HOUR, *arguments, "--json")
    assert run.exit_code == 0, run.output
    found: list[dict[str, Any]] = json.loads(run.output)["keys"]
    return found


def test_largest_keys_come_first_with_their_values(config: Path) -> None:
    first, *others = keys(config, "--by", "src_addr", "--top", "3")
    assert (first["key"], first["name"]) == (["10.9.9.9"], "spike")
    assert first["maximum"] == first["p95"] == 1_000_000 * 8 / 60
    assert first["values"] == [0] * 30 + [1_000_000 * 8 / 60] * 30
    assert len(others) == 2
    [most, *_] = keys(config, "--by", "src_addr", "--measure", "packets_per_second")
    assert most["key"] == ["10.0.0.7"]


def test_filters_and_addresses_narrow_it(config: Path) -> None:
    where = "dst_port = 14999 AND src_host != 'spike'"
    [port] = keys(config, "--by", "dst_port", "--where", where)
    assert port["key"] == ["14999"]
    assert port["total"] < 30 * 1_000_000 * 8, "without the spike"
    [lab] = keys(config, "--by", "src_addr", "--address", "lab")
    assert lab["key"] == ["10.9.9.9"]
    assert keys(config, "--address", "' OR 1=1 --") == []


@pytest.mark.parametrize("days", [1, 7, 365])
@pytest.mark.parametrize("where", ["", "proto >= 0"])
def test_a_long_range_ends_when_it_is_told_to_not_with_a_whole_bucket(
    config: Path, days: int, where: str
) -> None:
    """The hour of traffic is less than a bucket of a year or a week, and the last one."""
    times = ("--from", moment(END - days * 86400), "--to", moment(END))
    run = explore(config, *times, "--by", "src_host", "--where", where, "--json")
    [spike, *_] = json.loads(run.output)["keys"]
    assert spike["key"] == ["spike"]
    assert spike["total"] == 30 * 1_000_000 * 8
    assert spike["average"] == pytest.approx(spike["total"] / (days * 86400), rel=0.05)
    assert spike["last"] > spike["average"]


def test_two_dimensions_pins_and_comparison(config: Path) -> None:
    pairs = keys(config, "--by", "device", "--by", "dst_port", "--top", "1", "--pin", "r1")
    assert {tuple(row["key"]) for row in pairs} >= {("r1", "14999"), ("r1", "443")}
    assert all(len(row["values"]) == MINUTES for row in pairs)
    ports = {
        row["key"][0]: row
        for row in keys(config, "--by", "dst_port", "--compare", "day", "--top", "20")
    }
    assert ports["443"]["earlier"] == 480_000
    assert ports["443"]["change"] > 0
    assert ports["20012"]["change"] is None
    assert ports["20012"]["values"][-10:] == [0] * 10


def test_a_table_for_people_and_csv_for_programs(config: Path) -> None:
    run = explore(config, *HOUR, "--by", "src_as", "--compare", "week")
    assert run.exit_code == 0, run.output
    title, header, first, *_ = run.output.splitlines()
    assert title.startswith("Bits/s, ")
    assert header.split()[:2] == ["src_as", "name"]
    assert first.split()[0] == "4200000000"
    assert first.rstrip().endswith("▁" * 15 + "█" * 15)
    text = explore(config, *HOUR, "--by", "src_host", "--csv").output
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["src_host"] == "spike"
    assert float(rows[0]["average"]) == pytest.approx(1_000_000 * 8 / 60 / 2)
    nothing = explore(config, *HOUR, "--address", "192.0.2.77")
    assert nothing.exit_code == 0
    assert "no flows match" in nothing.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "nothing"], "no dimension is named 'nothing'"),
        (["--by", "dst_adr"], "no dimension is named 'dst_adr': is dst_addr meant?"),
        (["--where", "dst_hst = 'a'"], "no flow column is named 'dst_hst': is dst_host meant?"),
        (["--by", "proto", "--by", "proto"], "two different"),
        (["--measure", "bytes"], "no measure is named 'bytes'"),
        (["--where", "1) OR (SELECT 1"], "where: "),
        (["--where", "file('/etc/passwd') != ''"], "where: function file is not allowed"),
        (["--compare", "year"], "not with 'year'"),
        (["--top", "0"], "top must be from 1"),
        (["--address", "10.0.0.0/33"], "not a prefix"),
        (["--address", "10.0.0.0/"], "not a prefix"),
        (["--address", "10.0.0.0/255.0.0.0"], "not a prefix"),
        (["--last", "soon"], "not a length"),
        (["--last", "0h"], "not a length"),
        (["--from", "yesterday"], "not a time"),
        (["--from", "2026-03-02", "--to", "2026-03-01"], "ends before it begins"),
        (["--json", "--csv"], "not both"),
    ],
)
def test_a_wrong_question_is_explained(arguments: list[str], said: str) -> None:
    run = explore(None, *arguments)
    assert run.exit_code == 2
    assert said in run.output


def test_a_store_that_does_not_answer_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "flow-exporter.yaml"
    file.write_text("clickhouse: {url: 'http://127.0.0.1:9'}\n")
    run = explore(file)
    assert run.exit_code == 1
    assert "cannot be reached" in run.output


def test_a_filter_that_clickhouse_refuses_is_explained(config: Path) -> None:
    refused = explore(config, *HOUR, "--where", "startsWith(src_port, 1, 2, 3)")
    assert refused.exit_code == 1
    assert "startsWith" in refused.output


@pytest.mark.parametrize(
    ("days", "by", "measure"),
    [
        (1, ("proto",), "bits_per_second"),
        (1, ("service",), "packets_per_second"),
        (1, ("device", "out_if"), "flows_per_second"),
        (8, ("device", "in_if"), "bits_per_second"),
        (1, ("device",), "share_of_total"),
        (1, ("src_addr",), "bits_per_second"),
        (1, ("dst_addr", "dst_network"), "packets_per_second"),
        (1, ("src_host",), "flows_per_second"),
        (1, ("src_as", "dst_country"), "share_of_total"),
        (8, ("dst_addr",), "unique_src_addr"),
        (1, ("src_network",), "bits_per_second"),
    ],
)
def test_long_ranges_read_a_rollup_that_says_the_same(
    config: Path, days: int, by: tuple[str, ...], measure: str
) -> None:
    end = (END // 21600 + 1) * 21600
    asks = [
        "--from", moment(end - days * 86400), "--to", moment(end), "--top", "50",
        "--measure", measure, "--json", *(part for name in by for part in ("--by", name)),
    ]  # fmt: skip
    rolled = json.loads(explore(config, *asks).output)["keys"]
    # A condition that always holds makes it read the flows.
    raw = json.loads(explore(config, *asks, "--where", "proto >= 0").output)["keys"]
    assert rolled
    told = [
        {(*row["key"], row["name"], row["total"]) for row in answer} for answer in (rolled, raw)
    ]
    assert told[0] == told[1]


def test_a_rollup_is_read_only_where_it_can_answer(config: Path) -> None:
    """And nothing else beside it, as ClickHouse plans the query."""
    day = 86400
    client = connect(load_config(config).clickhouse)

    def tables(**asked: Any) -> set[str]:
        question = Asked(END - asked.pop("seconds", day), END, **asked).question()
        found = set()
        for sql in (table_query(question), series_query(question)):
            plan = "\n".join(row[0] for row in client.query(f"EXPLAIN {sql}").result_rows)
            found |= tables_read(plan)
        return found

    assert tables(by=["device"]) == {"flows_1m"}
    assert tables(by=["device", "proto"], seconds=4 * day) == {"flows_1h"}
    assert tables(by=["device"], seconds=6 * 3600) == {"flows"}
    assert tables(by=["src_addr"]) == {"hosts_1h"}
    assert tables(by=["dst_host"], measure="unique_src_addr") == {"hosts_1h"}
    assert tables(by=["src_as", "dst_network"]) == {"networks_1h"}
    assert tables(by=["src_addr"], seconds=6 * 3600) == {"flows"}
    assert tables(by=["src_addr"], where="proto = 6") == {"flows"}
    assert tables(by=["src_addr", "dst_addr"]) == {"flows"}
    assert tables(by=["src_addr"], measure="unique_src_addr") == {"flows"}
    assert tables(by=["device", "src_as"]) == {"flows"}
    assert tables(by=["proto"], measure="unique_src_addr") == {"flows"}
    assert tables(by=["device"], address="fl13") == {"flows"}
    assert tables(by=["device"], where="proto = 6") == {"flows"}
    client.close()


def test_keys_of_a_long_range_come_from_a_rollup_whatever_the_buckets(config: Path) -> None:
    """Queries of Grafana's variables are told buckets of a second."""
    client = connect(load_config(config).clickhouse)
    for by, table in (("device", "flows_1m"), ("src_addr", "hosts_1h")):
        question = replace(Asked(END - 86400, END, by=(by,)).question(), step="1")
        plan = client.query(f"EXPLAIN {keys_query(question)}").result_rows
        assert tables_read("\n".join(row[0] for row in plan)) == {table}
    client.close()


def test_pairs_are_sought_in_the_largest_groups_of_them(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group holds all that its pairs carry, so the largest pairs are found whatever its size."""
    all_pairs = keys(config, "--by", "src_addr", "--by", "dst_port", "--top", "100")
    all_counts = keys(
        config, "--by", "src_addr", "--by", "dst_addr", "--measure", "unique_src_port",
        "--top", "1000",
    )  # fmt: skip
    devices = keys(config, "--by", "src_addr", "--by", "device", "--top", "100")
    monkeypatch.setattr("exporter.explore.keys.LARGEST_GROUPS", 3)
    pairs = keys(config, "--by", "src_addr", "--by", "dst_port", "--top", "100")
    assert pairs[0] == all_pairs[0]
    assert 3 <= len(pairs) < len(all_pairs), "those of three groups only"
    counts = keys(
        config, "--by", "src_addr", "--by", "dst_addr", "--measure", "unique_src_port",
        "--top", "1000",
    )  # fmt: skip
    assert 3 <= len(counts) < len(all_counts)
    smallest = all_pairs[-1]["key"]
    pinned = keys(config, "--by", "src_addr", "--by", "dst_port", "--pin", smallest[0])
    assert smallest in [row["key"] for row in pinned]
    assert keys(config, "--by", "src_addr", "--by", "device", "--top", "100") == devices


def test_ranges_have_a_bucket_length_that_fits() -> None:
    assert Asked(0, 3600).step == 60
    assert Asked(0, 6 * 3600).step == 600
    assert Asked(0, 7 * 86400).step == 10800
    assert Asked(0, 10 * 365 * 86400).step == 604800


def test_numbers_and_lines_for_people() -> None:
    assert [human(n) for n in (0, 12.345, 999.9, 1000, 133333.3, 4.2e9)] == [
        "0", "12.35", "999.9", "1k", "133.3k", "4.2G",
    ]  # fmt: skip
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 1, 2, 4]) == "▁▃▅█"
    assert sparkline([0, 9, 0, 0], width=2) == "█▁", "a peak between is not lost"
