"""Lists of addresses or names that filters look up: mining pools, threat lists, groups of nodes.

A list is a text file with one entry a line; what follows ``#`` or ``;`` is a comment. Addresses
are IPv4 or IPv6 addresses and prefixes; a name stands for itself and all names below it.

Entries reach ClickHouse as rows of table ``policy_lists``, never as text of a query. Rows go by
the list's content (``version``), so that collectors with the same file share them and an
evaluation never sees half a list.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, PrivateAttr, model_validator

from exporter.config import ConfigError, FileName, Section
from exporter.config.load import read_text
from exporter.policies.filter import ListUse

ListKind = Literal["addresses", "names"]

MAX_ENTRIES: Final = 500_000
_MAX_BYTES: Final = 32 << 20
_MAX_FAULTS: Final = 5
_MAX_NAME: Final = 253

_COMMENT: Final = re.compile(r"\s*(?:[#;].*)?$")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class ListError(ValueError):
    """A file that is no list; one part per fault, each with file and line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A prefix as its first address (IPv4 mapped) and length of 128 bits, or a name and its
    number of labels."""

    length: int
    address: str = "::"
    name: str = ""


@dataclass(frozen=True, slots=True)
class LoadedList:
    """The entries of a list; ``version`` (64 bits) goes by their content."""

    kind: ListKind
    entries: tuple[Entry, ...]
    version: int

    def condition(self, use: ListUse) -> str:
        """SQL that is true of rows whose column is in the list; binds :func:`parameter_of`.

        One look-up in a set for each length that occurs.
        """
        lengths = sorted({entry.length for entry in self.entries})
        return " OR ".join(self._lookup(use, length) for length in lengths)

    def _lookup(self, use: ListUse, length: int) -> str:
        looked_up, column = use.column, "addr"
        if self.kind == "names":
            column = "name"
            labels = f"splitByChar('.', lower(trim(TRAILING '.' FROM toString({use.column}))))"
            looked_up = f"arrayStringConcat(arraySlice({labels}, -{length}), '.')"
        elif length < 128:
            looked_up = f"IPv6CIDRToRange({use.column}, {length}).1"
        return (
            f"{looked_up} IN (SELECT {column} FROM policy_lists"  # noqa: S608 - bound, or our own
            f" WHERE version = {{{parameter_of(use.name)}:UInt64}} AND length = {length})"
        )


class PolicyList(Section):
    """A list that filters look up."""

    file: FileName = Field(min_length=1, description="Text file with one entry a line.")
    type: ListKind = Field(description="What the entries are: `addresses` or `names`.")
    _loaded: LoadedList = PrivateAttr()

    @property
    def loaded(self) -> LoadedList:
        """The list as it was when ``policies.yaml`` was read."""
        return self._loaded

    @model_validator(mode="after")
    def _read(self) -> PolicyList:
        self._loaded = read_list(Path(self.file), self.type)
        return self


def parameter_of(name: str) -> str:
    """The parameter that a list's version is bound to."""
    return f"list_{name}"


def read_list(file: Path, kind: ListKind) -> LoadedList:
    """The list in ``file``.

    Raises:
        ListError: it cannot be read, is wrong, empty or too long.
    """
    parse = _address if kind == "addresses" else _name
    entries: set[Entry] = set()
    faults = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        try:
            if word := _word(line):
                entries.add(parse(word))
        except ValueError as error:
            faults.append(f"{file}:{number}: {error}")
            if len(faults) == _MAX_FAULTS:
                break
    if not faults and not entries:
        faults.append(f"{file}: holds no entry")
    if len(entries) > MAX_ENTRIES:
        faults.append(f"{file}: more than {MAX_ENTRIES} entries")
    if faults:
        raise ListError("; ".join(faults))
    ordered = tuple(sorted(entries, key=lambda e: (e.length, e.address, e.name)))
    content = "\n".join((kind, *(f"{e.length} {e.address} {e.name}" for e in ordered)))
    digest = hashlib.sha256(content.encode()).digest()
    return LoadedList(kind, ordered, int.from_bytes(digest[:8], "big"))


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ListError(f"{file}: larger than {_MAX_BYTES >> 20} MiB")
        return read_text(file)
    except OSError as error:
        raise ListError(f"{file}: {error.strerror}") from error
    except ConfigError as error:
        raise ListError(str(error)) from error


def _word(line: str) -> str:
    """The entry of a line; nothing where it has none, or a comment alone."""
    line = line.strip()
    word = line.split(None, 1)[0] if line else ""
    if word[:1] in ("", "#", ";"):
        return ""
    rest = line[len(word) :]
    if not _COMMENT.fullmatch(rest):
        raise ValueError(f"{rest.strip()[:40]!r} follows the entry")
    return word.rstrip(";")


def _address(word: str) -> Entry:
    network = ipaddress.ip_network(word)
    if network.version == 4:
        return Entry(96 + network.prefixlen, f"::ffff:{network.network_address}")
    return Entry(network.prefixlen, str(network.network_address))


def _name(word: str) -> Entry:
    name = word.lower().removeprefix("*").strip(".")
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{word[:80]!r} is not a domain name")
    return Entry(len(labels), name=name)
