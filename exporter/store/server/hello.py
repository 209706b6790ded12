"""The first question of a clickhouse-go client over HTTP, answered in the form that it reads.

clickhouse-go (Grafana's plugin) decodes the answer to this one query as Native of the protocol
revision that it asks for, and everything later as Native of the revision that it is told here.
The engine writes revision 0, so that is what it is told.
"""

from __future__ import annotations

from typing import Final

HELLO: Final = "SELECT displayName(), version(), revision(), timezone()"

#: BlockInfo of an ordinary block: not an overflow (field 1), bucket number -1 (field 2), end.
_BLOCK_INFO: Final = b"\x01\x00\x02\xff\xff\xff\xff\x00"
#: Since revision 54454 a flag says whether a column is serialized in a custom way.
_DEFAULT_SERIALIZATION: Final = b"\x00"


def hello(version: str) -> bytes:
    """A Native block of revision 54454 or newer with the one row of the answer."""
    columns = (
        ("displayName()", "String", _string("flow-exporter store")),
        ("version()", "String", _string(version)),
        ("revision()", "UInt32", (0).to_bytes(4, "little")),
        ("timezone()", "String", _string("UTC")),
    )
    block = _BLOCK_INFO + bytes([len(columns), 1])
    for name, kind, value in columns:
        block += _string(name) + _string(kind) + _DEFAULT_SERIALIZATION + value
    return block


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) > 127:
        raise ValueError(f"too long for a one-byte length: {text!r}")
    return bytes([len(data)]) + data
