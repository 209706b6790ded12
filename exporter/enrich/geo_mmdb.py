"""An MMDB file of countries or autonomous systems, searched for many addresses at once.

Sources: MaxMind DB File Format Specification 2.0 for the search tree; for what records hold, the
schemas of MaxMind (GeoLite2 and GeoIP2: ASN, ISP, Country, City, Enterprise), DB-IP (the same) and
IPinfo (``asn``, ``as_name`` or ``name``, ``country_code`` or ``country``).

The package ``maxminddb`` reads metadata and records, by its reader in Python: 10 µs a record of AS
and country, 30 µs one of a city, each of which is read once. Its reader in C takes a fifth of that,
but some damaged records end the process with it. The tree is walked for all addresses at once, in a
fraction of a µs each.
"""

from __future__ import annotations

import logging
import re
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import maxminddb
import numpy as np
from maxminddb.decoder import Decoder
from numpy.typing import NDArray

from exporter.address import is_ipv4
from exporter.config import ConfigError
from exporter.config.load import read_bytes
from exporter.key_index import KeyIndex
from exporter.logs import RareLog

log = logging.getLogger(__name__)

_AS_NUMBER: Final = re.compile(r"(?:AS)?(\d{1,10})", re.ASCII)
_COUNTRY: Final = re.compile(r"[A-Z]{2}", re.ASCII)
#: Longest name of an AS that is kept.
_MAX_NAME: Final = 200
#: Octets between the tree and the data that its records point into.
_SEPARATOR: Final = 16
#: The first bits of addresses, walked once for all.
_JUMP: Final = 16
_REST: Final = np.uint32(32 - _JUMP)

Numbers = NDArray[np.uint32]


