"""Inserts as files: whole or not there, and known to be damaged if they are.

A file is a header, the insert's token, and its body compressed by zstd::

    magic 8 | CRC-32 u32 | token's length u32 | rows u64 | body's length u64 | file's length u64

All integers are little-endian. The checksum is of everything that follows it. A file appears under
its name only when all of it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import Final

import pyarrow as pa

from exporter.store.insert import Insert

#: What a file that is not finished is called until then.
UNFINISHED: Final = ".unfinished"

_MAGIC: Final = b"FLOWINS1"
_CHECKED: Final = struct.Struct("<IQQQ")
_HEAD: Final = struct.Struct("<8sI")
_CODEC: Final = pa.Codec("zstd", compression_level=1)
#: A body that claims to be longer is not believed.
_LONGEST_BODY: Final = 1 << 36


class DamagedFileError(Exception):
    """A file that is no insert, or not a whole one; the text says why."""


def pack(insert: Insert) -> bytes:
    """The contents of an insert's file."""
    token = insert.token.encode()
    compressed = _CODEC.compress(pa.py_buffer(insert.body))
    size = _HEAD.size + _CHECKED.size + len(token) + compressed.size
    checked = _CHECKED.pack(len(token), insert.rows, len(insert.body), size) + token
    checksum = zlib.crc32(compressed, zlib.crc32(checked))
    return b"".join((_HEAD.pack(_MAGIC, checksum), checked, compressed))


def read_insert(path: Path) -> Insert:
    """The insert in a file.

    Raises:
        OSError: it cannot be read.
        DamagedFileError: it is torn, its bits have changed, or no memory holds it.
    """
    try:
        return _unpack(memoryview(path.read_bytes()))
    except MemoryError as error:
        raise DamagedFileError("what it tells to hold does not fit into memory") from error


def _unpack(data: memoryview) -> Insert:
    begin = _HEAD.size + _CHECKED.size
    if len(data) < begin:
        raise DamagedFileError(f"{len(data)} bytes are too few for a header")
    magic, checksum = _HEAD.unpack_from(data)
    token_length, rows, body_length, size = _CHECKED.unpack_from(data, _HEAD.size)
    if magic != _MAGIC:
        raise DamagedFileError("it does not begin as an insert's file does")
    if size != len(data):
        raise DamagedFileError(f"{len(data)} of {size} bytes are there")
    if zlib.crc32(data[_HEAD.size :]) != checksum:
        raise DamagedFileError("its checksum differs")
    if begin + token_length > size or body_length > _LONGEST_BODY:
        raise DamagedFileError("its lengths make no sense")
    compressed = pa.py_buffer(data[begin + token_length :])
    try:
        token = bytes(data[begin : begin + token_length]).decode()
        body = _CODEC.decompress(compressed, decompressed_size=body_length, asbytes=True)
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(str(error)) from error
    return Insert(token, rows, body)


def write_durably(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data`` and be on the disk, or not be there at all.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, no path
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
        unfinished.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring what was renamed in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
