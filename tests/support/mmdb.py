"""MMDB files in the layouts of their vendors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

MAXMIND_AS = {
    "autonomous_system_number": 64496,
    "autonomous_system_organization": "Example Transit",
}
MAXMIND_CITY = {
    "city": {"names": {"en": "Frankfurt"}},
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "registered_country": {"iso_code": "US"},
}
IPINFO_LITE = {
    "asn": "AS64496", "as_name": "Example Transit", "as_domain": "example.net",
    "country": "Germany", "country_code": "DE", "continent": "Europe",
}  # fmt: skip


def write(path: Path, networks: dict[str, Any], *, ip_version: int = 6, bits: int = 0) -> Path:
    """Write a file, whole at once as updaters do; ``bits`` is the size of the tree's records."""
    writer = MMDBWriter(
        ip_version, ipv4_compatible=ip_version == 6, database_type="Test", int_type="u32"
    )
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    new = path.with_suffix(".new")
    if bits:
        _write_with(writer, new, bits)
    else:
        writer.to_db_file(str(new))
    new.replace(path)
    return path


def _write_with(writer: MMDBWriter, path: Path, bits: int) -> None:
    from mmdb_writer import TreeWriter

    original = TreeWriter._adjust_record_size

    def adjust(self: Any) -> None:
        original(self)
        self.record_size = bits
        self.data_offset = bits * 2 / 8 * self._node_counter

    TreeWriter._adjust_record_size = adjust
    try:
        writer.to_db_file(str(path))
    finally:
        TreeWriter._adjust_record_size = original