class MmdbFile:
    """One file as it was when it was read. For one thread.

    ``names`` has the names of the AS numbers found so far. A copy of the file is kept in memory,
    as one that is overwritten in place must not change under the search.

    Raises:
        ConfigError: the file cannot be read or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.names: dict[int, str] = {}
        self._path = path
        self._log = RareLog(log)
        try:
            content = read_bytes(Path(path))
            metadata = _metadata(content)
            self._tree, self._nodes = _tree(content, metadata)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            text = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"{path}: {text}") from error
        self._size = len(content)
        self._knows_ipv6 = metadata.ip_version == 6
        tree_size = self._nodes * metadata.record_size // 4
        self._decoder = Decoder(content, tree_size + _SEPARATOR)
        #: Where the data begins in the file, less what its first octet has as a pointer.
        self._pointer_base = tree_size - self._nodes
        first_ipv4 = 0
        for _ in range(96 if self._knows_ipv6 else 0):
            if first_ipv4 < self._nodes:
                first_ipv4 = int(self._tree[2 * first_ipv4])
        #: Where the first bits lead, of IPv4 and of IPv6 addresses.
        self._jump = np.stack([self._first(first_ipv4), self._first(0)])
        #: By pointer into the data, which number a record got in the order of reading.
        self._numbers = KeyIndex(np.uint32)
        self._numbers.add([np.array([self._nodes], np.uint32)], np.array([1], np.uint32))
        self._as_numbers = np.zeros(2, np.uint32)
        self._countries = np.zeros(2, np.uint32)

    @property
    def bytes(self) -> int:
        """Memory that it takes, but for the names."""
        tables = (self._tree, self._jump, self._as_numbers, self._countries)
        return self._size + self._numbers.bytes + sum(table.nbytes for table in tables)

    def find(self, addresses: NDArray[np.uint8]) -> tuple[Numbers, Numbers]:
        """AS number and country of each of the ``(n, 16)`` addresses, 0 where it knows none.

        A country is its two letters as a number of 16 bits.
        """
        numbers, new = self._numbers.find_or_add(self._pointers(addresses))
        if len(new):
            self._read(new)
        return self._as_numbers.take(numbers), self._countries.take(numbers)

    def _pointers(self, addresses: NDArray[np.uint8]) -> Numbers:
        """Where the tree ends for each address: a pointer, or the number of nodes for nowhere."""
        found = np.full(len(addresses), self._nodes, np.uint32)
        bits = np.ascontiguousarray(addresses).view(">u4").astype(np.uint32)
        mapped = is_ipv4(addresses)
        ipv4 = bits[mapped, 3]
        found[mapped] = self._walk(self._jump[0, ipv4 >> _REST], [ipv4], range(_JUMP, 32))
        if self._knows_ipv6 and len(ipv4) < len(addresses):
            ipv6 = list(np.ascontiguousarray(bits[~mapped].T))
            first = self._jump[1, ipv6[0] >> _REST]
            found[~mapped] = self._walk(first, ipv6, range(_JUMP, 128))
        return np.maximum(found, np.uint32(self._nodes))

    def _first(self, node: int) -> Numbers:
        """Where the first bits lead from a node on, by their value."""
        high = np.arange(1 << _JUMP, dtype=np.uint32) << _REST
        return self._walk(np.full(len(high), node, np.uint32), [high], range(_JUMP))

    def _walk(self, nodes: Numbers, words: list[Numbers], depths: range) -> Numbers:
        """From ``nodes`` on by the bits of ``words``; each word has 32 of them."""
        result = nodes
        rows = np.flatnonzero(nodes < self._nodes)
        nodes = nodes[rows]
        for depth in depths:
            if not len(rows):
                break
            word, bit = divmod(depth, 32)
            side = (words[word][rows] >> np.uint32(31 - bit)) & np.uint32(1)
            nodes = self._tree[2 * nodes.astype(np.intp) + side]
            ended = nodes >= self._nodes
            if ended.any():
                result[rows[ended]] = nodes[ended]
                rows, nodes = rows[~ended], nodes[~ended]
        result[rows] = nodes
        return result

    def _read(self, pointers: Numbers) -> None:
        """Read the records behind pointers that are met for the first time."""
        as_numbers, countries = [], []
        for pointer in pointers.tolist():
            number, name, country = _facts(self._record(self._pointer_base + pointer))
            as_numbers.append(number)
            countries.append(country)
            if number and name:
                self.names[number] = name
        self._as_numbers = np.append(self._as_numbers, np.array(as_numbers, np.uint32))
        self._countries = np.append(self._countries, np.array(countries, np.uint32))

    def _record(self, offset: int) -> Any:
        """What stands at an offset of the file; nothing where it is damaged."""
        try:
            return self._decoder.decode(offset)[0]
        except Exception as error:  # bytes without sense fail in many ways
            self._log.warning("damaged", f"{self._path}: a record is damaged: {error!r}")
            return None


def country_text(number: int) -> str:
    """The two letters of a country; nothing for 0."""
    return number.to_bytes(2, "big").decode("ascii") if number else ""


class _Copy(BytesIO):
    """A copy in memory, as the reader wants it."""

    name = "copy"


def _metadata(content: bytes) -> Any:
    with maxminddb.reader.Reader(_Copy(content), maxminddb.MODE_FD) as reader:
        return reader.metadata()


def _tree(content: bytes, metadata: Any) -> tuple[Numbers, int]:
    """The search tree: two records for each node, left and right.

    Raises:
        ValueError: it is not all there, or points out of the file.
    """
    nodes: int = metadata.node_count
    size: int = metadata.record_size
    length = nodes * size // 4
    if size not in (24, 28, 32) or metadata.ip_version not in (4, 6):
        raise ValueError(f"records of {size} bits for IPv{metadata.ip_version} are not known")
    if nodes < 1 or length + _SEPARATOR > len(content):
        raise ValueError("the search tree is not all there")
    octets = np.frombuffer(content, np.uint8, length).reshape(nodes, size // 4)
    tree = np.zeros((nodes, 2, 4), np.uint8)
    if size == 28:
        tree[:, 0, 1:], tree[:, 1, 1:] = octets[:, :3], octets[:, 4:]
        tree[:, 0, 0], tree[:, 1, 0] = octets[:, 3] >> 4, octets[:, 3] & 0xF
    else:
        tree[:, :, 4 - size // 8 :] = octets.reshape(nodes, 2, size // 8)
    records = tree.reshape(-1, 4).view(">u4").ravel().astype(np.uint32)
    if int(records.max()) >= nodes + len(content) - length:
        raise ValueError("the search tree points out of the file")
    return records, nodes


def _facts(record: Any) -> tuple[int, str, int]:
    """AS number, its holder's name and the country in a record, as far as it has them."""
    if not isinstance(record, dict):
        return 0, "", 0
    traits = record.get("traits")
    system = traits if isinstance(traits, dict) else record
    number = _as_number(
        system.get("autonomous_system_number", record.get("autonomous_system_number"))
        or record.get("asn")
    )
    name = (
        system.get("autonomous_system_organization")
        or record.get("autonomous_system_organization")
        or record.get("as_name")
        or (record.get("name") if "asn" in record else "")
    )
    return number, name[:_MAX_NAME] if isinstance(name, str) else "", _country(record)


def _as_number(value: Any) -> int:
    if isinstance(value, str) and (found := _AS_NUMBER.fullmatch(value)):
        value = int(found[1])
    return value if isinstance(value, int) and 0 < value < 1 << 32 else 0


def _country(record: dict[str, Any]) -> int:
    for field in ("country_code", "country", "registered_country"):
        value = record.get(field)
        if isinstance(value, dict):
            value = value.get("iso_code")
        if isinstance(value, str) and _COUNTRY.fullmatch(value):
            return int.from_bytes(value.encode("ascii"), "big")
    return 0
