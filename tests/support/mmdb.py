"""MMDB files in the layouts of their vendors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mmdb_writer import Encoder, MMDBWriter, TreeWriter
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
_COUNTRIES = ("DE", "US", "NL", "FR", "GB", "PL", "JP", "IN")


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


def write_many(path: Path, *, depth: int, records: int) -> Path:
    """A file with ``2 ** depth`` networks of IPv4, and as many of IPv6 below ``2a00::/16``.

    For sizes that a writer of single networks takes minutes for. Each network has one of
    ``records``, drawn at random: an AS number from 1 on, ``Holder <number>``, and a country.
    """
    chain4, chain6 = 96, 16 - 2  # the first two nodes of the way to 2a00:: are those of ::/96
    nodes = chain4 + chain6 + 2 * ((1 << depth) - 1)
    data = bytearray()
    pointers = np.zeros(records, np.uint32)
    for number in range(records):
        pointers[number] = nodes + 16 + len(data)
        data += _record(number)
    root4, root6 = chain4 + chain6, chain4 + chain6 + (1 << depth) - 1
    tree = np.full((nodes, 2), nodes, np.uint32)
    tree[:chain4, 0] = [*range(1, chain4), root4]
    node = 2
    for place, bit in enumerate(f"{0x2A00:016b}"[2:], 1):
        below = root6 if place == chain6 else chain4 + place - 1
        tree[node, int(bit)] = below
        node = below
    for root, seed in ((root4, 4), (root6, 6)):
        drawn = np.random.default_rng(seed).integers(0, records, 1 << depth)
        tree[root : root + (1 << depth) - 1] = _heap(root, depth, pointers[drawn])
    metadata = {
        "node_count": nodes, "record_size": 32, "ip_version": 6, "database_type": "Test",
        "languages": ["en"], "binary_format_major_version": 2, "binary_format_minor_version": 0,
        "build_epoch": 1, "description": {"en": "Test"},
    }  # fmt: skip
    encoded = Encoder(cache=False, int_type="u32").encode_meta(metadata)
    path.write_bytes(
        tree.astype(">u4").tobytes() + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + encoded
    )
    return path


def _heap(root: int, depth: int, leaves: Any) -> Any:
    """Nodes as in a heap: those below the ``n``-th are ``2n + 1`` and ``2n + 2``."""
    nodes = (1 << depth) - 1
    below = np.arange(1, 2 * nodes + 1, dtype=np.uint32) + np.uint32(root)
    below[-len(leaves) :] = leaves
    return below.reshape(nodes, 2)


def _record(number: int) -> bytes:
    octets = b"\xe3" + _text("autonomous_system_number") + b"\xc4" + (number + 1).to_bytes(4, "big")
    octets += _text("autonomous_system_organization") + _text(f"Holder {number}")
    return octets + _text("country") + b"\xe1" + _text("iso_code") + _text(_COUNTRIES[number % 8])


def _text(text: str) -> bytes:
    """UTF-8 as the data section has it (format specification, "Data Field Format")."""
    octets = text.encode()
    head = bytes([0x40 | len(octets)]) if len(octets) < 29 else bytes([0x5D, len(octets) - 29])
    return head + octets
