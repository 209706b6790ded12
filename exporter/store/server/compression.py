"""Content encodings of HTTP: gzip, deflate, zstd and lz4, in pieces of bounded size."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from exporter.store.server.errors import QueryError

#: A decoder gives at most this many bytes at a time, however small its input was.
_PIECE: Final = 4 << 20
#: Bytes that a decompressor takes at a time.
_SLICE: Final = 64 << 10


class Decoder(Protocol):
    """Decodes a body: ``feed``, then ``read`` until it gives None; ``finish`` after the last."""

    def feed(self, data: bytes) -> None: ...
    def read(self) -> bytes | None: ...
    def finish(self) -> None: ...


class Encoder(Protocol):
    """Encodes an answer; ``headers`` tell how."""

    headers: ClassVar[dict[str, str]]

    def encode(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


def decoder_for(url: Mapping[str, str], headers: Mapping[str, str]) -> Decoder | None:
    """The decoder of a request's body, or None where it is sent as it is.

    Raises:
        QueryError: an encoding that is not known.
    """
    if url.get("decompress", "0") not in ("0", "false"):
        raise _unknown("ClickHouse's own block compression (decompress=1)")
    name = headers.get("content-encoding", "identity").strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "deflate"):
        return _Frames(name, _Inflate, zlib.error)
    if name == "zstd":
        return _Frames(name, zstd.ZstdDecompressor, zstd.ZstdError)
    if name == "lz4":
        return _Frames(name, lz4.frame.LZ4FrameDecompressor, RuntimeError)
    raise _unknown(f"Content-Encoding {name!r}")


def encoder_for(url: Mapping[str, str], headers: Mapping[str, str]) -> Encoder:
    """The encoder that the client asks for, as in ClickHouse only with enable_http_compression=1.

    Raises:
        QueryError: ClickHouse's own block compression is asked for.
    """
    if url.get("compress", "0") not in ("0", "false"):
        raise _unknown("ClickHouse's own block compression (compress=1)")
    if url.get("enable_http_compression", "0") in ("0", "false"):
        return _Identity()
    offered = [part.strip().split(";") for part in headers.get("accept-encoding", "").split(",")]
    names = {part[0].lower() for part in offered if part[-1].replace(" ", "") != "q=0"}
    # In the order of what costs least.
    for name, encoder in (("lz4", _Lz4), ("zstd", _Zstd), ("gzip", _Gzip), ("deflate", _Deflate)):
        if name in names:
            return encoder()
    return _Identity()


class _Inflate:
    """zlib's decompressor in the shape of the others."""

    def __init__(self) -> None:
        # gzip, or zlib as HTTP's deflate is; 32: told apart by the head.
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(found) < max_length
        return found


class _Frames:
    """One frame after the other: decompressors end with theirs, and say what is left."""

    def __init__(self, name: str, make: Callable[[], Any], error: type[Exception]) -> None:
        self._name = name
        self._make = make
        self._error = error
        self._frame = make()
        self._waiting = b""
        self._position = 0

    def feed(self, data: bytes) -> None:
        self._waiting = self._waiting[self._position :] + data
        self._position = 0

    def read(self) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while size < _PIECE and (data := self._step(_PIECE - size)) is not None:
            parts.append(data)
            size += len(data)
        return b"".join(parts) or None

    def _step(self, most: int) -> bytes | None:
        """What one call of the decompressor gives; None where it takes more input."""
        ready = self._position < len(self._waiting)
        if self._frame.eof:
            if not ready:
                return None
            self._frame = self._make()
        taken = b""
        if self._frame.needs_input:
            if not ready:
                return None
            # What a short frame leaves is copied: little at a time, as they may be many.
            taken = self._waiting[self._position : self._position + _SLICE]
            self._position += len(taken)
        try:
            data: bytes = self._frame.decompress(taken, most)
        except (self._error, EOFError) as error:
            raise _broken(self._name, error) from error
        if self._frame.eof:
            self._position -= len(self._frame.unused_data or b"")
        return data

    def finish(self) -> None:
        if not self._frame.eof:
            raise _broken(self._name, "it ends too early")


class _Identity:
    headers: ClassVar[dict[str, str]] = {}

    def encode(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""


class _Lz4:
    headers: ClassVar[dict[str, str]] = {"Content-Encoding": "lz4"}

    def __init__(self) -> None:
        self._lz4 = lz4.frame.LZ4FrameCompressor(auto_flush=True)
        self._head = self._lz4.begin()

    def encode(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return bytes(head + self._lz4.compress(data))

    def finish(self) -> bytes:
        return bytes(self._lz4.flush())


class _Zstd:
    headers: ClassVar[dict[str, str]] = {"Content-Encoding": "zstd"}

    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(level=1)

    def encode(self, data: bytes) -> bytes:
        return self._zstd.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._zstd.flush()


class _Gzip:
    headers: ClassVar[dict[str, str]] = {"Content-Encoding": "gzip"}
    wbits = zlib.MAX_WBITS | 16

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(level=1, wbits=self.wbits)

    def encode(self, data: bytes) -> bytes:
        return self._zlib.compress(data) + self._zlib.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._zlib.flush()


class _Deflate(_Gzip):
    headers: ClassVar[dict[str, str]] = {"Content-Encoding": "deflate"}
    wbits = zlib.MAX_WBITS


def _unknown(what: str) -> QueryError:
    return QueryError(89, "UNKNOWN_COMPRESSION_METHOD", f"{what} is not supported.")


def _broken(name: str, why: object) -> QueryError:
    return QueryError(271, "CANNOT_DECOMPRESS", f"The body is no sound {name}: {why}.")
