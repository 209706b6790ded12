"""Content encodings of HTTP: gzip, deflate, zstd and lz4, in pieces of bounded size."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from exporter.store.server.errors import QueryError

#: A decoder gives at most this many bytes at a time, however small its input was.
_PIECE: Final = 4 << 20


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
        return _Zlib(name)
    if name == "zstd":
        return _Framed(name, zstd.ZstdDecompressor, zstd.ZstdError)
    if name == "lz4":
        return _Framed(name, lz4.frame.LZ4FrameDecompressor, RuntimeError)
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


class _Zlib:
    def __init__(self, name: str) -> None:
        self._name = name
        # gzip, or zlib as HTTP's deflate is; 32: told apart by the head.
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        self._waiting += data

    def read(self) -> bytes | None:
        try:
            if self._zlib.eof and self._waiting:
                self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            data = self._zlib.decompress(self._waiting, _PIECE)
        except zlib.error as error:
            raise _broken(self._name, error) from error
        self._waiting = self._zlib.unused_data or self._zlib.unconsumed_tail
        return data or None

    def finish(self) -> None:
        if not self._zlib.eof:
            raise _broken(self._name, "it ends too early")


class _Framed:
    """zstd and lz4, whose decompressors share a shape; several frames may follow each other."""

    def __init__(self, name: str, make: Any, errors: type[Exception]) -> None:
        self._name = name
        self._make = make
        self._errors = errors
        self._frame = make()
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        self._waiting += data

    def read(self) -> bytes | None:
        try:
            if self._frame.eof:
                self._waiting = (self._frame.unused_data or b"") + self._waiting
                if not self._waiting:
                    return None
                self._frame = self._make()
            data: bytes = self._frame.decompress(self._waiting, _PIECE)
        except (*(self._errors,), EOFError) as error:
            raise _broken(self._name, error) from error
        self._waiting = b""
        if not data and self._frame.eof and self._frame.unused_data:
            return self.read()
        return data or None

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
