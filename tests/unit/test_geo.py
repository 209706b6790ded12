"""Countries and autonomous systems from MMDB files."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import maxminddb
import numpy as np
import pytest

from exporter.address import pack_address
from exporter.batch import FlowBatch
from exporter.config import Config, ConfigError, Geo
from exporter.enrich.geo import CountryFact, GeoFiles, GeoSearch, SystemFact
from exporter.enrich.geo_as_names import AsNames, read_names
from exporter.enrich.geo_mmdb import MmdbFile, country_text
from tests.support.mmdb import IPINFO_LITE, MAXMIND_AS, MAXMIND_CITY, write


def packed(*addresses: str) -> Any:
    octets = b"".join(map(pack_address, addresses))
    return np.frombuffer(octets, np.uint8).reshape(-1, 16)


def facts(file: MmdbFile, *addresses: str) -> list[tuple[int, str]]:
    systems, countries = file.find(packed(*addresses))
    return [(s, country_text(c)) for s, c in zip(systems.tolist(), countries.tolist(), strict=True)]


def flows(*addresses: str, **columns: Any) -> FlowBatch:
    addresses_ = packed(*addresses)
    return FlowBatch(
        len(addresses_), {"src_addr": addresses_, "dst_addr": addresses_[::-1]} | columns
    )


def enriched(batch: FlowBatch, files: GeoFiles, **options: Any) -> list[dict[str, Any]]:
    search = GeoSearch(files)
    systems = SystemFact(search, **{"prefer_device_as": True} | options)
    for fact in (systems, CountryFact(search)):
        for side in ("src", "dst"):
            fact.fill(batch, side, fact.find(batch.array(f"{side}_addr")))
    return list(batch.rows())


@pytest.mark.parametrize(
    ("record", "system", "name", "country"),
    [
        (MAXMIND_AS, 64496, "Example Transit", ""),
        (MAXMIND_CITY, 0, "", "DE"),
        ({"registered_country": {"iso_code": "FR"}}, 0, "", "FR"),
        (IPINFO_LITE, 64496, "Example Transit", "DE"),
        ({"asn": "AS64496", "as_name": "Example", "country": "US"}, 64496, "Example", "US"),
        ({"asn": "AS64496", "name": "Example", "domain": "example.net"}, 64496, "Example", ""),
        ({"traits": MAXMIND_AS, "country": {"iso_code": "US"}}, 64496, "Example Transit", "US"),
        ({"asn": "ASnone", "country": "Germany"}, 0, "", ""),
        ({"country": {"iso_code": 7}, "asn": []}, 0, "", ""),
        ({"autonomous_system_number": 2**32 - 1}, 2**32 - 1, "", ""),
    ],
)
def test_layouts_of_the_vendors(
    tmp_path: Path, record: dict[str, Any], system: int, name: str, country: str
) -> None:
    file = MmdbFile(str(write(tmp_path / "a.mmdb", {"192.0.2.0/24": record})))
    assert facts(file, "192.0.2.9", "198.51.100.1") == [(system, country), (0, "")]
    assert file.names == ({system: name} if name else {})


@pytest.mark.parametrize("bits", [24, 28, 32])
@pytest.mark.parametrize("ip_version", [4, 6])
def test_it_finds_what_the_reference_reader_finds(
    tmp_path: Path, bits: int, ip_version: int
) -> None:
    rng = random.Random(bits + ip_version)
    networks: dict[str, Any] = {}
    for number in range(300):
        length = rng.choice([1, 7, 8, 12, 15, 16, 17, 20, 24, 25, 31, 32])
        start = rng.getrandbits(32) >> (32 - length) << (32 - length)
        networks[f"{ipaddress.IPv4Address(start)}/{length}"] = {"asn": number + 1}
        if ip_version == 6:
            length = rng.choice([3, 19, 32, 48, 64, 127, 128])
            start = (0x2 << 124 | rng.getrandbits(124)) >> (128 - length) << (128 - length)
            networks[f"{ipaddress.IPv6Address(start)}/{length}"] = {"asn": 1000 + number}
    networks = dict(sorted(networks.items(), key=lambda item: int(item[0].split("/")[1])))
    path = write(tmp_path / "a.mmdb", networks, ip_version=ip_version, bits=bits)
    reader = maxminddb.open_database(str(path))
    assert reader.metadata().record_size == bits
    inside = [ipaddress.ip_network(n) for n in networks]
    addresses = [str(n[0]) for n in inside] + [str(n[-1]) for n in inside]
    addresses += [str(ipaddress.IPv4Address(rng.getrandbits(32))) for _ in range(2000)]
    addresses += [str(ipaddress.IPv6Address(rng.getrandbits(128))) for _ in range(200)]
    addresses = [a for a in addresses if ip_version == 6 or ":" not in a]
    known = [reader.get(address) for address in addresses]
    expected = [record["asn"] if record else 0 for record in known]
    assert sum(map(bool, expected)) > 1000
    assert [system for system, _ in facts(MmdbFile(str(path)), *addresses)] == expected


def test_a_file_of_ipv4_knows_no_ipv6(tmp_path: Path) -> None:
    file = MmdbFile(str(write(tmp_path / "a.mmdb", {"128.0.0.0/1": MAXMIND_AS}, ip_version=4)))
    assert facts(file, "2001:db8::1", "::", "192.0.2.1") == [(0, ""), (0, ""), (64496, "")]


def test_files_complete_each_other_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "as.mmdb", {"192.0.2.0/24": MAXMIND_AS})
    second = write(
        tmp_path / "lite.mmdb",
        {"192.0.0.0/16": {"asn": "AS64500", "country_code": "NL"}, "2001:db8::/32": IPINFO_LITE},
    )
    files = GeoFiles(Geo(files=[str(first), str(second)]))
    rows = enriched(flows("192.0.2.1", "192.0.3.1", "2001:db8::1", "10.0.0.1"), files)
    assert [(row["src_as"], row["src_country"]) for row in rows] == [
        (64496, "NL"), (64500, "NL"), (64496, "DE"), (0, ""),
    ]  # fmt: skip
    assert [row["dst_as"] for row in rows] == [0, 64496, 64500, 64496]


@pytest.mark.parametrize(("prefer", "kept"), [(True, [65001, 64496]), (False, [64496, 64496])])
def test_as_numbers_of_devices_win_unless_told_otherwise(
    tmp_path: Path, prefer: bool, kept: list[int]
) -> None:
    path = write(tmp_path / "as.mmdb", {"192.0.2.0/24": MAXMIND_AS})
    batch = flows("192.0.2.1", "192.0.2.1", src_as=np.array([65001, 0], np.uint32))
    rows = enriched(batch, GeoFiles(Geo(files=[str(path)])), prefer_device_as=prefer)
    assert [row["src_as"] for row in rows] == kept


def test_what_the_files_do_not_know_of_a_device_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "as.mmdb", {"192.0.2.0/24": MAXMIND_AS})
    batch = flows("10.0.0.1", src_as=np.array([65001], np.uint32))
    rows = enriched(batch, GeoFiles(Geo(files=[str(path)])), prefer_device_as=False)
    assert rows[0]["src_as"] == 65001


def metric(files: GeoFiles, name: str) -> float:
    return sum(s.value for f in files.collect() for s in f.samples if s.name.endswith(name))


def test_a_new_version_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "as.mmdb"
    write(path, {"192.0.2.0/24": MAXMIND_AS})
    files = GeoFiles(Geo(files=[str(path)]))
    fact = SystemFact(GeoSearch(files), prefer_device_as=True)
    address = packed("192.0.2.1")

    def found() -> int:
        fact.changed()
        batch = flows("192.0.2.1")
        fact.fill(batch, "src", fact.find(address))
        return int(batch.array("src_as")[0])

    assert found() == 64496
    assert fact.changed() == ()
    write(path, {"192.0.2.0/24": {"asn": 7}})
    files.look()
    assert fact.changed() is None  # every address is looked up again
    assert found() == 7
    whole = path.read_bytes()
    for broken in (b"", b"nonsense", whole[:-40], whole[len(whole) // 2 :]):
        path.write_bytes(broken)
        files.look()
        assert found() == 7
    assert metric(files, "failures_total") == 4
    assert metric(files, "valid") == 0
    path.unlink()
    files.look()
    assert found() == 7
    assert metric(files, "failures_total") == 5
    files.look()
    assert metric(files, "failures_total") == 5
    write(path, {"192.0.2.0/24": {"asn": 8}})
    files.look()
    assert found() == 8
    assert metric(files, "valid") == 1


def test_a_file_that_is_overwritten_in_place_does_not_change_under_the_search(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "as.mmdb", {"192.0.2.0/24": MAXMIND_AS})
    file = MmdbFile(str(path))
    path.write_bytes(b"")
    assert facts(file, "192.0.2.1") == [(64496, "")]


@pytest.mark.parametrize("change", ["missing", "text", "tree"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "as.mmdb", {"192.0.2.0/24": MAXMIND_AS})
    whole = bytearray(path.read_bytes())
    if change == "missing":
        path.unlink()
    elif change == "text":
        path.write_text("nonsense")
    else:
        whole[:3] = b"\xff\xff\xff"
        path.write_bytes(whole)
    with pytest.raises(ConfigError, match=r"as\.mmdb: "):
        GeoFiles(Geo(files=[str(path)]))


@pytest.mark.parametrize("octet", [0x00, 0x20, 0xE3, 0xFF])
def test_a_damaged_record_is_one_of_which_nothing_is_known(tmp_path: Path, octet: int) -> None:
    path = write(tmp_path / "x.mmdb", {"192.0.2.0/24": IPINFO_LITE, "198.51.100.0/24": MAXMIND_AS})
    whole = path.read_bytes()
    for place in range(whole.index(b"country_code") - 20, whole.rindex(b"\xab\xcd\xefMaxMind.com")):
        damaged = bytearray(whole)
        damaged[place] = octet
        path.write_bytes(damaged)
        assert len(facts(MmdbFile(str(path)), "192.0.2.1", "198.51.100.1", "203.0.113.1")) == 3


def test_the_configuration_names_files_beside_it(tmp_path: Path) -> None:
    config = Config.model_validate({"geo": {"files": ["a.mmdb"]}}, context={"folder": tmp_path})
    assert config.geo.files == [str(tmp_path / "a.mmdb")]


class Table:
    """``as_names`` as a client shows it."""

    def __init__(self, rows: dict[int, str]) -> None:
        self.rows = rows
        self.inserts: list[Any] = []
        self.down = False

    def __call__(self) -> Table:
        if self.down:
            raise OSError("down")
        return self

    def query(self, query: str) -> Any:
        return SimpleNamespace(result_rows=list(self.rows.items()))

    def insert(self, table: str, data: Any, column_names: Any) -> None:
        assert (table, column_names) == ("as_names", ["number", "name"])
        self.inserts.append(sorted(data))

    def close(self) -> None:
        pass


def test_names_of_as_numbers_are_stored_as_they_come_up(tmp_path: Path) -> None:
    path = write(
        tmp_path / "as.mmdb",
        {"192.0.2.0/24": MAXMIND_AS, "198.51.100.0/24": {"asn": "AS7", "as_name": "Seven"},
         "203.0.113.0/24": {"asn": "AS8", "as_name": "Eight"}},
    )  # fmt: skip
    listed = tmp_path / "names.csv"
    listed.write_text("number,name\n# ours\nAS65001,Our own\n8,Eight of ours\n")
    files, table = GeoFiles(Geo(files=[str(path)])), Table({64496: "Example Transit"})
    names = AsNames(table, files, str(listed))

    def valid() -> float:
        found = {s.name: s.value for family in names.collect() for s in family.samples}
        return found["flow_exporter_as_name_list_valid"]

    names.store()
    assert table.inserts == [[(8, "Eight of ours"), (65001, "Our own")]]
    enriched(flows("192.0.2.1", "198.51.100.1", "203.0.113.1"), files)
    names.store()
    assert table.inserts[1:] == [[(7, "Seven")]]
    names.store()
    listed.write_text("65001,Renamed\nnonsense\n")
    names.store()
    assert valid() == 0
    assert len(table.inserts) == 2
    listed.write_text("65001,Renamed\n")
    table.down = True
    with pytest.raises(OSError, match="down"):
        names.store()
    table.down = False
    names.store()
    assert table.inserts[2:] == [[(8, "Eight"), (65001, "Renamed")]]
    failures = {
        s.labels["of"]: s.value for f in names.collect() for s in f.samples if "of" in s.labels
    }
    assert failures["list"] == 1
    assert valid() == 1


@pytest.mark.parametrize(
    ("text", "line"), [("1,a\nx,b\n", 2), ("1\n", 1), ("4294967296,big\n", 1), ('1,"open\n', 2)]
)
def test_a_wrong_list_of_names_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(ConfigError, match=rf"names\.csv:{line}"):
        read_names(str(tmp_path / "names.csv"))
